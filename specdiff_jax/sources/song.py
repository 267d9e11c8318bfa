"""The two values that every source of music yields."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Song:
    """One piece of audio with what is known about it.

    Attributes:
      name: unique within its source; fit for a log line, not for a file name.
      artist: the leak group. Songs that share an artist must never be on both sides of a split.
      labels: 'key:value' strings in a fixed order, e.g. ('composer:bach', 'metre:4/4').
      captions: free-text descriptions, possibly none.
      wave: [channels, N] float32, nominally within [-1, 1].
      sample_rate: samples a second of `wave`.
    """

    name: str
    artist: str
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    wave: np.ndarray
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A piece that was left out, and the reason in one line."""

    name: str
    reason: str
