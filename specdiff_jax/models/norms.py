"""Norms over the width, in the form that a matmul computes again in its backward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.matmul import identity

EPSILON = 1e-6


def layer_norm(x, scale, shift):
    """Return (x - mean) / deviation * scale + shift (Ba et al. 2016).  # [B, L, D]

    Args:
      scale, shift: [B or 1, 1, D].
    """
    y = x.astype(jnp.float32)
    mean = y.mean(axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(y**2, axis=-1, keepdims=True) - mean**2, 0.0)
    y = (y - mean) * jax.lax.rsqrt(variance + EPSILON)
    return (y * scale + shift).astype(x.dtype)


def rms_norm(x, scale, shift=0.0):
    """Return x over its root mean square, * scale + shift (Zhang & Sennrich 2019).  # [B, L, D]"""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + EPSILON)
    return (y * scale + shift).astype(x.dtype)


class Normed(NamedTuple):
    """norm(x, *scale_shift), which is not computed yet: `layers.NormDense` does that."""

    norm: Callable
    x: Any  # [B, L, D]
    scale_shift: tuple = ()  # [B or 1, 1, D] each

    @property
    def shape(self):
        return self.x.shape


def as_normed(x):
    """Return a Normed as it is, and plain tokens as a Normed of the identity."""
    return x if isinstance(x, Normed) else Normed(identity, x)


class Norm(nn.Module):
    """A norm of x with the given scale and shift, else with parameters.  # [B, L, D] -> Normed"""

    kind: str  # a key of NORMS

    @nn.compact
    def __call__(self, x, scale=None, shift=None):  # [B, L, D], None or [B, 1, D] each
        if scale is not None:
            return Normed(NORMS[self.kind], x, (scale, shift))
        params = [self.param("scale", nn.initializers.ones, x.shape[-1:])]
        if self.kind == "layer":
            params.append(self.param("bias", nn.initializers.zeros, x.shape[-1:]))
        return Normed(NORMS[self.kind], x, tuple(vector[None, None] for vector in params))


NORMS = {"layer": layer_norm, "rms": rms_norm}
NAMES = {"layer": "LayerNorm", "rms": "RMSNorm"}  # of their parameters, as Flax names them
