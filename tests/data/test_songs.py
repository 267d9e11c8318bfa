"""Crops are a pure function of (seed, step); both feeds give the same samples."""

import dataclasses

import jax
import numpy as np
import pytest

from specdiff_jax.data import cache, feeding, prepare
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data.songs import Songs, filter_songs, parse_labels

SAMPLES = 100
LENGTHS = [100, 250, 1000, 333, 480]
CROPS = 1 + 2 + 10 + 3 + 4


@pytest.fixture
def songs():
    """Five songs in two shards, in another order than the split's, sample k of value k."""
    pcm = np.split(np.arange(sum(LENGTHS), dtype=np.int16)[:, None], np.cumsum(LENGTHS)[:-1])
    shards = (np.concatenate([pcm[3], pcm[0]]), np.concatenate([pcm[4], pcm[2], pcm[1]]))
    places = np.array([(0, 333), (1, 1480), (1, 480), (0, 0), (1, 0)])
    return Songs(shards, places, np.array(LENGTHS), (), 8000)


def offsets(songs, seed=0, steps=range(40), size=4, **more):
    rows = [crops_module.draw_offsets(songs, SAMPLES, seed, step, size, **more) for step in steps]
    return np.concatenate(rows)


def test_songs_read_equals_read_all_across_shards(songs):
    np.testing.assert_array_equal(songs.read_all()[:, 0], np.arange(sum(LENGTHS)))
    for offset in (0, 50, 100, 1349 - SAMPLES, 1350, sum(LENGTHS) - SAMPLES):
        crop = songs.read(offset, SAMPLES)[:, 0]
        np.testing.assert_array_equal(crop, np.arange(offset, offset + len(crop)))


def test_crops_lie_inside_one_song(songs):
    drawn = offsets(songs)
    song = np.searchsorted(songs.starts, drawn, side="right") - 1
    assert (drawn + SAMPLES <= songs.starts[song] + songs.lengths[song]).all()


def test_epoch_is_a_permutation_of_all_crops(songs):
    """No sample twice, and of every song as much as whole crops can hold."""
    drawn = offsets(songs, steps=range(5 * CROPS), size=4)
    epochs = drawn.reshape(-1, CROPS)
    for epoch in epochs:
        assert (np.diff(np.sort(epoch)) >= SAMPLES).all()
        song = np.searchsorted(songs.starts, epoch, side="right") - 1
        np.testing.assert_array_equal(np.bincount(song), [1, 2, 10, 3, 4])
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_crops_cover_every_place_of_a_song(songs):
    drawn = offsets(songs, steps=range(6000))
    inside = drawn[(drawn >= 1350) & (drawn < 1683)] - 1350  # the song of 333 samples
    assert inside.min() == 0 and inside.max() == 233
    starts = np.histogram(inside % SAMPLES, 34, (0, 34))[0]  # tiles begin at one of 34 places
    assert starts.std() < 0.25 * starts.mean()  # 0.17 for a uniform distribution


def test_crops_depend_on_seed_and_step_alone(songs):
    np.testing.assert_array_equal(offsets(songs, steps=range(20, 40)), offsets(songs)[80:])
    assert (offsets(songs, seed=1) != offsets(songs)).any()


@pytest.mark.parametrize("of", [2, 4])
def test_processes_share_one_batch(songs, of):
    for step in range(10):
        whole = offsets(songs, steps=[step])
        own = len(whole) // of
        rows = [slice(p * own, (p + 1) * own) for p in range(of)]
        parts = [offsets(songs, steps=[step], rows=part) for part in rows]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("channels", [1, 2])
