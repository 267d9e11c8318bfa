"""Transformer blocks, [B, L, D] -> [B, L, D], and how many of them are run."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.layers import MLPS, CrossAttention, SelfAttention
from specdiff_jax.models.matmul import ATTENTION_OUTPUT, MATMUL_OUTPUT
from specdiff_jax.models.norms import NAMES, NORMS, ScaleShift


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all blocks of a model have in common."""

    heads: int
    mlp_ratio: int
    mlp: str  # a key of layers.MLPS
    norm: str  # a key of norms.NORMS
    qk_norm: bool
    attention: str  # a key of attention.ATTENTIONS
    cross_heads: int  # of as many numbers as the others; see layers.CrossAttention
    dtype: Any

    def self_attention(self):
        attend, norm = ATTENTIONS[self.attention], NORMS[self.norm]
        return SelfAttention(self.heads, attend, self.qk_norm, self.dtype, norm)

    def with_context(self, x, told):
        """x, and what its tokens read in the context; x itself where there is none."""
        if told is None or not told[1]:
            return x
        context = told[1]
        size = x.shape[-1] // self.heads
        return x + CrossAttention(self.cross_heads, size, self.dtype, name="cross")(x, context)

    def feed_forward(self):
        return MLPS[self.mlp](self.mlp_ratio, self.dtype, NORMS[self.norm])

    def learned(self, x, index):
        """What moves the norm of that number of a block where time does not."""
        return ScaleShift(self.norm, x.shape[-1], name=f"{NAMES[self.norm]}_{index}")()


CONDITION_SCALE = 0.1  # size of what is told where it modulates


class PreLnBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); time and what is told are in the tokens."""

    style: BlockConfig

    @nn.compact
    def __call__(self, x, time, angles, told):  # [B, L, D], [B, D], None or [L, d / 2]
        s = self.style
        x = x + s.self_attention()(x, angles, *s.learned(x, 0))
        x = s.with_context(x, told)
        return x + s.feed_forward()(x, *s.learned(x, 1))


class Modulation(nn.Module):
    """`count` vectors that time and what is told move layers by, zero at initialisation.

    Time is brought to unit size first: else it grows where it gates, until nothing but it is heard.
    What is told has weights of its own, and is quiet: Adam moves weights as far for a gradient of
    noise as for one of signal, and labels say little in most steps.

    [B, D], told -> count x [B, 1, D].
    """

    count: int
    dtype: Any

    @nn.compact
    def __call__(self, time, told):
        zeros, size = nn.initializers.zeros, self.count * time.shape[-1]
        time = nn.RMSNorm(use_scale=False, name="unit")(time)
        moved = nn.Dense(size, kernel_init=zeros, name="time")(nn.silu(time))
        if told is not None:
            quiet = CONDITION_SCALE * told[0]
            moved += nn.Dense(size, use_bias=False, kernel_init=zeros, name="told")(quiet)
        return [part.astype(self.dtype) for part in jnp.split(moved[:, None], self.count, axis=-1)]


class AdaLnZeroBlock(nn.Module):
    """Time shifts, scales and gates each branch; the identity at initialisation (DiT, 3.2)."""

    style: BlockConfig

    @nn.compact
    def __call__(self, x, time, angles, told):  # [B, L, D], [B, D], None or [L, d / 2]
        s = self.style
        moved = Modulation(6, s.dtype, name="modulation")(time, told)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = moved
        x = x + gate_1 * s.self_attention()(x, angles, 1 + scale_1, shift_1)
        x = s.with_context(x, told)
        return x + gate_2 * s.feed_forward()(x, 1 + scale_2, shift_2)


class Stack(nn.Module):
    """`depth` blocks; returns the tokens after each.  # [B, L, D] -> depth x [B, L, D]

    `long_skips`: the blocks of the second half also see the tokens that their mirror images in the
    first half gave (Bao et al. 2022, arXiv 2209.12152, figure 1). `scan`: one compiled body for all
    blocks, parameters stacked. `remat`: see REMATS.
    """

    block: str
    style: BlockConfig
    depth: int
    long_skips: bool
    scan: bool
    remat: str

    @nn.compact
    def __call__(self, tokens, time, angles, told=None):
        block = apply_remat(BLOCKS[self.block], self.remat, self.scan)
        if self.scan:
            return self.scanned(block, tokens, time, angles, told)
        features = []
        for index in range(self.depth):
            mirror = self.depth - 1 - index
            if self.long_skips and mirror < index - 1:  # the nearest gave these very tokens
                both = jnp.concatenate([tokens, features[mirror]], axis=-1)
                join = nn.Dense(tokens.shape[-1], dtype=self.style.dtype, name=f"skip_{index}")
                tokens = join(both)
            tokens = block(self.style, name=f"block_{index}")(tokens, time, angles, told)
            features.append(tokens)
        return tuple(features)

    def scanned(self, block, tokens, time, angles, told):
        def one(block, tokens, _):
            tokens = block(tokens, time, angles, told)
            return tokens, tokens

        split = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        scan = nn.scan(one, length=self.depth, **split)
        return tuple(scan(block(self.style, name="blocks"), tokens, None)[1])


BLOCKS = {"pre_ln": PreLnBlock, "adaln_zero": AdaLnZeroBlock}


def save_named(*names):
    """A policy that keeps what has one of the names, and what cuDNN's attention gave."""
    named = jax.checkpoint_policies.save_only_these_names(*names)
    cudnn = lambda primitive, *_, **__: primitive.name.startswith("dot_product_attention_fwd")
    return jax.checkpoint_policies.save_from_both_policies(named, cudnn)


REMATS = {  # what is kept for the backward pass
    "none": None,  # all
    "dots": save_named(
        MATMUL_OUTPUT, ATTENTION_OUTPUT
    ),  # results of linear layers and attention, not what is between
    "attention": save_named(ATTENTION_OUTPUT),  # results of attention, and what enters each block
    "block": jax.checkpoint_policies.nothing_saveable,  # what enters each block
}


def apply_remat(block, remat, scan):
    """A block class whose backward pass recomputes what REMATS[remat] does not keep."""
    if REMATS[remat] is None:
        return block
    # Without a loop around it XLA would find the recomputation and merge it with the first.
    return nn.remat(block, prevent_cse=not scan, policy=REMATS[remat])
