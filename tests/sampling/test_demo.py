"""Clips to order: the bits of --mode=sample, limits, stopping, one program for many orders."""

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

TOLD = {  # what an untouched page holds
    **{"kind": "new", "upload": None, "offset": 0.0, "strength": 0.6, "prefix": 0.1},
    **{"first": None, "last": None, "low": None, "high": None},
    **{"prompt": "", "negative": "", "labels": [], "algebra": "", "numbers": {}},
    **{"guidance": 2.0, "rescale": 0, "interval_low": 0, "interval_high": 1},
    **{"sampler": "ddpm", "grid": "log_snr", "steps": 6, "seed": 3, "seconds": None, "count": 2},
}


@pytest.fixture
def config(nano, trained_nano):
    nano.workdir = trained_nano
    return nano


@pytest.fixture
def song(tmp_path):
    files.write(tmp_path / "song.wav", synth.chords([220.0, 330.0, 440.0], 0.5, 8000), 8000)
    return str(tmp_path / "song.wav")


def made(place, **told):
    """The ended Job of an order."""
    job = place.start(TOLD | told)
    job.thread.join(120)
    assert not job.thread.is_alive()
    return job


@pytest.mark.slow
def test_an_order_is_what_sample_makes_bit_for_bit(config):
    place = demo_server.DemoServer(config)
    job = made(place)
    assert job.error is None and job.done == job.total == 6
    config.sample.update(sampler="ddpm", time_grid="log_snr", nfe=6, seed=3, num_samples=2)
    sample.run(config)
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000006"
    for path in job.clips:
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.with_suffix(".png").is_file() and path.with_suffix(".json").is_file()


@pytest.mark.slow
def test_orders_that_differ_in_data_alone_share_a_program(config, monkeypatch):
    traced, denoiser = [], build.denoiser
    monkeypatch.setattr(build, "denoiser", lambda *a: traced.append(a) or denoiser(*a))
    place = demo_server.DemoServer(config)
    clips = [made(place).clips, made(place, seed=4).clips, made(place, seed=3).clips]
    first, second, third = ([path.read_bytes() for path in paths] for paths in clips)
    assert len(traced) == 1 and first == third and first != second
    made(place, sampler="dpmpp_2m")
    assert len(traced) == 2


def test_where_a_tick_says_no_the_network_is_left_out():
    asked, ticks = [], []

    def denoise(x_t, t):
        jax.debug.callback(lambda: asked.append(1))
        return x_t + 1, x_t

    def tick():
        ticks.append(1)
        return len(ticks) < 4

    ticking = editing.report_progress(denoise, tick)
    step = lambda x, _: (ticking(x, jnp.zeros(1))[0], None)
    x = jax.jit(lambda x: jax.lax.scan(step, x, None, 10)[0])(jnp.zeros(1))
    jax.effects_barrier()
    assert float(x[0]) == len(asked) == 3 and len(ticks) == 10


@pytest.mark.slow
def test_a_stopped_order_ends_soon_and_leaves_the_place_free(config):
    config.demo.max_nfe = 10**6
    config.schedule.steps = None
    place = demo_server.DemoServer(config)
    job = place.start(TOLD | {"steps": 20_000, "sampler": "ddim"})
    while not job.done and job.thread.is_alive():
        time.sleep(0.01)
    done = job.done
    job.stopped.set()
    job.thread.join(30)
    assert not job.thread.is_alive() and job.error == "Stopped." and not job.clips
    assert 0 < done < 20_000
    assert made(place).error is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"count": 9}, "count=9 is not above 0 and at most demo.max_clips=8"),
        ({"steps": 2000}, "at most demo.max_nfe=1000"),
        ({"seconds": 61.0}, "at most demo.max_seconds=60"),
        ({"seconds": float("nan")}, "seconds=nan is not above 0"),
        ({"seed": -1}, "seed=-1 is not at least 0"),
        ({"prompt": "a flute"}, "trained without condition.text"),
        ({"algebra": "+flute"}, "trained without condition.labels"),
        ({"negative": "drums"}, "needs something that is asked for"),
        ({"kind": "variation"}, "variation needs a sound file; upload one"),
        ({"kind": "inpaint", "upload": "SONG"}, "needs edit.seconds"),
        ({"kind": "inpaint", "upload": "SONG", "first": 0.1}, "seconds: fill in both ends"),
        ({"kind": "variation", "upload": "SONG", "offset": 1.4}, "edit.file='song.wav' has 0.10 s"),
        ({"sampler": "dimm"}, "did you mean 'ddim'"),
    ],
)
def test_what_cannot_be_made_is_a_line(config, song, told, message):
    told = {name: song if value == "SONG" else value for name, value in told.items()}
    job = made(demo_server.DemoServer(config), **told)
    assert message in job.error and not job.clips and "\n" not in job.error


def test_uploads_are_refused_by_name(config, song, tmp_path):
    config.demo.update(max_upload_mb=0.1, max_upload_seconds=1.0)
    place = demo_server.DemoServer(config)
    tell = lambda path: made(place, kind="variation", upload=str(path)).error
    assert tell(song) == "song.wav lasts 2 s, demo.max_upload_seconds allows 1"
    (tmp_path / "large.wav").write_bytes(bytes(200_000))
    assert tell(tmp_path / "large.wav") == "large.wav has 0.2 MB, demo.max_upload_mb allows 0.1"
    (tmp_path / "page.html").write_text("<p>")
    assert tell(tmp_path / "page.html").startswith("page.html is not one of .wav")
    (tmp_path / "no.wav").write_text("<p>")
    assert tell(tmp_path / "no.wav").startswith("no.wav is not readable as sound")


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        {"kind": "variation", "strength": 0.5},
        {"kind": "inpaint", "first": 0.1, "last": 0.2},
        {"kind": "continuation", "prefix": 0.1, "seconds": 0.5},
    ],
)
def test_an_upload_is_changed_and_kept_beside_its_clips(config, song, told):
    (clip, _) = made(demo_server.DemoServer(config), upload=song, **told).clips
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
def test_fields_that_the_page_would_ignore_are_refused(config, section, fields, message):
    config[section].update(fields)
    with pytest.raises(ValueError, match=message):
        demo_server.DemoServer(config)
