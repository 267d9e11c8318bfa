"""The diffusion transformer: patches, blocks, patches (Peebles & Xie 2022, arXiv 2212.09748)."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from specdiff_jax.models.blocks import BlockConfig, Modulation, Stack
from specdiff_jax.models.conditioning import ConditionEmbedding
from specdiff_jax.models.layers import TIME_FEATURES, Dense, PatchEmbed, PatchUnembed, TimeEmbedding
from specdiff_jax.models.norms import Norm
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
    registers: int = 0  # extra tokens without a patch (Darcet et al. 2023)
    long_skips: bool = False
    scan: bool = False
    attention: str = "auto"
    remat: str = "none"
    dtype: str = "float32"
    conditioners: tuple = ()  # see conditioning/conditioners.py
    cross_heads: int = 0  # heads of each block that attend to the condition's tokens

    @nn.compact
    def __call__(self, x_t, t, condition=None):
        time = TimeEmbedding(self.width, TIME_FEATURES[self.time_embedding], name="time")(t)
        condition, context = self.embed_condition(condition)  # None or [B, D], parts
        tokens = self.embed_patches(x_t)  # [B, R + L, D]
        if self.block == "pre_ln":
            vector = time if condition is None else time + condition  # [B, D]
            tokens += vector[:, None].astype(tokens.dtype)
        features = self.run_blocks(tokens, time, condition, context)  # depth x [B, R + L, D]
        features = tuple(x[:, self.registers :] for x in features)  # depth x [B, L, D]
        return self.unembed(features[-1], time, condition), features

    def embed_condition(self, condition):
        """Return a vector and the parts of the context; None and () without conditioners."""
        if not self.conditioners:
            return None, ()
        embed = ConditionEmbedding(
            self.conditioners, self.width, self.cross_heads, name="condition"
        )
        return embed(condition)

    def embed_patches(self, x_t):
        """Return registers, then patches with their positions.  # [B, F, T, C] -> [B, R + L, D]"""
        dtype = jnp.dtype(self.dtype)
        tokens = PatchEmbed(self.patch, self.bottleneck or self.width, dtype, name="patch_in")(x_t)
        if self.bottleneck:
            tokens = Dense(self.width, dtype=dtype, name="widen")(tokens)  # [B, L, D]
        normal = nn.initializers.normal(0.02)
        if self.positions == "learned":
            tokens += self.param("positions", normal, (1, *tokens.shape[1:])).astype(dtype)
        if self.positions == "sincos":
            tokens += sincos(patch_grid(self.shape, self.patch), self.width)[None].astype(dtype)
        if self.registers:
            extra = self.param("registers", normal, (1, self.registers, self.width))
            extra = jnp.broadcast_to(extra, (len(tokens), *extra.shape[1:])).astype(dtype)
            tokens = jnp.concatenate([extra, tokens], axis=1)
        return tokens

    def run_blocks(self, tokens, time, condition, context):
        """Return the tokens after each block.  # [B, R + L, D] -> depth x [B, R + L, D]"""
        config = BlockConfig(
            width=self.width,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            mlp=self.mlp,
            norm=self.norm,
            qk_norm=self.qk_norm,
            attention=self.attention,
            cross_heads=self.cross_heads,
            dtype=jnp.dtype(self.dtype),
        )
        stack = Stack(self.block, config, self.depth, self.long_skips, self.scan, self.remat)
        nn.share_scope(self, stack)
        return stack(tokens, time, condition, context, self.rotary_angles())

    def rotary_angles(self):
        """Return [R + L, d / 2] angles, zero for registers; None without rotary positions."""
        if self.positions != "rotary":
            return None
        angles = axial_angles(patch_grid(self.shape, self.patch), self.width // self.heads)
        return np.pad(angles, ((self.registers, 0), (0, 0)))

    def unembed(self, tokens, time, condition):
        """Return the output of the last tokens.  # [B, L, D] -> [B, F, T, C]"""
        dtype, norm = jnp.dtype(self.dtype), Norm(self.norm, name="final_norm")
        modulated = self.block == "adaln_zero"
        if modulated:  # so that the output can vanish at pure noise, whatever the tokens hold
            shift, scale = Modulation(2, dtype, name="final_modulation")(time, condition)
            normed = norm(tokens, 1 + scale, shift)
        else:
            normed = norm(tokens)
        return PatchUnembed(self.patch, self.shape, modulated, dtype, name="patch_out")(normed)


def count_tokens(shape, patch):
    """Return the number of patches of one example."""
    return math.prod(patch_grid(shape, patch))


def count_flops(model):
    """Return the FLOPs of one example's forward pass: (linear layers, attention products).

    A multiply-add counts as two. Elementwise work and the embeddings of time and condition, below
    1% of either, are not counted.
    """
    m, patches = model, count_tokens(model.shape, model.patch)
    patch_size = m.patch[0] * m.patch[1] * m.shape[2]
    embed = patch_size * m.width
    if m.bottleneck:
        embed = m.bottleneck * (patch_size + m.width)
    skips = 2 * m.width**2 * ((m.depth - 1) // 2) if m.long_skips else 0
    tokens = patches + m.registers
    blocks = m.depth * (4 + 2 * m.mlp_ratio) * m.width**2 + skips
    # Queries and outputs of cross-attention; keys and values of a context are few.
    blocks += m.depth * 2 * m.cross_heads * m.width**2 // m.heads
    linear = tokens * blocks + patches * (embed + patch_size * m.width)
    return 2 * linear, 2 * m.depth * 2 * tokens**2 * m.width
