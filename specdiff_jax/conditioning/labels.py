"""The condition of a song's labels, any number of them: "instrument:flute", "slow"."""

import collections
import dataclasses
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning.label_names import find_label

TERM = re.compile(r"(?P<sign>[+-])?\s*(?:(?P<factor>\d+(?:\.\d+)?)\s*\*)?\s*(?P<label>.+)")
SEPARATOR = re.compile(r"[,;]|\s+(?=[+-]|\d+(?:\.\d+)?\s*\*)")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of a vocabulary. A value is [B, V] float32, 1 where an item has the label."""

    kind: ClassVar[str] = "labels"
    field: ClassVar[str] = "labels"  # of a Prompt
    token_width: ClassVar[None] = None

    names: tuple[str, ...]  # V, in the order of the embedding table

    @classmethod
    def check(cls, config):
        """Return {field of config.condition that labels use: whether it must be set}."""
        return {"min_songs": True, "label_balance": False, "modality_dropout": True}

    @classmethod
    def fit(cls, config, songs, encoder):
        """Return the Labels of the training songs, None where the songs have none."""
        names = list_labels(songs, config.condition.min_songs)
        return cls(names) if names else None

    def describe(self):
        """Return the labels in words."""
        return "labels: " + ", ".join(self.names)

    # ---- of songs

    def table(self, songs, features):
        """Return the labels of every song.  # [S, V] bool"""
        return label_table(songs, self.names)

    def draw(self, table, batch, key):
        """Return the labels of the songs of a Batch."""
        return table[batch.song].astype(jnp.float32)

    # ---- in the network

    def null(self, batch):
        """Return the value of `batch` items without a condition."""
        return jnp.zeros((batch, len(self.names)))

    def dropout(self, value, dropout):
        """Return the value with labels dropped at random."""
        return value * (dropout.items & dropout.kind() & dropout.elements(value.shape))

    def vector(self, module, value, width):
        """Return the sum of the labels' embeddings.  # [B, V] -> [B, D]"""
        init = jax.nn.initializers.normal(0.3)  # about one for the sum of a song's ten labels
        return value @ module.param("labels", init, (len(self.names), width))

    def tokens(self, module, value, width):
        """Return (a token a label [1, V, E], mask [B, V])."""
        init = jax.nn.initializers.normal(1.0)
        table = module.param("label_tokens", init, (len(self.names), width))
        return table[None], value > 0

    # ---- of prompts

    def parse(self, text):
        """Return (labels without a sign, terms) of "flute, +organ -drums 1.5*fast".

        The first are one condition, as songs have them. A label with a sign or a factor is a term
        (weight, (label,)) of its own.

        Raises:
          ValueError: a label is unknown or ambiguous, or there is none.
        """
        together, terms = [], []
        for part in filter(None, map(str.strip, SEPARATOR.split(text))):
            sign, factor, name = TERM.fullmatch(part).groups()
            label = find_label(name.strip(), self.names)
            if sign or factor:
                terms.append((float(factor or 1) * (-1 if sign == "-" else 1), (label,)))
            else:
                together.append(label)
        if not together and not terms:
            raise ValueError("labels: the text is empty; name some, or leave it out")
        return tuple(together), tuple(terms)

    def encode(self, labels, texts=None):
        """Return the value of one item with these labels, or without any.  # [V]"""
        return np.array([name in (labels or ()) for name in self.names], np.float32)


def list_labels(songs, min_songs=1):
    """Return the labels that at least `min_songs` songs have, the most frequent first."""
    counts = collections.Counter(label for entry in songs.entries for label in entry["labels"])
    kept = [(-count, label) for label, count in counts.items() if count >= min_songs]
    return tuple(label for _, label in sorted(kept))


def label_table(songs, names):
    """Return which of the labels `names` each song has.  # [S, V] bool"""
    column = {label: index for index, label in enumerate(names)}
    table = np.zeros((len(songs.entries), len(column)), bool)
    for song, entry in enumerate(songs.entries):
        table[song, [column[label] for label in entry["labels"] if label in column]] = True
    return table
