"""An evaluation's table says what it must: controls in their order, copies and silence flagged."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from specdiff_jax.audio import files
from specdiff_jax.data import prepare
from specdiff_jax.evaluation import controls, evaluate, sweep
from specdiff_jax.training import train
from tests.helpers import synth
from tests.helpers.nano import RATE, small_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on 24 artists' songs of eight seconds, clips of two."""
    folder = tmp_path_factory.mktemp("evaluated")
    for artist in range(24):
        rng = np.random.default_rng(artist)
        wave = synth.chords(220 * 2 ** (2 * rng.random(16)), 0.5, RATE)
        files.write(folder / "music" / f"artist <{artist}>" / "song.wav", wave, RATE)
    config = small_config(folder / "music", folder / "cache", folder)
    config.data.update(test_fraction=0.35, valid_fraction=0.25)
    config.representation.update(frames=256)
    config.train.update(num_steps=120, eval_every=60, checkpoint_every=60, steps_per_dispatch=10)
    config.optimizer.update(learning_rate=5e-3, warmup_steps=10)
    prepare.run(config)
    train.run(config)
    return config


@pytest.fixture
def config(workdir):
    made = workdir.copy_and_resolve_references()
    made.sample.update(batch_size=8, sampler="dpmpp_2m", time_grid="log_snr", nfe=6)
    made.evaluate.update(clips=24, embedders=("logmel",), crops=16, num_reconstructions=4)
    return made


@pytest.fixture(scope="module")
def found(workdir):
    config = workdir.copy_and_resolve_references()
    config.sample.update(batch_size=8, sampler="dpmpp_2m", time_grid="log_snr", nfe=6)
    config.evaluate.update(
        clips=24, embedders=("logmel",), crops=16, num_reconstructions=4, listening_clips=2
    )
    evaluate.run(config)
    folder = pathlib.Path(config.workdir) / "evaluation" / "step_00000120"
    return folder, json.loads((folder / "evaluation.json").read_text())


def row_of(found, name):
    return next(row for row in found[1]["sets"] if row["name"] == name)


def test_silence_and_copies_are_flagged_and_real_music_is_not(found):
    assert any("silent" in flag for flag in row_of(found, "silence")["flags"])
    copied = row_of(found, "copies of training music")
    assert any("copies" in flag for flag in copied["flags"]) and copied["copies"]["value"] > 0.9
    assert row_of(found, "real music, other artists")["flags"] == []


def test_no_artist_is_on_both_sides_and_clips_of_one_hang_together(workdir):
    songs = prepare.load_split(workdir, "test", 2 * RATE)
    reference, other = controls.split_by_artist(songs, 2 * RATE, 64)
    artists = [songs.entries[k]["artist"] for k in range(len(songs.entries))]
    assert len(set(reference.groups)) + len(set(other.groups)) == len(set(artists))
    loud = lambda clips: {round(float(np.abs(wave).sum()), 3) for wave in clips.waves}
    assert not loud(reference) & loud(other)
    alone = dataclasses.replace(songs, entries=tuple(e | {"artist": "one"} for e in songs.entries))
    with pytest.raises(ValueError, match="by one artist"):
        controls.split_by_artist(alone, 2 * RATE, 64)


def test_what_is_no_music_is_farther_than_what_is(found):
    far = lambda name: row_of(found, name)["scores"]["logmel"]["kad"]["value"]
    real = far("real music, other artists"), far("real music, encoded and decoded")
    for name in ("silence", "white noise", "noise of the mean spectrum"):
        assert far(name) > 3 * max(real)


def test_both_ways_to_the_error_of_eps_agree(found):
    for row in found[1]["levels"]:
        assert row["eps_error"] == pytest.approx(row["eps_error_by_identity"], rel=0.01)
        assert row["x0_error_low"] <= row["x0_error"] <= row["x0_error_high"]


def test_rebuilding_from_little_noise_is_nearer_than_from_much(found):
    for answer in ("at one glance", "by the sampler"):
        rows = [row for row in found[1]["rebuilding"] if row["answer"] == answer]
        assert rows[0]["x0_error"] < rows[-1]["x0_error"] and rows[0]["ssim"] > rows[-1]["ssim"]


def test_the_page_escapes_names_and_holds_every_set(found):
    page = (found[0] / "evaluation.html").read_text()
    for row in found[1]["sets"]:
        assert row["name"] in page
    assert "artist &lt;" in page and "artist <" not in page
    assert (found[0] / "listening.html").stat().st_size > 100_000


def test_a_second_evaluation_is_the_same_to_the_bit(found, config):
    config.evaluate.listening_clips = 2
    evaluate.run(config)
    assert json.loads((found[0] / "evaluation.json").read_text()) == found[1]


def test_a_folder_of_sounds_is_evaluated_like_a_checkpoint(found, config, tmp_path):
    folder = tmp_path / "made"
    for path in (found[0] / "clips" / "generated").glob("*.wav"):
        files.write(folder / path.name, files_wave(path), RATE)
    config.evaluate.folder = str(folder)
    evaluate.run(config)
    again = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    ours, theirs = (
        next(row for row in one["sets"] if row["kind"] == "generated") for one in (found[1], again)
    )
    assert theirs["scores"]["logmel"]["kad"]["value"] == pytest.approx(
        ours["scores"]["logmel"]["kad"]["value"], abs=2e-3
    )
    assert "levels" not in again


def files_wave(path):
    return np.concatenate(list(files.Sound(str(path))), axis=1)[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000.wav", b"no sound", "000.wav: not readable"),
        ("lost.json", b"{}", "lost.json: has no sound beside it"),
    ],
)
def test_a_file_that_is_missing_or_damaged_ends_it(config, tmp_path, name, content, message):
    rng = np.random.default_rng(0)
    for index in range(1, 5):
        files.write(tmp_path / f"{index:03d}.wav", 0.1 * rng.standard_normal(3 * RATE), RATE)
    (tmp_path / name).write_bytes(content)
    config.evaluate.folder = str(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate.run(config)
    config.evaluate.allow_missing = True
    evaluate.run(config)
    left = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["about"]["missing"]
    assert left == [str(tmp_path / name)]


def test_a_sweep_chooses_on_valid_and_reports_test_once(config):
    config.sweep.update(samplers=("ddim/uniform",), nfe=(1, 6), guidance_scale=(1.0,))
    sweep.run(config)
    made = json.loads((pathlib.Path(config.workdir) / "evaluation" / "sweep.json").read_text())
    best = min(made["valid"], key=lambda row: row["kad"]["value"])
    assert made["chosen"]["steps"] == best["steps"] and made["test"]["steps"] == best["steps"]
    assert made["test"]["kad"]["value"] != best["kad"]["value"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("split", "train", "evaluate.split='train' is not one of"),
        ("asked_by", "captions", "not all of what is evaluated hears captions"),
        ("embedders", ("musicn",), "embedder 'musicn' is unknown: 'musicnn'"),
        ("against", ("nowhere",), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(config, field, value, message):
    config.evaluate[field] = value
    with pytest.raises(ValueError, match=message):
        evaluate.run(config)
