"""What a source of music is, and the values that it yields before anything is decoded."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Pcm(NamedTuple):
    """Sound that is decoded already."""

    wave: np.ndarray  # [channels, N] float32, nominally within [-1, 1]
    sample_rate: int  # Hz


@dataclasses.dataclass(frozen=True)
class Song:
    """One piece of audio with its metadata.

    Attributes:
      name: unique within its source; fit for a log line, not for a file name.
      artist: the leak group. Songs that share an artist must never be on both sides of a split.
        Where a source has none, the file's own tag, the album or the name serves.
      labels: 'key:value' or plain strings in a fixed order, e.g. ('composer:bach', 'metre:4/4').
      captions: free-text descriptions, possibly none.
      audio: path of a sound file, the bytes of one, or decoded Pcm.
      split: train, valid or test where the data set gives one.
      start, end: seconds of the audio to take; None for its ends.
      tempo: beats a minute, where it is given.
    """

    name: str
    artist: str | None
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    audio: str | bytes | Pcm
    album: str | None = None
    license: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    tempo: float | None = None


@dataclasses.dataclass(frozen=True)
class More:
    """More captions and labels of an earlier Song: another row of the same audio."""

    name: str
    labels: tuple[str, ...]
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A piece that is left out, and the reason in one line."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Source:
    """One kind of collection. Every `name` is the value of data.source with its ~ expanded.

    Attributes:
      title: the kind in an error message, as "a folder of sound files".
      matches: name -> whether data.source means this kind.
      songs: (name, **options) -> iterator of Song, More and Skipped. Its keyword parameters are
        the fields of config.data that belong to this kind.
      fingerprint: (name, options) -> JSON value that changes whenever the songs may have changed.
      expected: name -> number of items for the progress bar; None where it is unknown.
      revision: (name, options) -> version of the data set for the manifest, or None.
      limit_errors: whether data.max_error_fraction applies; False where others replace a Skipped.
    """

    title: str
    matches: Callable
    songs: Callable
    fingerprint: Callable
    expected: Callable = lambda name: None
    revision: Callable = lambda name, options: None
    limit_errors: bool = True

    @property
    def options(self):
        """Names of the fields of config.data that belong to this kind."""
        return tuple(inspect.signature(self.songs).parameters)[1:]
