"""The kinds of condition. A Condition is {kind: value}, its values pytrees of [B, ...] arrays.

A conditioner is a frozen dataclass in a file of its own and an entry of CONDITIONERS. Its `kind` is
the field of config.condition that turns it on, its `field` the field of config.sample and of a
Prompt that sets it. It has

  check(config) -> {field of config.condition that it uses: whether it must be set}
  fit(config, songs, encoder) -> the conditioner, None where the songs have no such condition
  table(songs, features), draw(table, batch, key): the value of any crop of any song
  null(batch), dropout(value, dropout): the value of no condition, of part of one
  vector(module, value, width) -> [B, width], added to the embedding of time
  tokens(module, value, width) -> (tokens [B or 1, S, width], mask [B, S]) for cross-attention
  token_width: of its tokens, None where any will do
  parse(text) -> (request, ((weight, request), ...)), encode(request or None, texts) -> one item
  describe() -> the condition in words

The order of CONDITIONERS is that of the sums, the context and the random keys.
"""

import jax

from specdiff_jax.conditioning.labels import Labels
from specdiff_jax.conditioning.scalars import Scalars
from specdiff_jax.conditioning.text import Text


def null_condition(conditioners, batch):
    """Return the Condition of `batch` items without any; None for a model that takes none."""
    return {c.kind: c.null(batch) for c in conditioners} or None


def drop_conditions(conditioners, condition, key, **rates):
    """Return a Condition with parts dropped at random, as guidance needs; rates as in Dropout."""
    size = len(jax.tree.leaves(condition)[0])
    dropout = Dropout(key, size, 2 + 2 * len(conditioners), **rates)
    return {c.kind: c.dropout(condition[c.kind], dropout) for c in conditioners}


class Dropout:
    """Random masks, True where a condition is kept. Every mask has a key of its own.

    Attributes:
      items: [B, 1], for all conditions of an item.
    """

    def __init__(self, key, size, masks, everything, part, each):
        """Draw the masks of items.

        Args:
          masks: that can be drawn.
          everything: probability that an item has no condition at all, for guidance (Ho & Salimans
            2022, arXiv 2207.12598, algorithm 1).
          part: probability, beside that, that it has none of one kind.
          each: every item draws a rate up to this, at which its elements are dropped, so that the
            model is trained on few elements as well as on many.
        """
        self.size, self.part = size, part
        self.keys = iter(jax.random.split(key, masks))
        self.items = self.keep(everything, (size, 1))
        self.rate = each * jax.random.uniform(next(self.keys), (size, 1))

    def keep(self, rate, shape):
        """Return a mask that is False at a rate."""
        return jax.random.bernoulli(next(self.keys), 1 - rate, shape)

    def kind(self):
        """Return the mask of one kind of condition.  # [B, 1]"""
        return self.keep(self.part, (self.size, 1))

    def elements(self, shape):
        """Return the mask of the elements of one kind.  # [B, S]"""
        return self.keep(self.rate, shape)


CONDITIONERS = {"labels": Labels, "scalars": Scalars, "text": Text}
