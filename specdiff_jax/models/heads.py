"""Heads on the tokens of a backbone: attention pooling, then one linear layer; and on texts."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.layers import Dense
from specdiff_jax.models.norms import layer_norm


class TagHead(nn.Module):
    """Weighted means of the tokens, each by a trainable query, then a logit for each tag.

    (Attention pooling with the tokens as keys and values, as Lee et al. 2019, arXiv 1810.00825,
    eq. 11.) A query of zero gives all tokens the same weight. Tokens are first normalized to mean
    zero and variance one, without parameters: blocks differ in scale by a factor of tens.

    Args of the call:
      tokens: [B, L, D].

    Returns:
      logits [B, V] float32.
    """

    tags: int  # V
    queries: int  # Q

    @nn.compact
    def __call__(self, tokens):
        return Dense(self.tags, name="tags")(attention_pool(self, tokens, self.queries))


class EmbeddingHead(nn.Module):
    """Weighted means of the tokens as in `TagHead`, then a linear layer to a vector of length one.

    Args of the call:
      tokens: [B, L, D].

    Returns:
      [B, E] float32 of length one.
    """

    size: int  # E
    queries: int  # Q

    @nn.compact
    def __call__(self, tokens):
        return l2_normalize(
            Dense(self.size, name="projection")(attention_pool(self, tokens, self.queries))
        )


class TextHead(nn.Module):
    """Pooled text features through a linear layer to length one.  # [B, P] -> [B, E]"""

    size: int  # E

    @nn.compact
    def __call__(self, pooled):
        return l2_normalize(Dense(self.size, name="projection")(pooled))


def attention_pool(module, tokens, queries):
    """Return tokens [B, L, D] pooled by queries, a parameter of a compact module.  # [B, Q * D]"""
    width = tokens.shape[-1]
    tokens = layer_norm(tokens.astype(jnp.float32), scale=1.0, shift=0.0)
    query = module.param("query", nn.initializers.normal(0.02), (queries, width))
    scores = jnp.einsum("bld,qd->bql", tokens, query) / jnp.sqrt(width)
    weights = jax.nn.softmax(scores, axis=-1)  # [B, Q, L]
    means = jnp.einsum("bql,bld->bqd", weights, tokens)
    return means.reshape(len(means), -1)


def l2_normalize(vectors):
    """Of length one, and zero where there is nothing, with a gradient everywhere.  # [B, E]"""
    square = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
