"""Edits of sound files change what they are to change and nothing else."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.diffusion import editing, samplers
from specdiff_jax.sampling import sample
from specdiff_jax.training import trained_model
from tests.helpers import synth


@pytest.fixture
def song(tmp_path):
    wave = synth.chords(110 * 2 ** np.linspace(0, 2, 6), 0.5, 8000)
    files.write(tmp_path / "song.wav", wave, 8000)
    return str(tmp_path / "song.wav")


@pytest.fixture
def config(nano, trained_nano, monkeypatch):
    """`nano` with a checkpoint; clips of 0.248 s."""
    # The bar's callback would keep the program out of the compilation cache.
    monkeypatch.setattr(editing, "report_progress", lambda denoise, tick: denoise)
    nano.workdir = trained_nano
    nano.sample.update(num_samples=1, batch_size=1, nfe=4, sampler="ddpm")
    return nano


def sample_clip(config, stem):
    """Return the clip of that name, int16, and its sidecar."""
    sample.run(config)
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000006"
    sidecar = json.loads((folder / f"{stem}.json").read_text())
    return soundfile.read(folder / f"{stem}.wav", dtype="int16")[0], sidecar


def original(song, offset, count):
    return soundfile.read(song, dtype="int16")[0][round(offset * 8000) :][:count]


def test_inpaint_of_a_time_range_keeps_every_other_sample(config, song):
    config.edit.update(kind="inpaint", file=song, seconds=(0.1, 0.2), offset=0.4)
    clip, sidecar = sample_clip(config, "inpaint-song-000")
    changed = np.flatnonzero(clip != original(song, 0.4, len(clip))) / 8000
    assert 0.1 <= changed.min() < 0.11 and 0.19 < changed.max() <= 0.2
    assert sidecar["edit"]["seconds"] == [0.1, 0.2]


def test_inpaint_of_a_band_keeps_the_rest_of_the_spectrum(config, song):
    config.edit.update(kind="inpaint", file=song, hertz=(500.0, 1500.0))
    clip, _ = sample_clip(config, "inpaint-song-000")
    change = np.fft.rfft(clip / 32768 - original(song, 0, len(clip)) / 32768)
    frequency = np.fft.rfftfreq(len(clip), 1 / 8000)
    inside = (frequency > 500) & (frequency < 1500)
    rounding = np.sqrt(len(clip) / 12) / 32768  # of two int16 files, by frequency
    assert np.abs(change[~inside]).max() < 6 * rounding
    assert np.abs(change[inside]).max() > 100 * rounding


def test_continuation_begins_with_its_prefix_and_goes_on_with_sound(config, song):
    config.edit.update(kind="continuation", file=song, prefix_seconds=0.1)
    config.sample.seconds = 0.5  # twice as long as a clip: windows and a known prefix together
    clip, _ = sample_clip(config, "continuation-song-000")
    assert len(clip) == 4000
    kept = round((0.1 - 128 / 8000) * 8000)
    np.testing.assert_array_equal(clip[:kept], original(song, 0, kept))
    assert np.abs(clip[1000:]).max() > 0


def test_variation_is_nearer_to_its_song_the_weaker_it_is(config, song):
    rep = trained_model.load(pathlib.Path(config.workdir)).rep
    distance = {}
    for strength in (0.05, 0.9):
        config.edit.update(kind="variation", file=song, strength=strength)
        clip, _ = sample_clip(config, "variation-song-000")
        x_0 = [
            rep.encode(jnp.asarray(w / 32768)[None]) for w in (clip, original(song, 0, len(clip)))
        ]
        distance[strength] = float(jnp.mean((x_0[0] - x_0[1]) ** 2))
    assert distance[0.05] < 0.3 * distance[0.9]


@pytest.mark.slow
def test_interpolation_at_its_ends_is_the_variation_of_either_file(config, song):
    fields = {"file": song, "strength": 0.6}
    for amount, offset in ((0.0, 0.3), (1.0, 1.2)):
        config.edit.update(kind="variation", second_file=None, second_offset=None, weight=None)
        config.edit.update(fields | {"offset": offset})
        alone, _ = sample_clip(config, "variation-song-000")
        config.edit.update(kind="interpolation", second_file=song, second_offset=1.2, weight=amount)
        config.edit.offset = 0.3
        between, _ = sample_clip(config, "interpolation-song-000")
        assert np.abs(alone.astype(int) - between).max() <= 1  # of int16
        assert np.abs(alone).max() > 100


def test_long_form_gives_any_length_in_both_ways(config):
    clips = {}
    for long_form in ("windows", "positions"):
        config.sample.update(seconds=1.0, long_form=long_form)
        clips[long_form], _ = sample_clip(config, "000")
        assert len(clips[long_form]) == 8000 and np.abs(clips[long_form][-500:]).max() > 0
    assert not np.array_equal(clips["windows"], clips["positions"])


def test_edit_list_samples_all_its_edits(config, song, tmp_path):
    lines = [
        {"kind": "variation", "file": song, "strength": 0.5},
        {
            "kind": "interpolation",
            "file": song,
            "second_file": song,
            "strength": 0.5,
            "weight": 0.3,
        },
    ]
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    config.edit.list = str(path)
    for number, kind in ((1, "variation"), (2, "interpolation")):
        clip, _ = sample_clip(config, f"{number:03d}-{kind}-song-000")
        assert np.abs(clip).max() > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"file": "/nowhere.wav"}, r"line 3: edit.file='/nowhere.wav': there is no such"),
        ({"strength": "0.5"}, r"line 3: edit.strength='0.5' is not a number"),
        ({"kind": ["variation"]}, r"line 3: edit.kind=\['variation'\] is not a text"),
        ({"kind": "inpaint", "seconds": 1}, r"line 3: edit.seconds=1 is not two numbers"),
        ({"offset": -1.0}, r"line 3: edit.offset=-1.0 is not at least 0"),
        ({"list": "other.jsonl"}, r"line 3: is not a JSON object of one edit"),
        (None, "holds no edit"),
    ],
)
def test_edit_list_with_a_wrong_line_or_without_lines_is_refused(
    config, song, tmp_path, line, message
):
    good = {"kind": "variation", "file": song, "strength": 0.5}
    lines = [] if line is None else [json.dumps(good), "", json.dumps(good | line)]
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(lines))
    config.edit.list = str(path)
    with pytest.raises(ValueError, match=f"edits.jsonl.*{message}") as caught:
        sample.run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"kind": "inpaint", "seconds": (0.1, 0.2)}, {"kind": "continuation"}]
)
def test_edit_beyond_the_end_of_a_shorter_clip_is_refused(config, song, fields):
    config.edit.update({"file": song} | fields)
    if fields["kind"] == "continuation":
        config.edit.prefix_seconds = 0.15
    config.sample.seconds = 0.12
    with pytest.raises(ValueError, match="lie outside the clip of sample.seconds=0.12"):
        sample.run(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "inpaint"}, "edit.file must be set for edit.kind='inpaint'"),
        ({"kind": "inpant", "file": "x"}, "did you mean 'inpaint'"),
        ({"kind": "inpaint", "file": "SONG"}, "needs edit.seconds"),
        (
            {"kind": "inpaint", "file": "SONG", "seconds": (0.1, 9.0)},
            "not a range within 0 to 0.25",
        ),
        ({"kind": "inpaint", "file": "SONG", "seconds": (0.2, 0.1)}, "not a range"),
        ({"kind": "inpaint", "file": "SONG", "hertz": (100.0, 9e3)}, "within 0 to 4000.00"),
        ({"kind": "variation", "file": "SONG"}, "edit.strength must be set"),
        ({"kind": "variation", "file": "SONG", "strength": 1.5}, "edit.strength=1.5"),
        ({"kind": "variation", "file": "SONG", "strength": 0.5, "weight": 0.1}, "not used by"),
        ({"kind": "variation", "file": "SONG", "strength": 0.5, "offset": 2.9}, "fewer|a clip"),
        ({"kind": "variation", "file": "nowhere.wav", "strength": 0.5}, "there is no such file"),
        ({"kind": "continuation", "file": "SONG", "prefix_seconds": 0.0}, "not a range"),
        ({"kind": "continuation", "file": "SONG", "prefix_seconds": 0.02}, "must be above 0.032 s"),
        ({"kind": "inpaint", "file": "SONG", "seconds": (0.1, 0.11)}, "too short; at least 0.032"),
        ({"kind": "inpaint", "file": "SONG", "hertz": (500.0, 510.0)}, "too narrow"),
        ({"strength": 0.5}, "edit.strength=0.5 is not used without edit.kind"),
        ({"list": "/nowhere.jsonl"}, "edit.list='/nowhere.jsonl': there is no such file"),
        ({"kind": "variation", "file": "SONG", "strength": 0.5, "offset": -1.0}, "edit.offset=-1"),
    ],
)
def test_wrong_edit_is_refused_by_name(config, song, fields, message):
    config.edit.update({k: song if v == "SONG" else v for k, v in fields.items()})
    with pytest.raises(ValueError, match=message) as caught:
        sample.run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_sampler_and_grid_gives_finite_sound(config):
    for name in samplers.SAMPLERS:
        for grid in ("karras", "aligned"):
            config.sample.update(sampler=name, time_grid=grid, nfe=3)
            clip, _ = sample_clip(config, "000")
            assert np.abs(clip).max() > 0
