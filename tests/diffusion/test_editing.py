"""Edits touch what they were asked to touch and nothing else."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.diffusion import editing, samplers, time_grids
from specdiff_jax.models import positions
from specdiff_jax.sampling import sample
from specdiff_jax.training import trained_model
from tests.helpers import synth
from tests.helpers.gaussian import MAKERS, MEAN, STD, exact_denoiser

SCHEDULE = MAKERS["cosine"]()


def drawn(denoise, shape, name="ddpm", steps=200, items=16):
    keys, times = samplers.item_keys(0, range(items)), time_grids.log_snr(SCHEDULE, steps)
    x_T = samplers.item_noise(keys, 0, shape)
    return np.asarray(samplers.SAMPLERS[name](denoise, x_T, times, SCHEDULE, keys))


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m"])
def test_pinned_keeps_the_known_and_leaves_the_rest_its_law(name):
    shape = (8, 40, 2)
    known = jax.random.normal(jax.random.key(5), (16, *shape)) * 3
    mask = np.zeros(shape[:2])
    mask[2:, 10:30] = 1
    denoise = editing.inpaint(exact_denoiser(SCHEDULE), SCHEDULE, known, mask)
    x_0 = drawn(denoise, shape, name)
    np.testing.assert_allclose(x_0[:, mask == 0], np.asarray(known)[:, mask == 0], atol=1e-4)
    free = x_0[:, mask == 1]
    assert free.mean() == pytest.approx(MEAN, abs=0.02)
    assert free.std() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("amount", [0.0, 0.2, 0.5, 1.0])
def test_an_arc_ends_at_its_points_keeps_their_length_and_has_no_side(amount):
    first, second = np.random.default_rng(0).normal(size=(2, 1, 8, 40, 1))
    second *= np.linalg.norm(first) / np.linalg.norm(second)
    point = editing.slerp(first, second, amount)
    assert np.linalg.norm(point) == pytest.approx(np.linalg.norm(first))
    np.testing.assert_allclose(editing.slerp(second, first, 1 - amount), point, atol=1e-12)
    angle = lambda x: np.arccos(np.vdot(x, first) / np.linalg.norm(x) / np.linalg.norm(first))
    assert angle(point) == pytest.approx(amount * angle(second), abs=1e-6)
    np.testing.assert_allclose(editing.slerp(first, first, amount), first)
    if amount in (0.0, 1.0):
        np.testing.assert_allclose(point, [first, second][int(amount)], atol=1e-12)


def test_pixelwise_denoiser_is_the_same_by_windows():
    """Where the model sees no neighbours, windows agree of themselves, whatever their number."""
    whole = exact_denoiser(SCHEDULE)
    x_t, t = jax.random.normal(jax.random.key(0), (2, 4, 37, 1)), jnp.array([0.3, 0.8])
    parts = editing.denoise_windows(whole, SCHEDULE, frames=16, hop=8)
    for expected, found in zip(whole(x_t, t), parts(x_t, t), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_windows_that_disagree_are_blended_without_a_step():
    """Each window says its own mean everywhere: 1/4 and 3/4; between them a straight climb."""
    says_mean = lambda x_t, t: (jnp.full_like(x_t, x_t.mean()), x_t)
    x_t = jnp.concatenate([jnp.zeros((1, 1, 12, 1)), jnp.ones((1, 1, 12, 1))], axis=2)
    denoise = editing.denoise_windows(says_mean, SCHEDULE, frames=16, hop=8)
    x_0 = np.asarray(denoise(x_t, jnp.array([0.5]))[0][0, 0, :, 0])
    np.testing.assert_allclose(x_0[[0, -1]], [0.25, 0.75])
    steps = np.diff(x_0)
    assert (steps >= -1e-6).all() and steps.max() < 0.5 / 6


@pytest.mark.parametrize(("length", "frames", "hop"), [(16, 16, 8), (17, 16, 8), (100, 16, 8)])
def test_windows_cover_every_frame_and_end_with_the_clip(length, frames, hop):
    starts = editing.window_starts(length, frames, hop)
    covered = np.zeros(length)
    for start in starts:
        covered[start : start + frames] += 1
    assert (covered > 0).all() and starts[-1] + frames == length
    assert (np.diff(starts) <= hop).all()


def test_a_stretched_table_is_itself_on_its_own_grid_and_straight_between():
    table = jnp.arange(12.0)[None, :, None] * jnp.ones((1, 1, 3))
    np.testing.assert_array_equal(positions.resize_table(table, (1, 12), (1, 12)), table)
    twice = np.asarray(positions.resize_table(table, (1, 12), (1, 24)))[0, :, 0]
    np.testing.assert_allclose(np.diff(twice)[1:-1], 0.5, atol=1e-5)


@pytest.fixture
def song(tmp_path):
    wave = synth.chords(110 * 2 ** np.linspace(0, 2, 6), 0.5, 8000)
    files.write(tmp_path / "song.wav", wave, 8000)
    return str(tmp_path / "song.wav")


@pytest.fixture
def trained(nano, trained_nano, monkeypatch):
    """`nano` with a checkpoint; clips of 0.248 s."""
    # The bar's callback would keep the program out of the compilation cache.
    monkeypatch.setattr(editing, "report_progress", lambda denoise, tick: denoise)
    nano.workdir = trained_nano
    nano.sample.update(num_samples=1, batch_size=1, nfe=4, sampler="ddpm")
    return nano


def sampled(config, stem):
    """The clip of that name, int16, and its sidecar."""
    sample.run(config)
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000006"
    sidecar = json.loads((folder / f"{stem}.json").read_text())
    return soundfile.read(folder / f"{stem}.wav", dtype="int16")[0], sidecar


def original(song, offset, count):
    return soundfile.read(song, dtype="int16")[0][round(offset * 8000) :][:count]


def test_inpainting_a_time_range_keeps_every_other_sample(trained, song):
    trained.edit.update(kind="inpaint", file=song, seconds=(0.1, 0.2), offset=0.4)
    made, sidecar = sampled(trained, "inpaint-song-000")
    changed = np.flatnonzero(made != original(song, 0.4, len(made))) / 8000
    assert 0.1 <= changed.min() < 0.11 and 0.19 < changed.max() <= 0.2
    assert sidecar["edit"]["seconds"] == [0.1, 0.2]


def test_inpainting_a_band_keeps_the_rest_of_the_spectrum(trained, song):
    trained.edit.update(kind="inpaint", file=song, hertz=(500.0, 1500.0))
    made, _ = sampled(trained, "inpaint-song-000")
    change = np.fft.rfft(made / 32768 - original(song, 0, len(made)) / 32768)
    frequency = np.fft.rfftfreq(len(made), 1 / 8000)
    inside = (frequency > 500) & (frequency < 1500)
    rounding = np.sqrt(len(made) / 12) / 32768  # of two int16 files, by frequency
    assert np.abs(change[~inside]).max() < 6 * rounding
    assert np.abs(change[inside]).max() > 100 * rounding


def test_a_continuation_begins_with_its_prefix_and_then_makes_sound(trained, song):
    trained.edit.update(kind="continuation", file=song, prefix_seconds=0.1)
    trained.sample.seconds = 0.5  # twice as long as a clip: windows and a pinned prefix together
    made, _ = sampled(trained, "continuation-song-000")
    assert len(made) == 4000
    kept = round((0.1 - 128 / 8000) * 8000)
    np.testing.assert_array_equal(made[:kept], original(song, 0, kept))
    assert np.abs(made[1000:]).max() > 0


def test_a_weak_variation_is_near_its_song_and_a_strong_one_is_not(trained, song):
    rep = trained_model.load(pathlib.Path(trained.workdir)).rep
    distance = {}
    for strength in (0.05, 0.9):
        trained.edit.update(kind="variation", file=song, strength=strength)
        made, _ = sampled(trained, "variation-song-000")
        x_0 = [
            rep.encode(jnp.asarray(w / 32768)[None]) for w in (made, original(song, 0, len(made)))
        ]
        distance[strength] = float(jnp.mean((x_0[0] - x_0[1]) ** 2))
    assert distance[0.05] < 0.3 * distance[0.9]


@pytest.mark.slow
def test_an_interpolation_is_at_its_ends_the_variation_of_either_file(trained, song):
    there = {"file": song, "strength": 0.6}
    for amount, offset in ((0.0, 0.3), (1.0, 1.2)):
        trained.edit.update(kind="variation", second_file=None, second_offset=None, weight=None)
        trained.edit.update(there | {"offset": offset})
        alone, _ = sampled(trained, "variation-song-000")
        trained.edit.update(
            kind="interpolation", second_file=song, second_offset=1.2, weight=amount
        )
        trained.edit.offset = 0.3
        between, _ = sampled(trained, "interpolation-song-000")
        assert np.abs(alone.astype(int) - between).max() <= 1  # of int16
        assert np.abs(alone).max() > 100


def test_any_length_and_both_ways_to_it(trained):
    clips = {}
    for extend in ("windows", "positions"):
        trained.sample.update(seconds=1.0, long_form=extend)
        clips[extend], _ = sampled(trained, "000")
        assert len(clips[extend]) == 8000 and np.abs(clips[extend][-500:]).max() > 0
    assert not np.array_equal(clips["windows"], clips["positions"])


def test_a_list_of_edits_makes_them_all(trained, song, tmp_path):
    lines = [
        {"kind": "variation", "file": song, "strength": 0.5},
        {"kind": "interpolation", "file": song, "other": song, "strength": 0.5, "amount": 0.3},
    ]
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    trained.edit.list = str(path)
    for number, kind in ((1, "variation"), (2, "interpolation")):
        made, _ = sampled(trained, f"{number:03d}-{kind}-song-000")
        assert np.abs(made).max() > 0


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
def test_a_wrong_line_is_named_and_a_list_of_nothing_is_no_list(
    trained, song, tmp_path, line, message
):
    good = {"kind": "variation", "file": song, "strength": 0.5}
    lines = [] if line is None else [json.dumps(good), "", json.dumps(good | line)]
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(lines))
    trained.edit.list = str(path)
    with pytest.raises(ValueError, match=f"edits.jsonl.*{message}") as caught:
        sample.run(trained)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"kind": "inpaint", "seconds": (0.1, 0.2)}, {"kind": "continuation"}]
)
def test_what_lies_behind_the_end_of_a_shorter_clip_is_refused(trained, song, fields):
    trained.edit.update({"file": song} | fields)
    if fields["kind"] == "continuation":
        trained.edit.prefix_seconds = 0.15
    trained.sample.seconds = 0.12
    with pytest.raises(ValueError, match="lie outside the clip of sample.seconds=0.12"):
        sample.run(trained)


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
        ({"kind": "variation", "file": "SONG", "strength": 0.5, "amount": 0.1}, "not used by"),
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
def test_wrong_edits_are_refused_by_name(trained, song, fields, message):
    trained.edit.update({k: song if v == "SONG" else v for k, v in fields.items()})
    with pytest.raises(ValueError, match=message) as caught:
        sample.run(trained)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_samples_of_every_sampler_and_grid_are_finite_sound(trained):
    for name in samplers.SAMPLERS:
        for grid in ("karras", "aligned"):
            trained.sample.update(sampler=name, time_grid=grid, nfe=3)
            made, _ = sampled(trained, "000")
            assert np.abs(made).max() > 0
