"""What reads a trunk's tokens: attention pooling, then one linear layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from specdiff_jax.models.layers import Dense


class PooledHead(nn.Module):
    """Weighted means of the tokens, each by a learned query, to a number for each tag.

    (Multi-head attention pooling with one linear key, as Lee et al. 2019, arXiv 1810.00825, eq. 11,
    without values of its own.) A query of zero weighs all tokens alike. Tokens are brought to zero
    mean and unit variance first, without parameters: blocks differ in scale by tens.

    Args of the call:
      tokens: [B, L, D].

    Returns:
      logits [B, V] float32.
    """

    tags: int  # V
    queries: int  # Q

    @nn.compact
    def __call__(self, tokens):
        width = tokens.shape[-1]
        tokens = nn.LayerNorm(use_bias=False, use_scale=False)(tokens.astype(jnp.float32))
        query = self.param("query", nn.initializers.normal(0.02), (self.queries, width))
        scores = jnp.einsum("bld,qd->bql", tokens, query) / jnp.sqrt(width)
        weights = jax.nn.softmax(scores, axis=-1)  # [B, Q, L]
        pooled = jnp.einsum("bql,bld->bqd", weights, tokens)
        return Dense(self.tags, name="tags")(pooled.reshape(len(pooled), -1))
