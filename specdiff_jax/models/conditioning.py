"""The embedding of a Condition: what each conditioner returns, summed and side by side."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class ConditionEmbedding(nn.Module):
    """A Condition as a vector, added to the time embedding, and as context for cross-attention.

    Returns:
      vector [B, D], and the parts of the context, each (tokens [B or 1, S, E], mask [B, S]); no
      parts without cross_heads. The first part is one learned token that is never masked, so that
      attention is defined without any condition.
    """

    conditioners: tuple  # see conditioning/conditioners.py
    width: int  # D
    cross_heads: int = 0  # heads of each block that attend to the context

    @nn.compact
    def __call__(self, condition):
        # Vectors first, then tokens: the order of parameters decides their initial values.
        vector = jnp.zeros((1, self.width))
        for c in self.conditioners:
            vector += c.vector(self, condition[c.kind], self.width)
        if not self.cross_heads:
            return vector, ()
        width = next((c.token_width for c in self.conditioners if c.token_width), self.width)  # E
        no_token = self.param("no_token", nn.initializers.normal(0.02), (1, width))
        batch = len(jax.tree.leaves(condition)[0])
        parts = [(no_token[None], jnp.ones((batch, 1), bool))]
        for c in self.conditioners:
            parts.append(c.tokens(self, condition[c.kind], width))
        return vector, tuple(parts)
