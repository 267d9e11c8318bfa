"""Small parts: patches in and out, self- and cross-attention, MLP, time embeddings."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.matmul import dense_dot_general, identity, matmul
from specdiff_jax.models.positions import rotate

Dense = functools.partial(nn.Dense, dot_general=dense_dot_general)


class DenseAfter(nn.Module):
    """nn.Dense of function(x, *others), which keeps x alone; see products.matmul.

    [B, L, D] -> [B, L, width].
    """

    function: Callable
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *others):
        inner = jax.eval_shape(self.function, x, *others).shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (inner, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        return matmul(x, kernel.astype(self.dtype), self.function, others) + bias[None, None]


class PatchEmbed(nn.Module):
    """Convolution whose stride is its kernel: a matmul of patches. [B, F, T, C] -> [B, L, D].

    Same parameters and result as nn.Conv(width, patch, strides=patch, padding="VALID").
    """

    patch: tuple[int, int]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        (pf, pt), (b, f, t, c) = self.patch, x.shape
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (pf, pt, c, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        patches = x.reshape(b, f // pf, pf, t // pt, pt, c).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(b, -1, pf * pt * c).astype(self.dtype)  # [B, L, P]
        weights = kernel.reshape(-1, self.width).astype(self.dtype)  # [P, D]
        return matmul(patches, weights) + bias[None, None].astype(self.dtype)


class PatchUnembed(nn.Module):
    """Transposed convolution of norm(tokens, *moved), its stride its kernel.

    [B, L, D] -> [B, F, T, C] float32. Same parameters and result as nn.ConvTranspose(C, patch,
    strides=patch, transpose_kernel=True).
    """

    patch: tuple[int, int]
    shape: tuple[int, int, int]  # (F, T, C)
    zero_init: bool = False
    dtype: Any = jnp.float32
    norm: Callable = identity

    @nn.compact
    def __call__(self, tokens, *moved):
        (pf, pt), (f, t, c) = self.patch, self.shape
        normal = nn.initializers.lecun_normal(in_axis=3, out_axis=(0, 1, 2))
        init = nn.initializers.zeros if self.zero_init else normal
        kernel = self.param("kernel", init, (pf, pt, c, tokens.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        weights = kernel.reshape(-1, tokens.shape[-1]).T.astype(self.dtype)  # [D, P]
        patches = matmul(tokens.astype(self.dtype), weights, self.norm, moved).astype(jnp.float32)
        patches = patches.reshape(-1, f // pf, t // pt, pf, pt, c).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(-1, f, t, c) + bias[None, None, None]


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases over norm(x, *moved). [B, L, D] -> [B, L, D].

    Angles as in `rotate`. With `qk_norm` queries and keys are normed by head, so that no score can
    run away (Dehghani et al. 2023, arXiv 2302.05442, section 2).
    """

    heads: int
    attend: Callable
    qk_norm: bool = False
    dtype: Any = jnp.float32
    norm: Callable = identity

    @nn.compact
    def __call__(self, x, angles=None, *moved):
        b, n, d = x.shape
        qkv = DenseAfter(self.norm, 3 * d, self.dtype, name="qkv")(x, *moved)
        q, k, v = jnp.split(qkv.reshape(b, n, 3 * self.heads, d // self.heads), 3, axis=2)
        if self.qk_norm:
            q, k = (
                nn.RMSNorm(dtype=self.dtype, name=f"{name}_norm")(x)
                for name, x in (("q", q), ("k", k))
            )
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return Dense(d, dtype=self.dtype, name="out")(self.attend(q, k, v).reshape(b, n, d))


class CrossAttention(nn.Module):
    """What `heads` heads of `size` numbers read in a context. [B, L, D] -> [B, L, D].

    Zero at initialisation. Queries and keys are normed by head, which also does for the norm that
    would come before: a context is little to read, and few heads of it cost little. A part of it
    that is the same for all items, such as a table of labels, goes through the weights once.
    """

    heads: int
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, context):
        inner = self.heads * self.size
        split = lambda y: y.reshape(*y.shape[:2], -1, self.size)
        q = split(Dense(inner, dtype=self.dtype, name="q")(x))
        kv = Dense(2 * inner, dtype=self.dtype, name="kv")
        parts = [kv(tokens.astype(self.dtype)) for tokens, _ in context]  # [B or 1, S, 2 inner]
        parts = [jnp.broadcast_to(part, (len(x), *part.shape[1:])) for part in parts]
        k, v = jnp.split(split(jnp.concatenate(parts, axis=1)), 2, axis=2)
        mask = jnp.concatenate([mask for _, mask in context], axis=1)
        q, k = (
            nn.RMSNorm(dtype=self.dtype, name=f"{name}_norm")(y) for name, y in (("q", q), ("k", k))
        )
        read = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None])
        out = Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")
        return out(read.reshape(*x.shape[:2], inner))


class Mlp(nn.Module):
    """Dense of norm(x, *moved), GELU, Dense. [B, L, D] -> [B, L, D]."""

    ratio: int
    dtype: Any = jnp.float32
    norm: Callable = identity

    @nn.compact
    def __call__(self, x, *moved):
        wide = self.ratio * x.shape[-1]
        hidden = DenseAfter(self.norm, wide, self.dtype, name="Dense_0")(x, *moved)
        return DenseAfter(nn.gelu, x.shape[-1], self.dtype, name="Dense_1")(hidden)


class SwiGlu(nn.Module):
    """silu(a) * b, Dense (Shazeer 2020, eq. 6); two thirds as wide, so as large as `Mlp`."""

    ratio: int
    dtype: Any = jnp.float32
    norm: Callable = identity

    @nn.compact
    def __call__(self, x, *moved):
        wide = 2 * swiglu_width(self.ratio, x.shape[-1])
        both = DenseAfter(self.norm, wide, self.dtype, name="Dense_0")(x, *moved)
        return DenseAfter(swiglu, x.shape[-1], self.dtype, name="Dense_1")(both)


def swiglu(both):
    """silu(a) * b of rows [a, b].  # [N, 2 W] -> [N, W]"""
    gate, value = jnp.split(both, 2, axis=-1)
    return nn.silu(gate) * value


def swiglu_width(ratio, width):
    """Hidden numbers of a SwiGlu, a multiple of 16."""
    return round(ratio * width * 2 / 3 / 16) * 16


def raw_time(t, width):
    """t itself, for the base's Dense(1 -> width).  # [B] -> [B, 1]"""
    return t[:, None]


def fourier_time(t, width):
    """Sinusoids of 1000 t at log-spaced frequencies (Ho et al. 2020).  # [B] -> [B, width]"""
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(width // 2) / (width // 2))
    angles = 1000.0 * t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Features of t, Dense, SiLU, Dense. [B] -> [B, D]."""

    width: int
    features: Callable

    @nn.compact
    def __call__(self, t):
        hidden = nn.silu(Dense(self.width)(self.features(t, self.width)))
        return Dense(self.width)(hidden)


MLPS = {"gelu": Mlp, "swiglu": SwiGlu}
TIME_FEATURES = {"dense": raw_time, "fourier": fourier_time}
