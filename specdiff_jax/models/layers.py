"""Layers of the network: patches in and out, NormDense, attention, MLPs, the time embedding."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.matmul import dense_dot_general, matmul
from specdiff_jax.models.norms import as_normed
from specdiff_jax.models.positions import rotate

Dense = functools.partial(nn.Dense, dot_general=dense_dot_general)


class NormDense(nn.Module):
    """nn.Dense of norm(x) * scale + shift in one matmul, which keeps x and not the norm of it.

    The backward pass computes the norm again. Plain tokens are not normed.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):  # norms.Normed of [B, L, D], or [B, L, D] -> [B, L, width]
        norm, x, scale_shift = as_normed(x)
        return recompute_dense(self, norm, x, scale_shift)


class ActivationDense(nn.Module):
    """nn.Dense of activation(x) in one matmul, which keeps x and not its activation."""

    activation: Callable  # [B, L, E] -> [B, L, D]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):  # [B, L, E] -> [B, L, width]
        return recompute_dense(self, self.activation, x, ())


def recompute_dense(module, function, x, args):
    """Return nn.Dense of function(x, *args) with the kernel and bias of a compact module.

    See `matmul.matmul` for what is kept.  # [B, L, E] -> [B, L, width]
    """
    inner = jax.eval_shape(function, x, *args).shape[-1]
    kernel = module.param("kernel", nn.initializers.lecun_normal(), (inner, module.width))
    bias = module.param("bias", nn.initializers.zeros, (module.width,)).astype(module.dtype)
    return matmul(x, kernel.astype(module.dtype), function, args) + bias[None, None]


class PatchEmbed(nn.Module):
    """Convolution whose stride is its kernel, as a matmul of patches. [B, F, T, C] -> [B, L, D].

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
        return matmul(patches, weights) + bias[None, None].astype(self.dtype)  # [B, L, D]


class PatchUnembed(nn.Module):
    """Transposed convolution of tokens or of a norm of them, its stride its kernel.

    [B, L, D] -> [B, F, T, C] float32. Same parameters and result as nn.ConvTranspose(C, patch,
    strides=patch, transpose_kernel=True).
    """

    patch: tuple[int, int]
    shape: tuple[int, int, int]  # (F, T, C)
    zero_init: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):  # norms.Normed of [B, L, D], or [B, L, D]
        norm, tokens, scale_shift = as_normed(x)
        (pf, pt), (f, t, c), width = self.patch, self.shape, tokens.shape[-1]
        normal = nn.initializers.lecun_normal(in_axis=3, out_axis=(0, 1, 2))
        init = nn.initializers.zeros if self.zero_init else normal
        kernel = self.param("kernel", init, (pf, pt, c, width))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        weights = kernel.reshape(-1, width).T.astype(self.dtype)  # [D, P]
        patches = matmul(tokens.astype(self.dtype), weights, norm, scale_shift)  # [B, L, P]
        patches = patches.astype(jnp.float32).reshape(-1, f // pf, t // pt, pf, pt, c)
        x = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, f, t, c)
        return x + bias[None, None, None]  # [B, F, T, C]


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases. [B, L, D], or a norms.Normed of it -> [B, L, D].

    Angles are those of `rotate`. With `qk_norm` queries and keys are normed by head, which bounds
    the scores (Dehghani et al. 2023, arXiv 2302.05442, section 2).
    """

    heads: int
    attend: Callable  # a value of attention.ATTENTIONS
    qk_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, angles=None):
        b, n, d = x.shape
        qkv = NormDense(3 * d, self.dtype, name="qkv")(x)  # [B, L, 3 D]
        q, k, v = jnp.split(qkv.reshape(b, n, 3 * self.heads, d // self.heads), 3, axis=2)
        if self.qk_norm:
            q = nn.RMSNorm(dtype=self.dtype, name="q_norm")(q)  # [B, L, H, d]
            k = nn.RMSNorm(dtype=self.dtype, name="k_norm")(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        out = self.attend(q, k, v).reshape(b, n, d)
        return Dense(d, dtype=self.dtype, name="out")(out)  # [B, L, D]


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a context. [B, L, D] -> [B, L, D], zero at initialization.

    Queries and keys are normed by head, which stands for a norm of x. A part of the context that is
    the same for all items, such as a table of labels, is multiplied once for all.
    """

    heads: int
    head_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, context):  # context: (tokens [B or 1, S, E], mask [B, S]) of each part
        inner = self.heads * self.head_size
        split_heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_size)
        q = split_heads(Dense(inner, dtype=self.dtype, name="q")(x))  # [B, L, H, d]
        kv = Dense(2 * inner, dtype=self.dtype, name="kv")
        parts = [kv(tokens.astype(self.dtype)) for tokens, _ in context]  # [B or 1, S, 2 inner]
        parts = [jnp.broadcast_to(part, (len(x), *part.shape[1:])) for part in parts]
        k, v = jnp.split(split_heads(jnp.concatenate(parts, axis=1)), 2, axis=2)  # [B, S, H, d]
        mask = jnp.concatenate([mask for _, mask in context], axis=1)  # [B, S]
        q = nn.RMSNorm(dtype=self.dtype, name="q_norm")(q)
        k = nn.RMSNorm(dtype=self.dtype, name="k_norm")(k)
        out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None])  # [B, L, H, d]
        zeros = nn.initializers.zeros
        dense = Dense(x.shape[-1], kernel_init=zeros, dtype=self.dtype, name="out")
        return dense(out.reshape(*x.shape[:2], inner))  # [B, L, D]


class Mlp(nn.Module):
    """Dense, GELU, Dense. [B, L, D], or a norms.Normed of it -> [B, L, D]."""

    ratio: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        hidden = NormDense(self.ratio * width, self.dtype, name="Dense_0")(x)
        return ActivationDense(nn.gelu, width, self.dtype, name="Dense_1")(hidden)


class SwiGlu(nn.Module):
    """Dense, silu(a) * b, Dense (Shazeer 2020, eq. 6). [B, L, D], or a Normed -> [B, L, D].

    It is two thirds as wide as `Mlp`, so it has as many parameters.
    """

    ratio: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        hidden = NormDense(2 * swiglu_width(self.ratio, width), self.dtype, name="Dense_0")(x)
        return ActivationDense(swiglu, width, self.dtype, name="Dense_1")(hidden)


def swiglu(x):
    """Return silu(a) * b of rows [a, b].  # [N, 2 W] -> [N, W]"""
    gate, value = jnp.split(x, 2, axis=-1)
    return nn.silu(gate) * value


def swiglu_width(ratio, width):
    """Return the hidden width of a SwiGlu, a multiple of 16."""
    return round(ratio * width * 2 / 3 / 16) * 16


def raw_time(t, width):
    """Return t itself, for the base's Dense(1 -> width).  # [B] -> [B, 1]"""
    return t[:, None]


def fourier_time(t, width):
    """Return sinusoids of 1000 t, log-spaced frequencies (Ho et al. 2020).  # [B] -> [B, width]"""
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
