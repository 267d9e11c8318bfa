"""The prepared songs, and the crops of every step as a pure function of (seed, step).

The songs of a split count as one long sound, end to end; an offset is a place in it.
"""

import collections
import dataclasses
import functools
import math
import queue
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning import labels
from specdiff_jax.data import cache
from specdiff_jax.runtime.logs import say


class Batch(NamedTuple):
    """The crops of a step, with the songs that they are of."""

    sound: np.ndarray  # [..., B] int32 offsets, or [..., B, samples, A] int16 samples
    song: np.ndarray  # [..., B] int32
    start: np.ndarray  # [..., B] float32, seconds into the song


@dataclasses.dataclass(frozen=True, eq=False)
class Songs:
    """One split of a prepared collection."""

    shards: tuple  # [samples, A] int16 memory maps, shared by all splits
    places: np.ndarray  # [songs, 2] int64: shard, first sample in it
    lengths: np.ndarray  # [songs] int64 samples
    entries: tuple  # the manifest's dicts: name, artist, labels, captions, ...
    sample_rate: int  # Hz
    repeats: np.ndarray | int = 1  # [songs] int64: how often an epoch holds each; see `balanced`

    @functools.cached_property
    def starts(self):
        """Offset of each song.  # [songs] int64"""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def size(self):
        """Samples of all songs."""
        return int(self.lengths.sum())

    @property
    def channels(self):
        return self.shards[0].shape[1]

    def song_at(self, offset):
        """Which song an offset lies in.  # any shape"""
        return np.searchsorted(self.starts, offset, side="right") - 1

    def read(self, offset, samples):
        """[samples, A] int16 of one song, from an offset."""
        song = self.song_at(offset)
        shard, first = self.places[song]
        first += offset - self.starts[song]
        return self.shards[shard][first : first + samples]

    def read_all(self):
        """[size, A] int16: what `read` reads from, in memory."""
        return np.concatenate(
            [self.read(*song) for song in zip(self.starts, self.lengths, strict=True)]
        )


def load_songs(folder, split, min_samples):
    """The songs of a split that are at least `min_samples` long.

    Raises:
      ValueError: the split holds no such song.
    """
    manifest = cache.read_manifest(folder)
    of_split = [entry for entry in manifest["songs"] if entry["split"] == split]
    entries = [entry for entry in of_split if entry["samples"] >= min_samples]
    if not entries:
        longest = max((entry["samples"] for entry in of_split), default=0)
        raise ValueError(
            f"data: none of the {len(of_split)} {split} songs holds a crop of {min_samples} samples"
            f" (the longest has {longest}); lower representation.frames or add longer songs"
        )
    if len(entries) < len(of_split):
        short = len(of_split) - len(entries)
        say(f"{split}: {short} of {len(of_split)} songs are shorter than a crop and not used")
    return Songs(
        shards=tuple(cache.open_shards(folder, manifest)),
        places=np.array([(entry["shard"], entry["start"]) for entry in entries], np.int64),
        lengths=np.array([entry["samples"] for entry in entries], np.int64),
        entries=tuple(entries),
        sample_rate=manifest["sample_rate"],
    )


def some(songs, kept):
    """Some of the songs.  # kept: [songs] bool"""
    entries = tuple(entry for entry, keep in zip(songs.entries, kept, strict=True) if keep)
    fields = {"places": songs.places[kept], "lengths": songs.lengths[kept], "entries": entries}
    return dataclasses.replace(songs, **fields)


def selected(songs, only=frozenset(), without=frozenset(), most=None):
    """The songs that have one of the labels `only` and none of `without`, at most so many of them.

    Args:
      only, without: sets of labels; most: spread over the songs.

    Raises:
      ValueError: no song is left.
    """
    kept = np.array(
        [
            not without & set(entry["labels"]) and (not only or bool(only & set(entry["labels"])))
            for entry in songs.entries
        ]
    )
    if most is not None:
        left = np.flatnonzero(kept)
        kept[:] = False
        kept[left[np.linspace(0, len(left) - 1, min(most, len(left))).astype(int)]] = True
    if not kept.any():
        raise ValueError(
            f"data: of {len(songs.entries)} songs none is left by only={sorted(only)}, "
            f"without={sorted(without)}; name other labels"
        )
    return some(songs, kept)


def known_labels(entries, text):
    """The labels that a text lists with commas between them; ValueError where no song has one."""
    there = sorted({label for entry in entries for label in entry["labels"]})
    named = text.split(",") if text else ()
    return {labels.known(name.strip(), there, "of the songs") for name in named}


def crops_of(songs, samples):
    """How many crops each song holds side by side.  # [songs]"""
    return songs.lengths // samples


def epoch_size(songs, samples):
    """Crops of an epoch."""
    return int((crops_of(songs, samples) * songs.repeats).sum())


