"""The diffusion transformer: patches, blocks, patches (Peebles & Xie 2022, arXiv 2212.09748)."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from specdiff_jax.models.blocks import BlockConfig, Modulation, Stack
from specdiff_jax.models.conditioning import ConditionEmbedding
from specdiff_jax.models.layers import TIME_FEATURES, Dense, PatchEmbed, PatchUnembed, TimeEmbedding
from specdiff_jax.models.norms import NORMS, ScaleShift
from specdiff_jax.models.positions import axial_angles, patch_grid, sincos


class DiT(nn.Module):
    """A diffusion transformer over spectrogram patches.

    Args of the call:
      x_t: [B, F, T, C], with (F, T, C) == shape.
      t: [B] in [0, 1].
      condition: {kind: value} of the conditioners; None without any.

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
    mlp: str = "gelu"
    norm: str = "layer"
    qk_norm: bool = False
    bottleneck: int | None = None  # width of a first, smaller embedding of each patch
    registers: int = 0  # tokens of no place, to think in (Darcet et al. 2023)
    long_skips: bool = False
    scan: bool = False
    attention: str = "auto"
    remat: str = "none"
    dtype: str = "float32"
    conditioners: tuple = ()  # see conditioning/conditioners.py
    cross_heads: int = 0  # heads of each block that attend to the condition's tokens

    @nn.compact
    def __call__(self, x_t, t, condition=None):
        dtype, grid = jnp.dtype(self.dtype), patch_grid(self.shape, self.patch)
        time = TimeEmbedding(self.width, TIME_FEATURES[self.time_embedding], name="time")(t)
        told = None
        if self.conditioners:
            embedding = (self.conditioners, self.width, self.cross_heads)
            told = ConditionEmbedding(*embedding, name="condition")(condition)
        tokens = self.embedded(x_t, grid, dtype)  # [B, L, D]
        if self.block == "pre_ln":
            tokens += (time if told is None else time + told[0])[:, None].astype(dtype)
        angles = None
        if self.positions == "rotary":
            turned = axial_angles(grid, self.width // self.heads)
            angles = np.pad(turned, ((self.registers, 0), (0, 0)))  # registers are not turned
        style = BlockConfig(
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            mlp=self.mlp,
            norm=self.norm,
            qk_norm=self.qk_norm,
            attention=self.attention,
            cross_heads=self.cross_heads,
            dtype=dtype,
        )
        stack = Stack(self.block, style, self.depth, self.long_skips, self.scan, self.remat)
        nn.share_scope(self, stack)
        features = tuple(x[:, self.registers :] for x in stack(tokens, time, angles, told))

        gated = self.block == "adaln_zero"
        if gated:  # pure noise is to be ignored, which no residual but an endless one could do
            shift, scale = Modulation(2, dtype, name="final_modulation")(time, told)
            moved = [1 + scale, shift]
        else:
            moved = ScaleShift(self.norm, self.width, name="final_norm")()
        patch_out = PatchUnembed(
            self.patch, self.shape, gated, dtype, NORMS[self.norm], name="patch_out"
        )
        return patch_out(features[-1], *moved), features

    def embedded(self, x_t, grid, dtype):
        """Registers, then the patches with their places.  # [B, F, T, C] -> [B, R + L, D]"""
        tokens = PatchEmbed(self.patch, self.bottleneck or self.width, dtype, name="patch_in")(x_t)
        if self.bottleneck:
            tokens = Dense(self.width, dtype=dtype, name="widen")(tokens)
        normal = nn.initializers.normal(0.02)
        if self.positions == "learned":
            tokens += self.param("positions", normal, (1, *tokens.shape[1:])).astype(dtype)
        if self.positions == "sincos":
            tokens += sincos(grid, self.width)[None].astype(dtype)
        if self.registers:
            extra = self.param("registers", normal, (1, self.registers, self.width))
            extra = jnp.broadcast_to(extra, (len(tokens), *extra.shape[1:])).astype(dtype)
            tokens = jnp.concatenate([extra, tokens], axis=1)
        return tokens


def count_tokens(shape, patch):
    """Tokens of one example, registers aside."""
    return math.prod(patch_grid(shape, patch))


def count_flops(model):
    """Multiply-adds x 2 of one example's forward pass: (linear layers, attention products).

    Elementwise work and the embeddings of time and condition are left out, below 1% of either.
    """
    m, patches = model, count_tokens(model.shape, model.patch)
    patch_size = m.patch[0] * m.patch[1] * m.shape[2]
    embed = patch_size * m.width
    if m.bottleneck:
        embed = m.bottleneck * (patch_size + m.width)
    skips = 2 * m.width**2 * ((m.depth - 1) // 2) if m.long_skips else 0
    tokens = patches + m.registers
    blocks = m.depth * (4 + 2 * m.mlp_ratio) * m.width**2 + skips
    # Queries and results of cross-attention; a text's own keys and values are few.
    blocks += m.depth * 2 * m.cross_heads * m.width**2 // m.heads
    linear = tokens * blocks + patches * (embed + patch_size * m.width)
    return 2 * linear, 2 * m.depth * 2 * tokens**2 * m.width
