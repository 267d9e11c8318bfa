"""What a clip should be, as the network takes it: labels, numbers, text. All may be left unsaid."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.layers import Dense

OCTAVES = 8  # of the sinusoids that a number is seen through
SLOWEST = math.pi / 8  # radians for each unit of a number


class Condition(NamedTuple):
    """What is asked of each item; a field is None where the model has no such input.

    Unsaid are: a label of 0, a number of NaN, a text whose mask is False throughout.
    """

    labels: Any = None  # [B, V] float32, 1 where a label is asked for
    scalars: Any = None  # [B, K] float32, in units in which a difference of one is large
    tokens: Any = None  # [B, S, E] features of each token of a text
    mask: Any = None  # [B, S] bool, where there is a token
    pooled: Any = None  # [B, P] features of the text as a whole


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Sizes of what a model can be asked for; 0 is none."""

    labels: int = 0  # V
    scalars: int = 0  # K
    text: int = 0  # E, of a token of text
    pooled: int = 0  # P, of a text as a whole
    cross_heads: int = 0  # heads of each block that look at the context; 0: there is none


def null_condition(inputs, batch, tokens=1):
    """The Condition that asks for nothing, with room for so many tokens of text."""
    text = inputs.text > 0
    return Condition(
        labels=jnp.zeros((batch, inputs.labels)) if inputs.labels else None,
        scalars=jnp.full((batch, inputs.scalars), jnp.nan) if inputs.scalars else None,
        tokens=jnp.zeros((batch, tokens, inputs.text)) if text else None,
        mask=jnp.zeros((batch, tokens), bool) if text else None,
        pooled=jnp.zeros((batch, inputs.pooled)) if text else None,
    )


def drop_conditions(condition, key, everything, part, each):
    """A Condition with parts unsaid at random, so that a model learns to do without them.

    Args:
      everything: probability, for an item, that nothing is said: what guidance needs (Ho &
        Salimans 2022, arXiv 2207.12598, algorithm 1).
      part: probability, beside that, that all labels are left out; that the text is.
      each: every item draws a rate up to this; each label, number and token of text is left out
        with it, so that few words may be asked for as well as many.
    """
    size = len(jax.tree.leaves(condition)[0])
    keys = iter(jax.random.split(key, 7))
    keep = lambda rate, shape: jax.random.bernoulli(next(keys), 1 - rate, shape)
    said = keep(everything, (size, 1))
    rate = each * jax.random.uniform(next(keys), (size, 1))
    c = condition
    if c.labels is not None:
        kept = said & keep(part, (size, 1)) & keep(rate, c.labels.shape)
        c = c._replace(labels=c.labels * kept)
    if c.scalars is not None:
        kept = said & keep(rate, c.scalars.shape)
        c = c._replace(scalars=jnp.where(kept, c.scalars, jnp.nan))
    if c.mask is not None:
        kept = said & keep(part, (size, 1)) & keep(rate, c.mask.shape)
        c = c._replace(mask=c.mask & kept)
    return c


def sinusoids(numbers):
    """Sinusoids of numbers, an octave apart; all zero for NaN.  # [B, K] -> [B, K, 2 OCTAVES]"""
    known = jnp.isfinite(numbers)[..., None]
    angles = jnp.nan_to_num(numbers)[..., None] * (SLOWEST * 2.0 ** jnp.arange(OCTAVES))[None, None]
    return jnp.where(known, jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1), 0.0)


class ConditionEmbedding(nn.Module):
    """A Condition as a vector that acts beside the time's, and as context for cross-attention.

    Returns:
      vector [B, D], and the parts of the context, each (tokens [B or 1, S, E], mask [B, S]); no
      parts without cross_heads. First comes one learned token that is always there, so that
      attention has where to look when nothing is said; then a token for each label, each number
      and each token of the text.
    """

    inputs: Inputs
    width: int  # D

    @nn.compact
    def __call__(self, condition):
        return self.vector(condition), self.context(condition) if self.inputs.cross_heads else ()

    def vector(self, c):
        """All that is said, as one sum.  # [B, D]"""
        vector = jnp.zeros((1, self.width))
        if self.inputs.labels:
            some = nn.initializers.normal(0.3)  # about one for the sum of a song's ten
            table = self.param("labels", some, (self.inputs.labels, self.width))
            vector += c.labels @ table
        if self.inputs.scalars:
            seen = sinusoids(c.scalars).reshape(len(c.scalars), -1)
            vector += Dense(self.width, use_bias=False, name="numbers")(seen)
        if self.inputs.text:
            no_text = self.param("no_text", nn.initializers.normal(0.02), (1, self.width))
            text = Dense(self.width, use_bias=False, name="text")(normalize_features(c.pooled))
            vector += jnp.where(c.mask.any(axis=1, keepdims=True), text, no_text)
        return vector

    def context(self, c):
        """All that is said, each thing by itself."""
        batch, size = len(jax.tree.leaves(c)[0]), self.inputs.text or self.width
        learned = lambda name, count, scale: self.param(
            name, nn.initializers.normal(scale), (count, size)
        )
        parts = [(learned("no_token", 1, 0.02)[None], jnp.ones((batch, 1), bool))]
        if self.inputs.labels:
            table = learned("label_tokens", self.inputs.labels, 1.0)
            parts.append((table[None], c.labels > 0))
        if self.inputs.scalars:
            seen = jnp.eye(self.inputs.scalars)
            seen = jnp.broadcast_to(seen[None], (batch, *seen.shape))
            seen = jnp.concatenate(
                [sinusoids(c.scalars), seen], axis=-1
            )  # its value, and which it is
            tokens = Dense(size, use_bias=False, name="number_tokens")(seen)
            parts.append((tokens, jnp.isfinite(c.scalars)))
        if self.inputs.text:
            parts.append((normalize_features(c.tokens), c.mask))
        return tuple(parts)


def normalize_features(features):
    """Features of any encoder at unit variance.  # [..., E], as it, float32"""
    features = features.astype(jnp.float32)
    square = jnp.mean(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(square + 1e-12)
