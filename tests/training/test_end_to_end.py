"""The whole main job in seconds, and that a killed run goes on as if nothing had happened."""

import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.config import build
from specdiff_jax.data import prepare
from specdiff_jax.evaluation import ceiling
from specdiff_jax.reports import run_report
from specdiff_jax.sampling import check_config, sample
from specdiff_jax.training import checkpoints, train
from specdiff_jax.training.diffusion_job import DiffusionJob
from tests.helpers import synth


def state_of(config, step):
    job = DiffusionJob(config)
    return checkpoints.restore(config.workdir, step, jax.eval_shape(job.init))


def records(workdir, kind):
    """metrics.jsonl without what depends on the clock."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    clock = ("steps_per_second", "audio_per_second")
    result = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k not in clock} for r in result if r["kind"] == kind]


@pytest.fixture
def trained(nano, trained_nano):
    """`nano` with a checkpoint of step 6 in a workdir of its own."""
    shutil.copytree(trained_nano, nano.workdir)
    return nano


def train_fully(config):
    prepare.run(config)
    train.run(config)


def test_main_job_learns_and_writes_samples_report_and_verdict(nano):
    nano.train.update(num_steps=120, eval_every=60, checkpoint_every=60, steps_per_dispatch=10)
    nano.optimizer.update(learning_rate=5e-3, warmup_steps=10)
    train_fully(nano)
    sample.run(nano)
    ceiling.run(nano)
    run_report.run(nano)
    workdir = pathlib.Path(nano.workdir)
    health = json.loads((workdir / "health.json").read_text())
    assert np.mean(health["x0_error"]) < 0.8 * np.mean(health["baselines"]["constant"])
    losses = [record["loss"] for record in records(workdir, "train")]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]
    folder = workdir / "samples" / "step_00000120"
    for k in range(2):
        wave, rate = soundfile.read(folder / f"{k:03d}.wav")
        assert rate == 8000 and len(wave) == 31 * 64 and 0 < np.abs(wave).max() <= 1
        sidecar = json.loads((folder / f"{k:03d}.json").read_text())
        assert sidecar["index"] == k and sidecar["seed"] == 0
        assert sidecar["checkpoint_sha256"] == checkpoints.manifest_sha256(workdir, 120)
    page = (workdir / "report.html").read_text()
    assert health["verdict"].split(":")[0] in page and page.count("<audio") >= 2 + 2
    assert list((workdir / "tensorboard").iterdir())


@pytest.mark.parametrize("feed", ["device", pytest.param("host", marks=pytest.mark.slow)])
def test_resume_of_three_and_three_steps_equals_six(nano, trained_nano, feed):
    """Six steps at once were trained from one feed: so host and device feeds agree too."""
    whole = nano.copy_and_resolve_references()
    whole.workdir, nano.data.placement = trained_nano, feed
    interrupt_after(nano, 3)
    assert checkpoints.steps(nano.workdir) == [3]
    train.run(nano)
    jax.tree.map(np.testing.assert_array_equal, state_of(nano, 6), state_of(whole, 6))
    for kind in ("train", "valid"):
        assert records(nano.workdir, kind) == records(trained_nano, kind)


def interrupt_after(config, step):
    """Trains and delivers SIGTERM while step `step` runs: metrics are read one dispatch late."""
    original = train.record

    def record(job, logs, first, count, metrics, clock):
        if first + count == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(job, logs, first, count, metrics, clock)

    train.record = record
    try:
        with pytest.raises(SystemExit) as stop:
            train.run(config)
        assert stop.value.code == 128 + signal.SIGTERM
    finally:
        train.record = original


def test_divergence_stops_the_run_and_keeps_its_checkpoint(trained):
    trained.train.num_steps = 12
    job_step = DiffusionJob.train_step

    def poisoned(job):
        dispatch = job_step(job)

        def run(state, pcm, steps, batch):
            state, metrics = dispatch(state, pcm, steps, batch)
            if steps[0] == 8:
                metrics["finite"] = metrics["finite"] * 0
            return state, metrics

        return run

    DiffusionJob.train_step = poisoned
    try:
        with pytest.raises(ValueError, match="non-finite loss or gradient at step 9"):
            train.run(trained)
    finally:
        DiffusionJob.train_step = job_step
    assert checkpoints.newest_good(trained.workdir) == 6


def test_resume_refuses_a_changed_config(trained):
    trained.train.num_steps = 9
    trained.model.mlp_ratio = 2
    with pytest.raises(ValueError, match=r"trained with model.mlp_ratio=4, the config says 2"):
        train.run(trained)


def test_clip_k_is_the_same_for_any_batch_size(trained):
    clips = {}
    for size in (1, 3):
        trained.sample.update(batch_size=size, num_samples=3)
        sample.run(trained)
        folder = pathlib.Path(trained.workdir) / "samples" / "step_00000006"
        clips[size] = np.stack([soundfile.read(folder / f"{k:03d}.wav")[0] for k in range(3)])
    np.testing.assert_allclose(clips[1], clips[3], atol=2 / 32768)
    assert np.abs(clips[1][0] - clips[1][1]).max() > 1e-3


def test_sample_refuses_a_workdir_without_checkpoints(nano):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        sample.run(nano)


@pytest.mark.slow
def test_stereo_trains_augmented_and_samples_two_channels(nano, tmp_path):
    """Two channels, different on purpose, from files to WAV; the augmentations change the loss."""
    folder = tmp_path / "stereo"
    for number in range(6):
        sides = [
            synth.chords(
                110 * 2 ** (3 * np.random.default_rng([number, side]).random(8)), 0.5, 8000
            )
            for side in (0, 1)
        ]
        files.write(folder / f"{number}.wav", np.stack(sides), 8000)
    nano.data.update(source=str(folder), channels=2)
    nano.train.num_steps = 2
    nano.train.update(eval_every=2, checkpoint_every=2)
    losses = []
    for on in (False, True):
        nano.workdir = str(tmp_path / f"run_{on}")
        if on:
            nano.augment.update(
                speed_semitones=2.0,
                time_roll=1.0,
                swap=0.5,
                polarity=0.5,
                low_pass_hz=(1000.0, 4000.0),
                mix_up=0.5,
                noise_db=(20.0, 60.0),
                gain_db=6.0,
            )
        for verb in (prepare, train, sample, ceiling):
            verb.run(nano)
        lines = (pathlib.Path(nano.workdir) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"train"' in line])
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    clip = next(pathlib.Path(nano.workdir).glob("samples/*/000.wav"))
    wave, _ = soundfile.read(clip)
    assert wave.shape[1] == 2 and np.abs(wave[:, 0] - wave[:, 1]).max() > 1e-3
    rep = build.representation(nano)
    assert rep.shape == (32, 32, 2)


def test_augmentation_refuses_useless_settings(nano):
    wrong = {"swap": 0.5, "mix_up": 0.7, "polarity": 2.0, "noise_db": (30.0, 10.0)}
    wrong |= {"low_pass_hz": (0.0, 100.0), "speed_semitones": 20.0}
    for name, value in wrong.items():
        nano.augment[name] = value
        with pytest.raises(ValueError, match=f"augment.{name}"):
            check_config.check(nano)
        nano.augment[name] = None
