"""Crops are a pure function of (seed, step); both feeds give the same samples."""

import jax
import numpy as np
import pytest

from specdiff_jax import data, prepare

SAMPLES = 100


@pytest.fixture
def songs():
    lengths = np.array([100, 250, 1000, 333, 480])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    pcm = np.arange(lengths.sum(), dtype=np.int16)
    return data.Songs(pcm, starts, lengths, (), 8000)


def offsets(songs, seed=0, steps=range(40), size=4, **more):
    rows = [data.crop_offsets(songs, SAMPLES, seed, step, size, **more) for step in steps]
    return np.concatenate(rows)


def test_crops_lie_inside_one_song(songs):
    found = offsets(songs)
    song = np.searchsorted(songs.starts, found, side="right") - 1
    assert (found + SAMPLES <= songs.starts[song] + songs.lengths[song]).all()


def test_every_epoch_visits_every_song_once(songs):
    song = np.searchsorted(songs.starts, offsets(songs), side="right") - 1
    for epoch in song.reshape(-1, 5):
        assert sorted(epoch) == [0, 1, 2, 3, 4]


def test_crops_are_uniform_over_a_song(songs):
    found = offsets(songs, steps=range(3000))
    inside = found[(found >= 350) & (found < 1350)] - 350  # the song of 1000 samples
    assert inside.min() == 0 and inside.max() == 900
    assert np.histogram(inside, 9, (0, 901))[0].std() < 0.12 * len(inside) / 9


def test_crops_depend_on_seed_and_step_alone(songs):
    np.testing.assert_array_equal(offsets(songs, steps=range(20, 40)), offsets(songs)[80:])
    assert (offsets(songs, seed=1) != offsets(songs)).any()


@pytest.mark.parametrize("of", [2, 4])
def test_processes_share_the_same_batch(songs, of):
    for step in range(10):
        whole = offsets(songs, steps=[step])
        parts = [offsets(songs, steps=[step], process=p, of=of) for p in range(of)]
        assert sorted(np.concatenate(parts)) == sorted(whole)


def test_device_and_host_feeds_give_the_same_samples(songs):
    dispatches = [(0, 3), (3, 3), (6, 1)]
    arguments = (songs, SAMPLES, 0, 4, dispatches)
    for rows, crops in zip(
        data.offset_batches(*arguments), data.host_batches(*arguments), strict=True
    ):
        cut = [
            np.asarray(data.slice_crops(jax.numpy.asarray(songs.pcm), row, SAMPLES)) for row in rows
        ]
        np.testing.assert_array_equal(np.stack(cut), crops)


def test_the_host_feed_hands_over_its_error(songs):
    broken = data.Songs(songs.pcm[:50], songs.starts, songs.lengths, (), 8000)
    with pytest.raises(ValueError):
        list(data.host_batches(broken, SAMPLES, 0, 4, [(0, 3)]))


def test_tiles_do_not_overlap_and_spread_over_all_songs(songs):
    found = data.tiled_offsets(songs, SAMPLES, 1000)
    assert len(found) == 1 + 2 + 10 + 3 + 4 and (np.diff(np.sort(found)) >= SAMPLES).all()
    few = np.searchsorted(songs.starts, data.tiled_offsets(songs, SAMPLES, 5), side="right")
    assert set(few) >= {1, 3, 5}


def test_splits_never_divide_an_artist_and_new_songs_move_none():
    entries = [{"artist": f"artist {i % 40}"} for i in range(200)]
    prepare.assign_splits(entries, 0.1, 0.1)
    split_of = {}
    for entry in entries:
        assert split_of.setdefault(entry["artist"], entry["split"]) == entry["split"]
    assert set(split_of.values()) == {"train", "valid", "test"}
    more = [*({"artist": f"new {i}"} for i in range(50)), *({"artist": a} for a in split_of)]
    prepare.assign_splits(more, 0.1, 0.1)
    assert all(entry["split"] == split_of.get(entry["artist"], entry["split"]) for entry in more)


def test_two_artists_are_enough_and_one_is_not():
    entries = [{"artist": "a"}, {"artist": "b"}]
    prepare.assign_splits(entries, 0.1, 0.1)
    assert {entry["split"] for entry in entries} == {"train", "valid"}
    with pytest.raises(ValueError, match="one artist"):
        prepare.assign_splits([{"artist": "a"}], 0.1, 0.1)
