"""Turn offsets of crops into the batches of a dispatch, read on the host or on the device."""

import queue
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.data.crops import draw_offsets, read_crops
from specdiff_jax.runtime import mesh


class Batch(NamedTuple):
    """The crops of a step, with their songs."""

    sound: np.ndarray  # [..., B] int32 offsets, or [..., B, samples, A] int16 samples
    song: np.ndarray  # [..., B] int32
    start: np.ndarray  # [..., B] float32, seconds into the song


def slice_crops(pcm, offsets, samples):
    """Cut crops on the device: [size, A] int16 and [B] offsets -> [B, samples, A] int16."""
    read = lambda offset: jax.lax.dynamic_slice_in_dim(pcm, offset, samples)
    return jax.vmap(read)(jnp.asarray(offsets))


def fits_on_device(songs, placement, gigabytes):
    """Return whether the songs live on the device; "auto": where they fit and offsets fit int32.

    Raises:
      ValueError: an unknown placement, or too many samples for int32 offsets.
    """
    on_device = {"device": True, "host": False}
    on_device["auto"] = 2 * songs.size * songs.channels <= gigabytes * 1e9 and songs.size < 2**31
    if placement not in on_device:
        raise ValueError(f"data.placement={placement!r} is not one of auto, device, host")
    if on_device[placement] and songs.size >= 2**31:
        raise ValueError(
            "data.placement='device' stores at most 2^31 samples of training songs; use 'auto' or "
            "'host'"
        )
    return on_device[placement]


def iterate_offsets(
    songs, samples, seed, batch_size, dispatches, rows=slice(None), draw=draw_offsets
):
    """Yield the Batch [K, rows of B] of offsets (int64) for each dispatch (first step, K)."""
    for first, count in dispatches:
        steps = range(first, first + count)
        drawn = [draw(songs, samples, seed, step, batch_size, rows) for step in steps]
        yield make_batch(songs, np.stack(drawn))


def make_batch(songs, offsets):
    """Return the Batch of offsets of any shape."""
    song = songs.song_at(offsets)
    start = (offsets - songs.starts[song]) / songs.sample_rate
    return Batch(offsets, song.astype(np.int32), start.astype(np.float32))


def iterate_crops(
    songs, samples, seed, batch_size, dispatches, rows=slice(None), draw=draw_offsets, ahead=2
):
    """Yield the Batch [K, rows of B] of samples, read by a thread some dispatches `ahead`."""
    arguments = (songs, samples, seed, batch_size, dispatches, rows, draw)
    ready = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read():
        try:
            for batch in iterate_offsets(*arguments):
                crops = [read_crops(songs, row, samples) for row in batch.sound]
                put(batch._replace(sound=np.stack(crops)))
            put(None)
        except Exception as error:  # handed to the consumer, which raises it
            put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()


def feed(config, songs, samples, tables, dispatches, draw=draw_offsets):
    """Return (resident, batches): the arrays that stay on the device, the Batch of each dispatch.

    resident is (songs, their tables), or (None, tables) where the batches carry the crops
    themselves.

    Args:
      tables: any pytree of arrays with a row for each song.
      draw: returns the offsets of the crops of a step, as `crops.draw_offsets`.
    """
    d, size = config.data, config.train.batch_size
    arguments = (songs, samples, config.seed, size, dispatches, mesh.process_rows(size), draw)
    if not fits_on_device(songs, d.placement, d.device_gigabytes):
        resident, batches = (None, tables), iterate_crops(*arguments)
    else:
        resident, batches = (songs.read_all(), tables), iterate_offsets(*arguments)
        batches = (batch._replace(sound=batch.sound.astype(np.int32)) for batch in batches)
    return mesh.replicate(resident), map(mesh.shard_batch, batches)
