"""The condition of numbers: a song's tempo and length, and where in it a crop starts."""

import dataclasses
import math
import re
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from specdiff_jax.config.fields import choose
from specdiff_jax.models.layers import Dense

UNITS = {  # name -> the scalar as the network gets it: a difference of one is large
    "tempo": lambda beats_per_minute: math.log2(beats_per_minute / 100),
    "start": lambda seconds: seconds / 60,  # of the crop in its song
    "length": lambda seconds: seconds / 60,  # of the song
}
OCTAVES = 8  # of the sinusoids that embed a scalar
LOWEST = math.pi / 8  # their lowest frequency, in radians per unit


@dataclasses.dataclass(frozen=True)
class Scalars:
    """Scalars of a vocabulary. A value is [B, K] float32 in UNITS, NaN where unknown."""

    kind: ClassVar[str] = "scalars"
    field: ClassVar[str] = "scalars"  # of a Prompt
    token_width: ClassVar[None] = None

    names: tuple[str, ...]  # K keys of UNITS

    @classmethod
    def check(cls, config):
        """Return {field of config.condition that scalars use: whether it must be set}.

        Raises:
          ValueError: an unknown scalar.
        """
        for name in config.condition.scalars:
            choose(UNITS, "condition.scalars", name)
        return {}

    @classmethod
    def fit(cls, config, songs, encoder):
        """Return the Scalars of a config."""
        return cls(tuple(config.condition.scalars))

    def describe(self):
        """Return the scalars in words."""
        return "scalars: " + ", ".join(self.names)

    # ---- of songs

    def table(self, songs, features):
        """Return the scalars of every song, NaN for those of a crop.  # [S, K] float32"""
        rows = [self.encode(song_scalars(entry)) for entry in songs.entries]
        return np.array(rows, np.float32)

    def draw(self, table, batch, key):
        """Return the scalars of the crops of a Batch."""
        is_start = jnp.array([name == "start" for name in self.names])[None]
        start = UNITS["start"](batch.start)[:, None].astype(jnp.float32)
        return jnp.where(is_start, start, table[batch.song])

    # ---- in the network

    def null(self, batch):
        """Return the value of `batch` items without a condition."""
        return jnp.full((batch, len(self.names)), jnp.nan)

    def dropout(self, value, dropout):
        """Return the value with scalars dropped at random."""
        return jnp.where(dropout.items & dropout.elements(value.shape), value, jnp.nan)

    def vector(self, module, value, width):
        """Return a linear map of the scalars' sinusoids.  # [B, K] -> [B, D]"""
        features = sinusoids(value).reshape(len(value), -1)
        return Dense(width, use_bias=False, name="numbers")(features)

    def tokens(self, module, value, width):
        """Return (a token a scalar [B, K, E], mask [B, K]), of its sinusoids and its identity."""
        identity = jnp.eye(len(self.names))
        identity = jnp.broadcast_to(identity[None], (len(value), *identity.shape))
        features = jnp.concatenate([sinusoids(value), identity], axis=-1)
        return Dense(width, use_bias=False, name="number_tokens")(features), jnp.isfinite(value)

    # ---- of prompts

    def parse(self, text):
        """Return ({name: number}, ()) of "tempo=120, start=0".

        Raises:
          ValueError: an unknown scalar, or no number.
        """
        scalars = {}
        for part in filter(None, re.split(r"[,;\s]+", text.strip())):
            name, _, value = part.partition("=")
            choose(dict.fromkeys(self.names), "scalar", name)
            try:
                scalars[name] = float(value)
                UNITS[name](scalars[name])
            except ValueError as error:
                raise ValueError(
                    f"scalars: {part!r} is not a name and a value; try tempo=120"
                ) from error
        if not scalars:
            raise ValueError("scalars: the text is empty; write tempo=120, or leave it out")
        return scalars, ()

    def encode(self, scalars, texts=None):
        """Return the value of one item with {name: number}, or without any.  # [K]"""
        scalars = scalars or {}
        in_units = lambda name: UNITS[name](scalars[name]) if name in scalars else math.nan
        return np.array([in_units(name) for name in self.names], np.float32)


def song_scalars(entry):
    """Return {name: number} of what a manifest's entry has of its song."""
    scalars = {"tempo": entry.get("tempo"), "length": entry["seconds"]}
    return {name: value for name, value in scalars.items() if value is not None}


def sinusoids(scalars):
    """Sinusoids of scalars, an octave apart; all zero for NaN.  # [B, K] -> [B, K, 2 OCTAVES]"""
    finite = jnp.isfinite(scalars)[..., None]
    angles = jnp.nan_to_num(scalars)[..., None] * (LOWEST * 2.0 ** jnp.arange(OCTAVES))[None, None]
    return jnp.where(finite, jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1), 0.0)
