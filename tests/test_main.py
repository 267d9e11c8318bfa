"""The command line as its users see it: one line for a mistake, a non-zero exit, nothing lost."""

import json
import subprocess
import sys
import time

import pytest

from tests.helpers.command_line import ENVIRONMENT, ROOT, refused, run, run_all

NANO = """
from configs import base

def get_config():
    config = base.get_config("tiny")
    config.workdir = {workdir!r}
    config.data.update(source={music!r}, cache_dir={cache!r})
    config.representation.update(
        sample_rate=8000, n_fft=256, hop=64, frames=32, n_mels=32, griffin_lim_iters=4)
    config.model.update(patch=(32, 4), width=32, depth=1, heads=2)
    config.optimizer.update(warmup_steps=2)
    config.train.update(
        batch_size=4, num_steps=4, steps_per_dispatch=2, eval_every=2, checkpoint_every=2)
    config.valid.update(crops=8, num_noise_levels=4, baseline_crops=32)
    config.sample.update(num_samples=1, batch_size=1, nfe=2)
    return config
"""


@pytest.fixture
def config_file(music, tmp_path):
    path = tmp_path / "nano.py"
    fields = {"workdir": tmp_path / "run", "music": music, "cache": tmp_path / "cache"}
    path.write_text(NANO.format(**{name: str(value) for name, value in fields.items()}))
    return path


@pytest.mark.slow  # test_end_to_end runs the same within its process
def test_main_runs_to_its_end_once(config_file, tmp_path):
    done = run(f"--config={config_file}")
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "run"
    for name in ("report.html", "metrics.jsonl", "health.json", "preflight.json", "config.json"):
        assert (workdir / name).stat().st_size > 0
    facts = json.loads((workdir / "preflight.json").read_text())
    assert facts["tokens"] == 8 and facts["num_steps"] == 4 and facts["seconds_a_step"] > 0
    before = (workdir / "metrics.jsonl").read_bytes()
    again = run(f"--config={config_file}")
    assert again.returncode == 0 and "all 4 steps are done already" in again.stderr
    other = run(f"--config={config_file}", "--mode=sample", "--config.model.depth=2")
    refused(other, "model.depth=2 is not used by --mode=sample", "was trained with 1")
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_preflight_writes_json_without_training(config_file, tmp_path):
    facts = tmp_path / "facts.json"
    done = run(f"--config={config_file}", "--mode=preflight", f"--json={facts}")
    assert done.returncode == 0, done.stderr
    for word in ("device:", "parameters:", "GFLOP", "peak", "s a step", "in total", "disk:"):
        assert word in done.stderr
    result = json.loads(facts.read_text())
    assert result["parameters"] > 0 and result["training_flops_an_example"] > 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_main_reports_mistakes_in_one_line_before_work(config_file, tmp_path):
    (tmp_path / "empty").mkdir()
    own = f"--config={config_file}"
    mistakes = [
        (["--config=configs/none.py"], ["configs/none.py"]),
        ([own, "--config.optimizer.learning_rat=1"], ["learning_rate"]),
        ([own, "--mode=trian"], ["trian"]),
        ([own, "--config.model.heads=3"], ["model.heads=3"]),
        ([own, "--json=x.json"], ["--json is not used"]),
        (
            [own, "--config.representation.n_mels=None"],
            ["n_mels must be set for representation.kind='log_mel'"],
        ),
        ([own, "--config.model.width=None"], ["--config.model.width=None: it must have a value"]),
        ([own, "--config.model.widht=None"], ["no field 'widht'; did you mean 'width'"]),
        ([own, "--config.edit.kind=inpant"], ["did you mean 'inpaint'"]),
        ([own, "--config.data.source=/no/such/folder"], ["/no/such/folder"]),
        ([own, f"--config.data.source={tmp_path / 'empty'}"], ["no .wav", "empty"]),
    ]
    results = run_all([arguments for arguments, _ in mistakes], tmp_path)
    for (_, words), done in zip(mistakes, results, strict=True):
        refused(done, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_main_names_crops_longer_than_every_song(config_file):
    crop = "--config.representation.frames=100000"
    refused(run(f"--config={config_file}", crop), "lower representation.frames")


@pytest.mark.slow
def test_main_reports_a_full_disk_and_keeps_the_run(config_file, tmp_path):
    """A file-size limit stands in for a disk that fills while the checkpoint is written."""
    import resource

    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    prepared = run(f"--config={config_file}", "--mode=prepare")
    assert prepared.returncode == 0, prepared.stderr
    environment = ENVIRONMENT | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = run(f"--config={config_file}", preexec_fn=limit, env=environment)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert str(tmp_path / "run") in errors[0] and "loop is closed" not in done.stderr
    again = run(f"--config={config_file}")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_parameters(config_file, tmp_path):
    """SIGKILL after 1, 2, ... logged dispatches, resumed each time, against an undisturbed run."""
    steps = ["--config.train.num_steps=16", "--config.train.max_to_keep=1"]
    whole = run(f"--config={config_file}", *steps, f"--config.workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    workdir = tmp_path / "killed"
    command = [sys.executable, "-m", "specdiff_jax.main", f"--config={config_file}", *steps]
    for lines in (3, 6, 9):
        child = subprocess.Popen(
            [*command, f"--config.workdir={workdir}"],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        metrics = workdir / "metrics.jsonl"
        while child.poll() is None and len(read_lines(metrics)) < lines:
            time.sleep(0.01)
        child.kill()
        child.wait()
    last = run(f"--config={config_file}", *steps, f"--config.workdir={workdir}")
    assert last.returncode == 0, last.stderr
    result, expected = (final_metrics(path) for path in (workdir, tmp_path / "whole"))
    assert result == expected
    clip = "samples/step_00000016/000.wav"
    assert (workdir / clip).read_bytes() == (tmp_path / "whole" / clip).read_bytes()


def read_lines(path):
    return path.read_text().splitlines() if path.exists() else []


def final_metrics(workdir):
    """Every logged loss, and the validation errors: functions of the parameters."""
    records = [json.loads(line) for line in read_lines(workdir / "metrics.jsonl")]
    keys = ("kind", "step", "loss", "grad_norm", "x0_error")
    return [[record.get(key) for key in keys] for record in records]
