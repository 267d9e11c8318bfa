"""The prepared songs, and the crops of every step as a pure function of (seed, step).

The songs of a split count as one long sound, end to end; an offset is a place in it.
"""

import collections
import dataclasses
import functools
import math

import numpy as np

from specdiff_jax.conditioning import label_names
from specdiff_jax.data import cache
from specdiff_jax.runtime.logs import log


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
        log(f"{split}: {short} of {len(of_split)} songs are shorter than a crop and not used")
    return Songs(
        shards=tuple(cache.open_shards(folder, manifest)),
        places=np.array([(entry["shard"], entry["start"]) for entry in entries], np.int64),
        lengths=np.array([entry["samples"] for entry in entries], np.int64),
        entries=tuple(entries),
        sample_rate=manifest["sample_rate"],
    )


def take_songs(songs, kept):
    """Some of the songs.  # kept: [songs] bool"""
    entries = tuple(entry for entry, keep in zip(songs.entries, kept, strict=True) if keep)
    fields = {"places": songs.places[kept], "lengths": songs.lengths[kept], "entries": entries}
    return dataclasses.replace(songs, **fields)


def filter_songs(songs, only=frozenset(), without=frozenset(), most=None):
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
    return take_songs(songs, kept)


def parse_labels(entries, text):
    """The labels that a text lists with commas between them; ValueError where no song has one."""
    there = sorted({label for entry in entries for label in entry["labels"]})
    named = text.split(",") if text else ()
    return {label_names.find_label(name.strip(), there, "of the songs") for name in named}


def balance_labels(songs, share):
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
