"""The values that every source of music yields, before anything is decoded."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Pcm(NamedTuple):
    """Sound that is decoded already."""

    wave: np.ndarray  # [channels, N] float32, nominally within [-1, 1]
    sample_rate: int  # Hz


@dataclasses.dataclass(frozen=True)
class Song:
    """One piece of audio with what is known about it.

    Attributes:
      name: unique within its source; fit for a log line, not for a file name.
      artist: the leak group. Songs that share an artist must never be on both sides of a split.
        Where a source has none, the file's own tag, the album or the name serves.
      labels: 'key:value' or plain strings in a fixed order, e.g. ('composer:bach', 'metre:4/4').
      captions: free-text descriptions, possibly none.
      audio: path of a sound file, the bytes of one, or decoded Pcm.
      split: train, valid or test where the data set says so.
      start, end: seconds of the audio to take; None for its ends.
      tempo: beats a minute, where it is known.
    """

    name: str
    artist: str | None
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    audio: str | bytes | Pcm
    album: str | None = None
    licence: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    tempo: float | None = None


@dataclasses.dataclass(frozen=True)
class More:
    """More captions and labels of a Song that came before: another row of the same audio."""

    name: str
    labels: tuple[str, ...]
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A piece that was left out, and the reason in one line."""

    name: str
    reason: str
