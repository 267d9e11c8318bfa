"""The prepared songs, and the crops of every step as a pure function of (seed, step).

A cache is a folder with `pcm.int16`, all songs end to end at one rate, and `manifest.json`.
"""

import dataclasses
import functools
import json
import pathlib
import queue
import threading

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.logs import say


@dataclasses.dataclass(frozen=True, eq=False)
class Songs:
    """One split of a prepared collection."""

    pcm: np.ndarray  # [total] int16 memory map, shared by all splits
    starts: np.ndarray  # [songs] int64 offsets into pcm
    lengths: np.ndarray  # [songs] int64 samples
    entries: tuple  # the manifest's dicts: name, artist, labels, captions, ...
    sample_rate: int  # Hz


def load_manifest(cache):
    """The manifest of a cache folder, a dict."""
    return json.loads((pathlib.Path(cache) / "manifest.json").read_text())


def load_songs(cache, split, min_samples):
    """The songs of a split that are at least `min_samples` long.

    Raises:
      ValueError: the split holds no such song.
    """
    manifest = load_manifest(cache)
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
        pcm=np.memmap(pathlib.Path(cache) / "pcm.int16", dtype=np.int16, mode="r"),
        starts=np.array([entry["start"] for entry in entries], np.int64),
        lengths=np.array([entry["samples"] for entry in entries], np.int64),
        entries=tuple(entries),
        sample_rate=manifest["sample_rate"],
    )


@functools.lru_cache(maxsize=4)
def epoch_order(seed, epoch, count):
    """A permutation of the songs and a number in [0, 1) for each place in it."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return rng.permutation(count), rng.random(count)


def crop_offsets(songs, samples, seed, step, batch_size, process=0, of=1):
    """Where the crops of one step start: a pure function, the same on any number of processes.

    Every song gives one crop an epoch, at a random place; epochs follow each other without a gap.

    Returns:
      [batch_size / of] int64 offsets into `songs.pcm`.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)[process::of]
    offsets = []
    for epoch, place in zip(*np.divmod(places, len(songs.starts)), strict=True):
        order, fraction = epoch_order(seed, int(epoch), len(songs.starts))
        song = order[place]
        room = songs.lengths[song] - samples + 1
        offsets.append(songs.starts[song] + int(fraction[place] * room))
    return np.array(offsets, np.int64)


def tiled_offsets(songs, samples, count):
    """At most `count` fixed crops, none overlapping, spread evenly over the songs.  # [<= count]"""
    tiles = [
        start + samples * np.arange(length // samples)
        for start, length in zip(songs.starts, songs.lengths, strict=True)
    ]
    everything = np.concatenate(tiles)
    keep = np.linspace(0, len(everything) - 1, min(count, len(everything)))
    return everything[np.rint(keep).astype(np.int64)]


def read_crops(pcm, offsets, samples):
    """[M] offsets -> [M, samples] int16, on the host."""
    return np.stack([pcm[offset : offset + samples] for offset in offsets])


def to_float(pcm):
    """int16 -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / 32768.0


def slice_crops(pcm, offsets, samples):
    """The device's form of `read_crops`: [total] int16 and [B] offsets -> [B, samples] int16."""
    cut = lambda offset: jax.lax.dynamic_slice(pcm, (offset,), (samples,))
    return jax.vmap(cut)(jnp.asarray(offsets))


def on_device(songs, feed, gigabytes):
    """Whether the songs live on the device: as told, or where small enough for int32 offsets."""
    feeds = {"device": True, "host": False}
    feeds["auto"] = songs.pcm.nbytes <= gigabytes * 1e9 and songs.pcm.size < 2**31
    if feed not in feeds:
        raise ValueError(f"data.feed={feed!r} is not one of auto, device, host")
    if feeds[feed] and songs.pcm.size >= 2**31:
        raise ValueError("data.feed='device' holds at most 2^31 samples; use 'auto' or 'host'")
    return feeds[feed]


def offset_batches(songs, samples, seed, batch_size, dispatches):
    """Yields [K, B] int64 crop offsets for each dispatch (first step, K)."""
    for first, count in dispatches:
        steps = range(first, first + count)
        yield np.stack([crop_offsets(songs, samples, seed, step, batch_size) for step in steps])


def host_batches(songs, samples, seed, batch_size, dispatches, ahead=2):
    """Yields [K, B, samples] int16 crops, read by a thread `ahead` dispatches in advance."""
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
            for offsets in offset_batches(songs, samples, seed, batch_size, dispatches):
                offer(np.stack([read_crops(songs.pcm, row, samples) for row in offsets]))
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
