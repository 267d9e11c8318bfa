"""Draw the offsets of crops as a pure function of (seed, step), and read their samples.

The songs of a split count as one long sound, end to end; an offset is a place in it.
"""

import functools

import numpy as np

PAIR_KEY = 2  # beside (seed, step): second crops of pairs have random numbers of their own


def count_crops(songs, samples):
    """Return how many crops each song holds side by side.  # [songs]"""
    return songs.lengths // samples


def epoch_size(songs, samples):
    """Return the number of crops of an epoch."""
    return int((count_crops(songs, samples) * songs.repeats).sum())


@functools.lru_cache(maxsize=4)
def epoch_order(seed, epoch, crops, songs):
    """Return a permutation of all crops, and a number in [0, 1) for each song."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return rng.permutation(crops), rng.random(songs)


def draw_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Draw the offsets of the crops of one step, the same on any number of processes.

    Each epoch is a permutation of all crops. Every song is cut side by side into as many crops as
    fit, from a start that each epoch draws anew, and is repeated by its factor. Epochs follow each
    other without a gap.

    Args:
      rows: the part of the batch to return.

    Returns:
      [rows of batch_size] int64 offsets.
    """
    counts = count_crops(songs, samples)
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


def tile_offsets(songs, samples, count):
    """Return offsets of fixed crops, not overlapping, evenly spread.  # [<= count]"""
    tiles = [
        start + samples * np.arange(crops)
        for start, crops in zip(songs.starts, count_crops(songs, samples), strict=True)
    ]
    offsets = np.concatenate(tiles)
    keep = np.linspace(0, len(offsets) - 1, min(count, len(offsets)))
    return offsets[np.rint(keep).astype(np.int64)]


def read_crops(songs, offsets, samples):
    """Read crops on the host: [M] offsets -> [M, samples, A] int16."""
    return np.stack([songs.read(offset, samples) for offset in offsets])


def read_tiled_waves(songs, samples, count):
    """Return the crops at `tile_offsets` and the offsets.  # [M, (A,) samples] float32, [M]"""
    offsets = tile_offsets(songs, samples, count)
    return pcm_to_wave(read_crops(songs, offsets, samples)), offsets


def pcm_to_float(pcm):
    """Convert int16 to float32 in [-1, 1)."""
    return pcm.astype(np.float32) / 32768.0


def pcm_to_wave(pcm):
    """Convert [..., samples, A] int16 to [..., samples] float32, [..., A, samples] where A > 1."""
    wave = pcm_to_float(pcm)
    return wave[..., 0] if pcm.shape[-1] == 1 else wave.swapaxes(-1, -2)


def draw_pair_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Draw the offsets of the crops of one step, two of each song, as `draw_offsets`.

    The first half of the batch is that of `draw_offsets`. The second half pairs each crop with one
    of the same song that does not overlap it, uniformly drawn. Where none fits, the second crop is
    at the end of the song that is further away.

    Returns:
      [rows of B] int64, B even.
    """
    first = draw_offsets(songs, samples, seed, step, batch_size // 2)
    song = songs.song_at(first)
    starts, room = songs.starts[song], songs.lengths[song] - samples  # [B / 2]
    at = first - starts
    before = np.maximum(at - samples + 1, 0)  # places that end before it
    after = np.maximum(room - at - samples + 1, 0)
    uniform = np.random.default_rng([PAIR_KEY, seed, step]).random(len(first))
    place = (uniform * (before + after)).astype(np.int64)
    place = np.where(place < before, place, place - before + at + samples)
    place = np.where(before + after > 0, place, np.where(at > room - at, 0, room))
    return np.concatenate([first, starts + place])[rows]


def spread_offsets(songs, samples, count):
    """Return offsets of `count` crops of each song, evenly spread over it.  # [S, W] int64"""
    places = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    room = (songs.lengths - samples)[:, None] * places[None]
    return songs.starts[:, None] + np.rint(room).astype(np.int64)


def read_spread_crops(songs, samples, count):
    """Return the crops at `spread_offsets`.  # [S, W, samples, A] int16"""
    offsets = spread_offsets(songs, samples, count)
    pcm = read_crops(songs, offsets.reshape(-1), samples)
    return pcm.reshape(*offsets.shape, *pcm.shape[1:])


def read_fixed_waves(songs, samples, count):
    """Return evenly spread crops of a split.  # [<= count, N] or [<= count, A, N] float32"""
    return read_tiled_waves(songs, samples, count)[0]
