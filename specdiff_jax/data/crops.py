"""Crops of each song: two that do not overlap, for training; some spread evenly, held out."""

import numpy as np

from specdiff_jax.data import songs as data

PAIR_KEY = 2  # beside (seed, step): partners have random numbers of their own


def pair_offsets(songs, samples, seed, step, batch_size, rows=slice(None)):
    """Where the crops of one step start, two of each song: a pure function, as data.crop_offsets.

    The first half of the batch are data.crop_offsets; each has its partner in the second half,
    anywhere in its song where the two do not overlap. Where there is no such place, the partner is
    at the end of the song that is further away.

    Returns:
      [rows of B] int64, B even.
    """
    first = data.crop_offsets(songs, samples, seed, step, batch_size // 2)
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


def spread_pcm(songs, samples, count):
    """The crops at `spread_offsets`.  # [S, W, samples, A] int16"""
    offsets = spread_offsets(songs, samples, count)
    pcm = data.read_crops(songs, offsets.reshape(-1), samples)
    return pcm.reshape(*offsets.shape, *pcm.shape[1:])
