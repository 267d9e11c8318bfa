"""An evaluation orders its controls, and flags memorized and silent clips."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from specdiff_jax.audio import files
from specdiff_jax.data import prepare
from specdiff_jax.evaluation import controls, denoising, evaluate, sweep
from specdiff_jax.training import train
from tests.helpers import synth
from tests.helpers.nano import RATE, small_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Return the config of a run on 24 artists' songs of eight seconds, clips of two."""
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


def evaluated_config(workdir):
    """Return a config that evaluates 24 clips of the run."""
    config = workdir.copy_and_resolve_references()
    config.sample.update(batch_size=8, sampler="dpmpp_2m", time_grid="log_snr", nfe=6)
    config.evaluate.update(clips=24, embedders=("logmel",), crops=16, num_reconstructions=4)
    return config


@pytest.fixture
def config(workdir):
    return evaluated_config(workdir)


@pytest.fixture(scope="module")
def folder(workdir):
    """Return the folder of one evaluation."""
    config = evaluated_config(workdir)
    config.evaluate.listening_clips = 2
    evaluate.run(config)
    return pathlib.Path(config.workdir) / "evaluation" / "step_00000120"


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "evaluation.json").read_text())


def row_of(results, name):
    return next(row for row in results["sets"] if row["name"] == name)


def test_flags_mark_silence_and_training_music_but_not_held_out_music(results):
    assert any("silent" in flag for flag in row_of(results, "silence")["flags"])
    training = row_of(results, controls.TRAINING)
    assert any("memorized" in flag for flag in training["flags"])
    assert training["memorized"]["value"] > 0.9
    assert row_of(results, controls.OTHER_ARTISTS)["flags"] == []


def test_split_by_artist_shares_no_artist_and_groups_clips_by_artist(workdir):
    songs = prepare.load_split(workdir, "test", 2 * RATE)
    reference, other = controls.split_by_artist(songs, 2 * RATE, 64)
    artists = [songs.entries[k]["artist"] for k in range(len(songs.entries))]
    assert len(set(reference.groups)) + len(set(other.groups)) == len(set(artists))
    loudness = lambda clips: {round(float(np.abs(wave).sum()), 3) for wave in clips.waves}
    assert not loudness(reference) & loudness(other)
    one = tuple(entry | {"artist": "one"} for entry in songs.entries)
    with pytest.raises(ValueError, match="by one artist"):
        controls.split_by_artist(dataclasses.replace(songs, entries=one), 2 * RATE, 64)


def test_kad_of_noise_exceeds_kad_of_music(results):
    kad = lambda name: row_of(results, name)["scores"]["logmel"]["kad"]["value"]
    real = kad(controls.OTHER_ARTISTS), kad(controls.ROUND_TRIP)
    for name in ("silence", "white noise", "noise of the mean spectrum"):
        assert kad(name) > 3 * max(real)


def test_eps_error_agrees_with_its_identity(results):
    for row in results["levels"]:
        assert row["eps_error"] == pytest.approx(row["eps_error_by_identity"], rel=0.01)
        assert row["x0_error_low"] <= row["x0_error"] <= row["x0_error_high"]


def test_reconstruction_is_closer_from_less_noise(results):
    for method in denoising.METHODS[1:]:
        rows = [row for row in results["reconstruction"] if row["method"] == method]
        assert rows[0]["x0_error"] < rows[-1]["x0_error"] and rows[0]["ssim"] > rows[-1]["ssim"]


def test_page_escapes_names_and_shows_every_set(folder, results):
    page = (folder / "evaluation.html").read_text()
    for row in results["sets"]:
        assert row["name"] in page
    assert "artist &lt;" in page and "artist <" not in page
    assert (folder / "listening.html").stat().st_size > 100_000


def test_evaluation_is_deterministic_bit_for_bit(folder, results, config):
    config.evaluate.listening_clips = 2
    evaluate.run(config)
    assert json.loads((folder / "evaluation.json").read_text()) == results


def test_folder_of_sounds_scores_like_its_checkpoint(folder, results, config, tmp_path):
    sounds = tmp_path / "sounds"
    for path in (folder / "clips" / "generated").glob("*.wav"):
        files.write(sounds / path.name, read_mono(path), RATE)
    config.evaluate.folder = str(sounds)
    evaluate.run(config)
    again = json.loads((sounds / "evaluation" / "evaluation.json").read_text())
    ours, theirs = (
        next(row for row in each["sets"] if row["kind"] == "generated") for each in (results, again)
    )
    assert theirs["scores"]["logmel"]["kad"]["value"] == pytest.approx(
        ours["scores"]["logmel"]["kad"]["value"], abs=2e-3
    )
    assert "levels" not in again


def read_mono(path):
    return np.concatenate(list(files.Sound(str(path))), axis=1)[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000.wav", b"no sound", "000.wav: not readable"),
        ("lost.json", b"{}", "lost.json: has no sound beside it"),
    ],
)
def test_missing_or_damaged_file_is_refused_unless_allowed(
    config, tmp_path, name, content, message
):
    rng = np.random.default_rng(0)
    for index in range(1, 5):
        files.write(tmp_path / f"{index:03d}.wav", 0.1 * rng.standard_normal(3 * RATE), RATE)
    (tmp_path / name).write_bytes(content)
    config.evaluate.folder = str(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate.run(config)
    config.evaluate.allow_missing = True
    evaluate.run(config)
    results = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert results["about"]["missing"] == [str(tmp_path / name)]


def test_sweep_chooses_on_valid_and_reports_test_once(config):
    config.sweep.update(samplers=("ddim/uniform",), nfe=(1, 6), guidance_scale=(1.0,))
    sweep.run(config)
    results = json.loads((pathlib.Path(config.workdir) / "evaluation" / "sweep.json").read_text())
    best = min(results["valid"], key=lambda row: row["kad"]["value"])
    assert results["chosen"]["nfe"] == best["nfe"] and results["test"]["nfe"] == best["nfe"]
    assert results["test"]["kad"]["value"] != best["kad"]["value"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("split", "train", "evaluate.split='train' is not one of"),
        ("conditioning", "captions", "not all models were trained with it"),
        ("embedders", ("musicn",), "embedder 'musicn' is unknown: 'musicnn'"),
        ("compare_to", ("nowhere",), "nowhere"),
    ],
)
def test_wrong_field_is_refused(config, field, value, message):
    config.evaluate[field] = value
    with pytest.raises(ValueError, match=message):
        evaluate.run(config)
