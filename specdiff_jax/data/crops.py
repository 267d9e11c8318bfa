"""Where crops begin, a pure function of (seed, step), and their samples.

The songs of a split count as one long sound, end to end; an offset is a place in it.
"""

import functools

import numpy as np

PAIR_KEY = 2  # beside (seed, step): partners have random numbers of their own


def count_crops(songs, samples):
    """How many crops each song holds side by side.  # [songs]"""
    return songs.lengths // samples


def epoch_size(songs, samples):
    """Crops of an epoch."""
    return int((count_crops(songs, samples) * songs.repeats).sum())


@functools.lru_cache(maxsize=4)
def epoch_order(seed, epoch, crops, songs):
    """A permutation of all crops, and a number in [0, 1) for each song."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return rng.permutation(crops), rng.random(songs)


def draw_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Where the crops of one step start: a pure function, the same on any number of processes.

    Each epoch is a permutation of all crops: every song is cut side by side into as many as it
    holds, beginning at a place that is drawn anew, and as often as it is to be repeated. Epochs
    follow each other without a gap.

    Args:
      rows: the part of the batch that is wanted.

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
    """At most `count` fixed crops, none overlapping, spread evenly over the songs.  # [<= count]"""
    tiles = [
        start + samples * np.arange(crops)
        for start, crops in zip(songs.starts, count_crops(songs, samples), strict=True)
    ]
    everything = np.concatenate(tiles)
    keep = np.linspace(0, len(everything) - 1, min(count, len(everything)))
    return everything[np.rint(keep).astype(np.int64)]


def read_crops(songs, offsets, samples):
    """[M] offsets -> [M, samples, A] int16, on the host."""
    return np.stack([songs.read(offset, samples) for offset in offsets])


def read_tiled_waves(songs, samples, count):
    """Crops at `tiled_offsets` as sound, and the offsets.  # [M, (A,) samples], [M]"""
    offsets = tile_offsets(songs, samples, count)
    return pcm_to_wave(read_crops(songs, offsets, samples)), offsets


def pcm_to_float(pcm):
    """int16 -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / 32768.0


def pcm_to_wave(pcm):
    """[..., samples, A] int16 -> [..., samples] float32, or [..., A, samples] where A > 1."""
    wave = pcm_to_float(pcm)
    return wave[..., 0] if pcm.shape[-1] == 1 else wave.swapaxes(-1, -2)


def draw_pair_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Where the crops of one step start, two of each song: a pure function, as crop_offsets.

    The first half of the batch are crop_offsets; each has its partner in the second half,
    anywhere in its song where the two do not overlap. Where there is no such place, the partner is
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
    drawn = np.random.default_rng([PAIR_KEY, seed, step]).random(len(first))
    place = (drawn * (before + after)).astype(np.int64)
    place = np.where(place < before, place, place - before + at + samples)
    place = np.where(before + after > 0, place, np.where(at > room - at, 0, room))
    return np.concatenate([first, starts + place])[rows]


def spread_offsets(songs, samples, count):
    """`count` crops of each song, evenly spread from its beginning to its end.  # [S, W] int64"""
    places = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    room = (songs.lengths - samples)[:, None] * places[None]
    return songs.starts[:, None] + np.rint(room).astype(np.int64)


def read_spread_crops(songs, samples, count):
    """The crops at `spread_offsets`.  # [S, W, samples, A] int16"""
    offsets = spread_offsets(songs, samples, count)
    pcm = read_crops(songs, offsets.reshape(-1), samples)
    return pcm.reshape(*offsets.shape, *pcm.shape[1:])


def read_fixed_waves(songs, samples, count):
    """Return evenly spread crops of a split.  # [<= count, N] or [<= count, A, N] float32"""
    return read_tiled_waves(songs, samples, count)[0]