def test_device_and_host_placement_give_the_same_samples(songs, channels):
    if channels == 2:
        stereo = tuple(np.concatenate([shard, -shard], axis=1) for shard in songs.shards)
        songs = dataclasses.replace(songs, shards=stereo)
    dispatches = [(0, 3), (3, 3), (6, 1)]
    arguments = (songs, SAMPLES, 0, 4, dispatches)
    pcm = jax.numpy.asarray(songs.read_all())
    for places, read in zip(
        feeding.iterate_offsets(*arguments), feeding.iterate_crops(*arguments), strict=True
    ):
        cut = [np.asarray(feeding.slice_crops(pcm, row, SAMPLES)) for row in places.sound]
        crops = read.sound
        np.testing.assert_array_equal(np.stack(cut), crops)
        np.testing.assert_array_equal(places.song, read.song)
        wave = crops_module.pcm_to_wave(crops).reshape(*crops.shape[:2], channels, SAMPLES)
        np.testing.assert_array_equal(wave.swapaxes(-1, -2), crops / 32768.0)


def test_iterate_crops_raises_the_error_of_its_thread(songs):
    broken = dataclasses.replace(songs, shards=tuple(shard[:50] for shard in songs.shards))
    with pytest.raises(ValueError):
        list(feeding.iterate_crops(broken, SAMPLES, 0, 4, [(0, 3)]))


def test_tile_offsets_do_not_overlap_and_cover_all_songs(songs):
    tiles = crops_module.tile_offsets(songs, SAMPLES, 1000)
    assert len(tiles) == CROPS and (np.diff(np.sort(tiles)) >= SAMPLES).all()
    few = np.searchsorted(songs.starts, crops_module.tile_offsets(songs, SAMPLES, 5), side="right")
    assert set(few) >= {1, 3, 5}


def labelled(songs):
    names = [["a:flute", "slow"], ["a:organ"], ["a:flute", "a:organ"], ["slow"], []]
    entries = tuple({"labels": labels, "number": k} for k, labels in enumerate(names))
    return dataclasses.replace(songs, entries=entries)


def selection(songs, include=None, exclude=None, max_songs=None):
    """Return arguments of `filter_songs` from labels with commas between them."""
    include, exclude = (parse_labels(songs.entries, text) for text in (include, exclude))
    return {"include": include, "exclude": exclude, "max_songs": max_songs}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"include": "flute"}, [0, 2]),
        ({"exclude": "a:flute, slow"}, [1, 4]),
        ({"include": "organ, slow", "exclude": "flute"}, [1, 3]),
        ({"max_songs": 2}, [0, 4]),
        ({"include": "slow", "max_songs": 1}, [0]),
    ],
)
def test_filter_songs_selects_by_labels_and_keeps_the_sound(songs, fields, left):
    every = labelled(songs)
    kept = filter_songs(every, **selection(every, **fields))
    assert [entry["number"] for entry in kept.entries] == left
    for place, number in enumerate(left):
        pcm = kept.read(kept.starts[place], kept.lengths[place])
        np.testing.assert_array_equal(pcm, every.read(every.starts[number], LENGTHS[number]))


def test_filter_songs_rejects_unknown_labels_and_empty_results(songs):
    every = labelled(songs)
    with pytest.raises(ValueError, match="label 'flue' .* did you mean a:flute"):
        parse_labels(every.entries, "flue")
    with pytest.raises(ValueError, match="of 5 songs none is left by data.include_labels=.*slow"):
        filter_songs(every, **selection(every, include="slow", exclude="slow"))


def test_label_without_songs_in_one_split_is_valid(nano):
    """The labels of the whole collection are valid in every split."""
    prepare.run(nano)
    place = prepare.locate_cache(nano)
    manifest = cache.read_manifest(place)
    for song in manifest["songs"]:
        song["labels"] = ["kind:all"] + (["kind:rare"] if song["split"] == "train" else [])
    nano.data.include_labels = "all, rare"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "read_manifest", lambda folder: manifest)
        for split in ("train", "valid"):
            songs = prepare.load_split(nano, split, 100)
            assert len(songs.entries) == sum(s["split"] == split for s in manifest["songs"]) > 0
        nano.data.exclude_labels = "rare"
        with pytest.raises(ValueError, match="none is left by data.include_labels=.*kind:rare"):
            prepare.load_split(nano, "train", 100)
