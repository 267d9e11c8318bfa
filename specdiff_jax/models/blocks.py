"""Transformer blocks, [B, L, D] -> [B, L, D], and the stack that runs them."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.layers import MLPS, CrossAttention, SelfAttention
from specdiff_jax.models.matmul import ATTENTION_OUTPUT, MATMUL_OUTPUT
from specdiff_jax.models.norms import NAMES, Norm

CONDITION_SCALE = 0.1  # of the condition vector where it modulates


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The options that all blocks of a model share, and makers of a block's layers."""

    width: int
    heads: int
    mlp_ratio: int
    mlp: str  # a key of layers.MLPS
    norm: str  # a key of norms.NORMS
    qk_norm: bool
    attention: str  # a key of attention.ATTENTIONS
    cross_heads: int  # as wide as the others; see layers.CrossAttention
    dtype: Any

    def make_norms(self):
        """Return the norms before the attention and before the MLP."""
        return [Norm(self.norm, name=f"{NAMES[self.norm]}_{index}") for index in range(2)]

    def make_attention(self):
        """Return the self-attention."""
        return SelfAttention(self.heads, ATTENTIONS[self.attention], self.qk_norm, self.dtype)

    def make_mlp(self):
        """Return the MLP."""
        return MLPS[self.mlp](self.mlp_ratio, self.dtype)

    def add_context(self, x, context):
        """Return x + cross-attention(x, context); x itself without a context.  # [B, L, D]"""
        if not context:
            return x
        head_size = self.width // self.heads
        return x + CrossAttention(self.cross_heads, head_size, self.dtype, name="cross")(x, context)


class PreLnBlock(nn.Module):
    """The pre-norm block of a transformer; time and condition are in the tokens."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x, time, condition, context, angles):  # [B, L, D], [B, D] x 2, see Stack
        norm_1, norm_2 = self.config.make_norms()
        attn, mlp = self.config.make_attention(), self.config.make_mlp()
        x = x + attn(norm_1(x), angles)  # [B, L, D]
        x = self.config.add_context(x, context)
        return x + mlp(norm_2(x))


class Modulation(nn.Module):
    """`count` vectors, linear in time and condition and zero at initialization (DiT, section 3.2).

    Time is brought to unit size first: else it grows where it gates and outweighs the condition.
    The condition has its own weights and is scaled down: Adam moves weights as far for a gradient
    of noise as for one of signal, and in most steps labels carry little signal.
    """

    count: int
    dtype: Any

    @nn.compact
    def __call__(self, time, condition):  # [B, D], None or [B, D] -> count x [B, 1, D]
        zeros, size = nn.initializers.zeros, self.count * time.shape[-1]
        time = nn.RMSNorm(use_scale=False, name="unit")(time)
        out = nn.Dense(size, kernel_init=zeros, name="time")(nn.silu(time))
        if condition is not None:
            condition = CONDITION_SCALE * condition
            out += nn.Dense(size, use_bias=False, kernel_init=zeros, name="condition")(condition)
        return [part.astype(self.dtype) for part in jnp.split(out[:, None], self.count, axis=-1)]


class AdaLnZeroBlock(nn.Module):
    """Time and condition shift, scale and gate each branch; the identity at initialization.

    (Peebles & Xie 2022, arXiv 2212.09748, section 3.2, adaLN-Zero.)
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, x, time, condition, context, angles):  # [B, L, D], [B, D] x 2, see Stack
        norm_1, norm_2 = self.config.make_norms()
        attn, mlp = self.config.make_attention(), self.config.make_mlp()
        modulation = Modulation(6, self.config.dtype, name="modulation")(time, condition)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation  # [B, 1, D] each
        x = x + gate_1 * attn(norm_1(x, 1 + scale_1, shift_1), angles)  # [B, L, D]
        x = self.config.add_context(x, context)
        return x + gate_2 * mlp(norm_2(x, 1 + scale_2, shift_2))


class Stack(nn.Module):
    """`depth` blocks; returns the tokens after each.  # [B, L, D] -> depth x [B, L, D]

    Args of the call:
      tokens: [B, L, D]; time: [B, D]; condition: None or [B, D].
      context: parts (tokens [B or 1, S, E], mask [B, S]) for cross-attention, () without.
      angles: None or [L, d / 2], see positions.rotate.
    """

    block: str  # a key of BLOCKS
    config: BlockConfig
    depth: int
    long_skips: bool  # blocks of the second half also get the tokens after their mirror images in
    # the first half (Bao et al. 2022, arXiv 2209.12152, figure 1)
    scan: bool  # one compiled body for all blocks, with stacked parameters
    remat: str  # a key of REMATS

    @nn.compact
    def __call__(self, tokens, time, condition, context, angles):
        block = apply_remat(BLOCKS[self.block], self.remat, self.scan)
        if self.scan:
            return self.scan_blocks(block, tokens, time, condition, context, angles)
        features = []
        for index in range(self.depth):
            mirror = self.depth - 1 - index
            if self.long_skips and mirror < index - 1:  # the nearest gave these very tokens
                both = jnp.concatenate([tokens, features[mirror]], axis=-1)  # [B, L, 2 D]
                skip = nn.Dense(tokens.shape[-1], dtype=self.config.dtype, name=f"skip_{index}")
                tokens = skip(both)
            block_i = block(self.config, name=f"block_{index}")
            tokens = block_i(tokens, time, condition, context, angles)  # [B, L, D]
            features.append(tokens)
        return tuple(features)

    def scan_blocks(self, block, tokens, *inputs):
        """Return the tokens after each block, by one nn.scan."""

        def body(block, tokens, _):
            tokens = block(tokens, *inputs)
            return tokens, tokens

        split = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        scan = nn.scan(body, length=self.depth, **split)
        return tuple(scan(block(self.config, name="blocks"), tokens, None)[1])


BLOCKS = {"pre_ln": PreLnBlock, "adaln_zero": AdaLnZeroBlock}


def save_named(*names):
    """Return a remat policy that saves arrays of these names and the output of cuDNN attention."""
    named = jax.checkpoint_policies.save_only_these_names(*names)
    cudnn = lambda primitive, *_, **__: primitive.name.startswith("dot_product_attention_fwd")
    return jax.checkpoint_policies.save_from_both_policies(named, cudnn)


REMATS = {  # what is saved for the backward pass
    "none": None,  # all
    "dots": save_named(MATMUL_OUTPUT, ATTENTION_OUTPUT),  # outputs of linear layers and attention
    "attention": save_named(ATTENTION_OUTPUT),  # outputs of attention, and the input of each block
    "block": jax.checkpoint_policies.nothing_saveable,  # the input of each block
}


def apply_remat(block, remat, scan):
    """Return a block class whose backward pass recomputes what REMATS[remat] does not save."""
    if REMATS[remat] is None:
        return block
    # Without a loop around it XLA would merge the recomputation with the first computation.
    return nn.remat(block, prevent_cse=not scan, policy=REMATS[remat])
