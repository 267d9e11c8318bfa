"""The diffusion transformer: patches, blocks, patches (Peebles & Xie 2022, arXiv 2212.09748)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.layers import (
    TIME_FEATURES,
    Mlp,
    PatchIn,
    PatchOut,
    SelfAttention,
    TimeEmbedding,
)
from specdiff_jax.models.positions import axial_angles


class PreLnBlock(nn.Module):
    """x + attention(LN(x)), then x + mlp(LN(x)); time is already in the tokens."""

    heads: int
    mlp_ratio: int
    attention: str
    dtype: Any

    @nn.compact
    def __call__(self, x, time, angles):  # [B, L, D], [B, D], None or [L, d / 2]
        attend = ATTENTIONS[self.attention]
        normed = nn.LayerNorm(dtype=self.dtype)(x)
        x = x + SelfAttention(self.heads, attend, self.dtype)(normed, angles)
        return x + Mlp(self.mlp_ratio, self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))


class AdaLnZeroBlock(nn.Module):
    """Time shifts, scales and gates each branch; the identity at initialisation (DiT, 3.2)."""

    heads: int
    mlp_ratio: int
    attention: str
    dtype: Any

    @nn.compact
    def __call__(self, x, time, angles):  # [B, L, D], [B, D], None or [L, d / 2]
        modulation = nn.Dense(6 * x.shape[-1], kernel_init=nn.initializers.zeros)(nn.silu(time))
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            part.astype(self.dtype) for part in jnp.split(modulation[:, None], 6, axis=-1)
        )
        normed = nn.LayerNorm(use_bias=False, use_scale=False, dtype=self.dtype)
        attention = SelfAttention(self.heads, ATTENTIONS[self.attention], self.dtype)
        x = x + gate_1 * attention(normed(x) * (1 + scale_1) + shift_1, angles)
        mlp = Mlp(self.mlp_ratio, self.dtype)
        return x + gate_2 * mlp(normed(x) * (1 + scale_2) + shift_2)


class DiT(nn.Module):
    """A diffusion transformer over spectrogram patches.

    Args of the call:
      x_t: [B, F, T, C], with (F, T, C) == shape.
      t: [B] in [0, 1].
      condition: None; reserved for labels and text.

    Returns:
      output [B, F, T, C] float32, and features: the tokens after each block, [B, L, D] each.
    """

    shape: tuple[int, int, int]  # (F, T, C)
    patch: tuple[int, int]  # (bins, frames)
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    block: str
    positions: str
    time_embedding: str
    attention: str
    remat: bool
    dtype: str

    @nn.compact
    def __call__(self, x_t, t, condition=None):
        dtype = jnp.dtype(self.dtype)
        time = TimeEmbedding(self.width, TIME_FEATURES[self.time_embedding], name="time")(t)
        tokens = PatchIn(self.patch, self.width, dtype, name="patch_in")(x_t)  # [B, L, D]
        angles = None
        if self.positions == "rotary":
            grid = grid_of(self.shape, self.patch)
            angles = axial_angles(grid, self.width // self.heads)
        else:
            table = nn.initializers.normal(0.02)
            tokens += self.param("positions", table, (1, *tokens.shape[1:])).astype(dtype)
        if self.block == "pre_ln":
            tokens += time[:, None].astype(dtype)

        block = nn.remat(BLOCKS[self.block]) if self.remat else BLOCKS[self.block]
        features = []
        for index in range(self.depth):
            options = (self.heads, self.mlp_ratio, self.attention, dtype)
            tokens = block(*options, name=f"block_{index}")(tokens, time, angles)
            features.append(tokens)

        tokens = nn.LayerNorm(dtype=dtype, name="final_norm")(tokens)
        zero_init = self.block == "adaln_zero"
        output = PatchOut(self.patch, self.shape, zero_init, dtype, name="patch_out")(tokens)
        return output, tuple(features)


def grid_of(shape, patch):
    """(rows, columns) of the patches of one example."""
    return shape[0] // patch[0], shape[1] // patch[1]


def num_tokens(shape, patch):
    """Tokens of one example."""
    return math.prod(grid_of(shape, patch))


def forward_flops(shape, patch, width, depth, mlp_ratio):
    """Multiply-adds x 2 of one example's forward pass: (linear layers, attention products).

    Elementwise work and the time embedding are left out, below 1% of either.
    """
    tokens, patch_size = num_tokens(shape, patch), patch[0] * patch[1] * shape[2]
    linear = depth * (4 + 2 * mlp_ratio) * width**2 + 2 * patch_size * width
    return 2 * tokens * linear, 2 * depth * 2 * tokens**2 * width


BLOCKS = {"pre_ln": PreLnBlock, "adaln_zero": AdaLnZeroBlock}
