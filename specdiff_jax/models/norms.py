"""Norms over the width, each with what moves it: functions that products.matmul computes again."""

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-6


def layer_norm(x, scale, shift):
    """(x - mean) / deviation * scale + shift (Ba et al. 2016).  # [B, L, D]

    Args:
      scale, shift: [B or 1, 1, D].
    """
    y = x.astype(jnp.float32)
    mean = y.mean(axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(y**2, axis=-1, keepdims=True) - mean**2, 0.0)
    y = (y - mean) * jax.lax.rsqrt(variance + EPSILON)
    return (y * scale + shift).astype(x.dtype)


def rms_norm(x, scale, shift=0.0):
    """x over its root mean square (Zhang & Sennrich 2019), moved like `layer_norm`."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + EPSILON)
    return (y * scale + shift).astype(x.dtype)


class ScaleShift(nn.Module):
    """What moves a norm where nothing else does: its own parameters.  # -> [1, 1, D] each"""

    kind: str  # a key of NORMS
    width: int

    @nn.compact
    def __call__(self):
        moved = [self.param("scale", nn.initializers.ones, (self.width,))]
        if self.kind == "layer":
            moved.append(self.param("bias", nn.initializers.zeros, (self.width,)))
        return [vector[None, None] for vector in moved]


NORMS = {"layer": layer_norm, "rms": rms_norm}
NAMES = {"layer": "LayerNorm", "rms": "RMSNorm"}  # of their parameters, as Flax has them