def balanced(songs, share):
    """Songs whose rare labels come more often: repeat factors of Gupta et al. 2019.

    (arXiv 1908.03195, section 4.2.) A label that a share f of the songs has asks for
    max(1, sqrt(share / f)) of each of them; a song takes the most that one of its labels asks for.
    """
    counts = collections.Counter(label for entry in songs.entries for label in entry["labels"])
    total = len(songs.entries)
    asks = lambda label: math.sqrt(share * total / counts[label])
    factors = [max([1.0, *map(asks, entry["labels"])]) for entry in songs.entries]
    # Rounded up for as many songs as the fraction says, spread evenly.
    repeats = np.floor(np.array(factors) + (np.arange(total) * 0.618034) % 1).astype(np.int64)
    return dataclasses.replace(songs, repeats=repeats)


@functools.lru_cache(maxsize=4)
def epoch_order(seed, epoch, crops, songs):
    """A permutation of all crops, and a number in [0, 1) for each song."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return rng.permutation(crops), rng.random(songs)


def crop_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Where the crops of one step start: a pure function, the same on any number of processes.

    Each epoch is a permutation of all crops: every song is cut side by side into as many as it
    holds, beginning at a place that is drawn anew, and as often as it is to be repeated. Epochs
    follow each other without a gap.

    Args:
      rows: the part of the batch that is wanted.

    Returns:
      [rows of batch_size] int64 offsets.
    """
    counts = crops_of(songs, samples)
    shares = counts * songs.repeats
    ends = np.cumsum(shares)
    places = np.arange(step * batch_size, (step + 1) * batch_size)[rows]
    offsets = []
    for epoch, place in zip(*np.divmod(places, ends[-1]), strict=True):
        order, fraction = epoch_order(seed, int(epoch), int(ends[-1]), len(counts))
        song = np.searchsorted(ends, order[place], side="right")
        tile = (order[place] - (ends[song] - shares[song])) % counts[song]
        room = songs.lengths[song] - counts[song] * samples + 1
        offsets.append(songs.starts[song] + int(fraction[song] * room) + tile * samples)
    return np.array(offsets, np.int64)


def tiled_offsets(songs, samples, count):
    """At most `count` fixed crops, none overlapping, spread evenly over the songs.  # [<= count]"""
    tiles = [
        start + samples * np.arange(crops)
        for start, crops in zip(songs.starts, crops_of(songs, samples), strict=True)
    ]
    everything = np.concatenate(tiles)
    keep = np.linspace(0, len(everything) - 1, min(count, len(everything)))
    return everything[np.rint(keep).astype(np.int64)]


def read_crops(songs, offsets, samples):
    """[M] offsets -> [M, samples, A] int16, on the host."""
    return np.stack([songs.read(offset, samples) for offset in offsets])


def tiled_waves(songs, samples, count):
    """Crops at `tiled_offsets` as sound, and the offsets.  # [M, (A,) samples], [M]"""
    offsets = tiled_offsets(songs, samples, count)
    return to_wave(read_crops(songs, offsets, samples)), offsets


def to_float(pcm):
    """int16 -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / 32768.0


def to_wave(pcm):
    """[..., samples, A] int16 -> [..., samples] float32, or [..., A, samples] where A > 1."""
    wave = to_float(pcm)
    return wave[..., 0] if pcm.shape[-1] == 1 else wave.swapaxes(-1, -2)


def slice_crops(pcm, offsets, samples):
    """The device's `read_crops`: [size, A] int16 and [B] offsets -> [B, samples, A] int16."""
    cut = lambda offset: jax.lax.dynamic_slice_in_dim(pcm, offset, samples)
    return jax.vmap(cut)(jnp.asarray(offsets))


def on_device(songs, feed, gigabytes):
    """Whether the songs live on the device: as told, or where small enough for int32 offsets."""
    feeds = {"device": True, "host": False}
    feeds["auto"] = 2 * songs.size * songs.channels <= gigabytes * 1e9 and songs.size < 2**31
    if feed not in feeds:
        raise ValueError(f"data.feed={feed!r} is not one of auto, device, host")
    if feeds[feed] and songs.size >= 2**31:
        raise ValueError(
            "data.feed='device' holds at most 2^31 samples of training songs; use 'auto' or 'host'"
        )
    return feeds[feed]


def offset_batches(
    songs, samples, seed, batch_size, dispatches, rows=slice(None), draw=crop_offsets
):
    """Yields the Batch [K, rows of B] of offsets (int64) for each dispatch (first step, K)."""
    for first, count in dispatches:
        steps = range(first, first + count)
        drawn = [draw(songs, samples, seed, step, batch_size, rows) for step in steps]
        yield batch_of(songs, np.stack(drawn))


def batch_of(songs, offsets):
    """The Batch of offsets of any shape."""
    song = songs.song_at(offsets)
    start = (offsets - songs.starts[song]) / songs.sample_rate
    return Batch(offsets, song.astype(np.int32), start.astype(np.float32))


def host_batches(
    songs, samples, seed, batch_size, dispatches, rows=slice(None), draw=crop_offsets, ahead=2
):
    """Yields the Batch [K, rows of B] of samples, read by a thread some dispatches `ahead`."""
    arguments = (songs, samples, seed, batch_size, dispatches, rows, draw)
    ready = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def offer(item):
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read():
        try:
            for batch in offset_batches(*arguments):
                crops = [read_crops(songs, row, samples) for row in batch.sound]
                offer(batch._replace(sound=np.stack(crops)))
            offer(None)
        except Exception as error:  # handed to the consumer, which raises it
            offer(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
