"""The server of the demo: the bits of --mode=sample, limits, stopping, shared programs."""

import pathlib
import time

import jax
import jax.numpy as jnp
import pytest

from specdiff_jax.audio import files
from specdiff_jax.config import build
from specdiff_jax.diffusion import editing
from specdiff_jax.sampling import demo_server, sample
from tests.helpers import synth

FIELDS = {  # of an untouched page
    **{"kind": "new", "upload": None, "offset": 0.0, "strength": 0.6, "prefix": 0.1},
    **{"first": None, "last": None, "low": None, "high": None},
    **{"prompt": "", "negative_prompt": "", "labels": [], "algebra": "", "scalars": {}},
    **{"guidance_scale": 2.0, "rescale": 0, "interval_low": 0, "interval_high": 1},
    **{"sampler": "ddpm", "time_grid": "log_snr", "nfe": 6, "seed": 3, "seconds": None},
    "num_samples": 2,
}


@pytest.fixture
def config(nano, trained_nano):
    nano.workdir = trained_nano
    return nano


@pytest.fixture
def song(tmp_path):
    files.write(tmp_path / "song.wav", synth.chords([220.0, 330.0, 440.0], 0.5, 8000), 8000)
    return str(tmp_path / "song.wav")


def run_request(server, **fields):
    """Return the ended Request of a page's fields."""
    request = server.start(FIELDS | fields)
    request.thread.join(120)
    assert not request.thread.is_alive()
    return request


@pytest.mark.slow
def test_request_equals_mode_sample_bit_for_bit(config):
    request = run_request(demo_server.DemoServer(config))
    assert request.error is None and request.done == request.total == 6
    config.sample.update(sampler="ddpm", time_grid="log_snr", nfe=6, seed=3, num_samples=2)
    sample.run(config)
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000006"
    for path in request.clips:
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.with_suffix(".png").is_file() and path.with_suffix(".json").is_file()


@pytest.mark.slow
def test_requests_that_differ_in_data_share_a_program(config, monkeypatch):
    traced, denoiser = [], build.denoiser
    monkeypatch.setattr(build, "denoiser", lambda *a: traced.append(a) or denoiser(*a))
    server = demo_server.DemoServer(config)
    clips = [run_request(server, seed=seed).clips for seed in (3, 4, 3)]
    first, second, third = ([path.read_bytes() for path in paths] for paths in clips)
    assert len(traced) == 1 and first == third and first != second
    run_request(server, sampler="dpmpp_2m")
    assert len(traced) == 2


def test_report_progress_skips_the_network_after_false():
    evaluated, counted = [], []

    def denoise(x_t, t):
        jax.debug.callback(lambda: evaluated.append(1))
        return x_t + 1, x_t

    def on_evaluation():
        counted.append(1)
        return len(counted) < 4

    reported = editing.report_progress(denoise, on_evaluation)
    step = lambda x, _: (reported(x, jnp.zeros(1))[0], None)
    x = jax.jit(lambda x: jax.lax.scan(step, x, None, 10)[0])(jnp.zeros(1))
    jax.effects_barrier()
    assert float(x[0]) == len(evaluated) == 3 and len(counted) == 10


@pytest.mark.slow
def test_stopped_request_ends_soon_and_frees_the_server(config):
    config.demo.max_nfe = 10**6
    config.schedule.steps = None
    server = demo_server.DemoServer(config)
    request = server.start(FIELDS | {"nfe": 20_000, "sampler": "ddim"})
    while not request.done and request.thread.is_alive():
        time.sleep(0.01)
    done = request.done
    request.stopped.set()
    request.thread.join(30)
    assert not request.thread.is_alive() and request.error == "Stopped." and not request.clips
    assert 0 < done < 20_000
    assert run_request(server).error is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 9}, "num_samples=9 is not above 0 and at most demo.max_clips=8"),
        ({"nfe": 2000}, "at most demo.max_nfe=1000"),
        ({"seconds": 61.0}, "at most demo.max_seconds=60"),
        ({"seconds": float("nan")}, "seconds=nan is not above 0"),
        ({"seed": -1}, "seed=-1 is not at least 0"),
        ({"prompt": "a flute"}, "trained without condition.text"),
        ({"algebra": "+flute"}, "trained without condition.labels"),
        ({"negative_prompt": "drums"}, "needs a prompt, labels or numbers"),
        ({"kind": "variation"}, "variation needs a sound file; upload one"),
        ({"kind": "inpaint", "upload": "SONG"}, "needs edit.seconds"),
        ({"kind": "inpaint", "upload": "SONG", "first": 0.1}, "seconds: fill in both ends"),
        ({"kind": "variation", "upload": "SONG", "offset": 1.4}, "edit.file='song.wav' has 0.10 s"),
        ({"sampler": "dimm"}, "did you mean 'ddim'"),
    ],
)
def test_wrong_request_is_one_line(config, song, fields, message):
    fields = {name: song if value == "SONG" else value for name, value in fields.items()}
    request = run_request(demo_server.DemoServer(config), **fields)
    assert message in request.error and not request.clips and "\n" not in request.error


def test_wrong_upload_is_refused_by_name(config, song, tmp_path):
    config.demo.update(max_upload_mb=0.1, max_upload_seconds=1.0)
    server = demo_server.DemoServer(config)
    error_of = lambda path: run_request(server, kind="variation", upload=str(path)).error
    assert error_of(song) == "song.wav lasts 2 s, demo.max_upload_seconds allows 1"
    (tmp_path / "large.wav").write_bytes(bytes(200_000))
    assert error_of(tmp_path / "large.wav") == "large.wav has 0.2 MB, demo.max_upload_mb allows 0.1"
    (tmp_path / "page.html").write_text("<p>")
    assert error_of(tmp_path / "page.html").startswith("page.html is not one of .wav")
    (tmp_path / "no.wav").write_text("<p>")
    assert error_of(tmp_path / "no.wav").startswith("no.wav is not readable as sound")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "variation", "strength": 0.5},
        {"kind": "inpaint", "first": 0.1, "last": 0.2},
        {"kind": "continuation", "prefix": 0.1, "seconds": 0.5},
    ],
)
def test_upload_is_kept_beside_its_clips(config, song, fields):
    (clip, _) = run_request(demo_server.DemoServer(config), upload=song, **fields).clips
    kept = clip.parent / "upload.wav"
    assert kept.read_bytes() == pathlib.Path(song).read_bytes()
    assert f'"file": "{kept}"' in clip.with_suffix(".json").read_text()


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("edit", {"strength": 0.5}, "edit.strength is not used by --mode=demo"),
        ("sample", {"prompts": "x.jsonl"}, "sample.prompts is not used by --mode=demo"),
        ("demo", {"max_clips": 0}, "demo.max_clips=0 is not above 0"),
    ],
)
def test_fields_that_the_page_ignores_are_refused(config, section, fields, message):
    config[section].update(fields)
    with pytest.raises(ValueError, match=message):
        demo_server.DemoServer(config)
