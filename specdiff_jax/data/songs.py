"""The prepared songs of a split, their sound and their labels.

The songs of a split count as one long sound, end to end; an offset is a sample of it.
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
    repeats: np.ndarray | int = 1  # [songs] int64: repeats in an epoch; see `balance_labels`

    @functools.cached_property
    def starts(self):
        """Return the offset of each song.  # [songs] int64"""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def size(self):
        """Return the number of samples of all songs."""
        return int(self.lengths.sum())

    @property
    def channels(self):
        """Return the number of audio channels."""
        return self.shards[0].shape[1]

    def song_at(self, offset):
        """Return the index of the song at an offset.  # any shape"""
        return np.searchsorted(self.starts, offset, side="right") - 1

    def read(self, offset, samples):
        """Return [samples, A] int16 of one song, from an offset."""
        song = self.song_at(offset)
        shard, first = self.places[song]
        first += offset - self.starts[song]
        return self.shards[shard][first : first + samples]

    def read_all(self):
        """Return all samples in memory, in the order of the offsets.  # [size, A] int16"""
        return np.concatenate(
            [self.read(*song) for song in zip(self.starts, self.lengths, strict=True)]
        )


def load_songs(folder, split, min_samples):
    """Return the Songs of a split that are at least `min_samples` long.

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
    """Return the Songs of a mask.  # kept: [songs] bool"""
    entries = tuple(entry for entry, keep in zip(songs.entries, kept, strict=True) if keep)
    fields = {"places": songs.places[kept], "lengths": songs.lengths[kept], "entries": entries}
    return dataclasses.replace(songs, **fields)


def filter_songs(songs, include=frozenset(), exclude=frozenset(), max_songs=None):
    """Return the Songs that have one of the labels `include` and none of `exclude`.

    Args:
      include, exclude: sets of labels; an empty `include` means any.
      max_songs: at most so many, evenly spread over those that are left.

    Raises:
      ValueError: no song is left.
    """
    kept = np.array(
        [
            not exclude & set(entry["labels"])
            and (not include or bool(include & set(entry["labels"])))
            for entry in songs.entries
        ]
    )
    if max_songs is not None:
        left = np.flatnonzero(kept)
        kept[:] = False
        kept[left[np.linspace(0, len(left) - 1, min(max_songs, len(left))).astype(int)]] = True
    if not kept.any():
        raise ValueError(
            f"data: of {len(songs.entries)} songs none is left by "
            f"data.include_labels={sorted(include)}, "
            f"data.exclude_labels={sorted(exclude)}; name other labels"
        )
    return take_songs(songs, kept)


def parse_labels(entries, text):
    """Return the set of labels that a text lists with commas between them.

    Raises:
      ValueError: no song has such a label.
    """
    there = sorted({label for entry in entries for label in entry["labels"]})
    names = text.split(",") if text else ()
    return {label_names.find_label(name.strip(), there, "of the songs") for name in names}


def balance_labels(songs, share):
    """Repeat songs with rare labels by the repeat factors of Gupta et al. 2019.

    (arXiv 1908.03195, section 4.2.) A label that a share f of the songs has gets the factor
    max(1, sqrt(share / f)); a song gets the largest factor of its labels.
    """
    counts = collections.Counter(label for entry in songs.entries for label in entry["labels"])
    total = len(songs.entries)
    factor = lambda label: math.sqrt(share * total / counts[label])
    factors = [max([1.0, *map(factor, entry["labels"])]) for entry in songs.entries]
    # Rounded up for a fraction of the songs that equals the factor's, spread evenly.
    repeats = np.floor(np.array(factors) + (np.arange(total) * 0.618034) % 1).astype(np.int64)
    return dataclasses.replace(songs, repeats=repeats)
