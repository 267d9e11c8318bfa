"""What songs are called, as arrays: a vocabulary, and the Condition of any crop of any song."""

import collections
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.config.fields import choose
from specdiff_jax.models.conditioning import Condition, Inputs

UNITS = {  # of a number as the network sees it: a difference of one is large
    "tempo": lambda beats_a_minute: math.log2(beats_a_minute / 100),
    "start": lambda seconds: seconds / 60,  # where in the song a crop begins
    "length": lambda seconds: seconds / 60,  # of the song
}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a model can be asked for, kept in its checkpoint."""

    labels: tuple[str, ...] = ()  # in the order of the model's table
    scalars: tuple[str, ...] = ()  # keys of UNITS
    text: dict | None = None  # name, revision, sha256, widths, max_tokens of the encoder
    reader: dict | None = None  # of labels in texts, see label_reader.py

    def inputs(self, cross_heads):
        """The sizes that the network needs; None where nothing can be asked for."""
        text = self.text or {"width": 0, "pooled_width": 0}
        made = Inputs(
            labels=len(self.labels),
            scalars=len(self.scalars),
            text=text["width"],
            pooled=text["pooled_width"],
            cross_heads=cross_heads,
        )
        return made if made.labels or made.scalars or made.text else None


def from_dict(saved):
    """A Vocabulary from what JSON keeps of it."""
    labels, numbers = tuple(saved["labels"]), tuple(saved["scalars"])
    return Vocabulary(labels, numbers, saved["text"], saved.get("reader"))  # older ones have none


def labels_of(songs, min_songs=1):
    """All labels that at least `min_songs` of the songs have, the most frequent first."""
    counts = collections.Counter(label for entry in songs.entries for label in entry["labels"])
    kept = [(-count, label) for label, count in counts.items() if count >= min_songs]
    return tuple(label for _, label in sorted(kept))


class Tables(NamedTuple):
    """What is said of each song; a field is None where the vocabulary has no such thing."""

    labels: Any = None  # [songs, V] bool
    scalars: Any = None  # [songs, K] float32, NaN where unknown
    tokens: Any = None  # [texts, S, E] float16
    mask: Any = None  # [texts, S] bool
    pooled: Any = None  # [texts, P] float32
    captions: Any = None  # [C] int32: the texts of all songs, song after song
    first: Any = None  # [songs] int32: where a song's captions begin
    count: Any = None  # [songs] int32: how many it has


def tables(vocabulary, songs, features=None):
    """The Tables of a split.

    Args:
      features: {caption: row} and (tokens, mask, pooled) of all captions; see text_features.
    """
    found = Tables()
    if vocabulary.labels:
        place = {label: index for index, label in enumerate(vocabulary.labels)}
        labels = np.zeros((len(songs.entries), len(place)), bool)
        for song, entry in enumerate(songs.entries):
            labels[song, [place[label] for label in entry["labels"] if label in place]] = True
        found = found._replace(labels=labels)
    if vocabulary.scalars:
        rows = [numbers(vocabulary, facts(entry)) for entry in songs.entries]
        found = found._replace(scalars=np.array(rows, np.float32))
    if vocabulary.text:
        row_of, arrays = features
        rows = [[row_of[caption] for caption in entry["captions"]] for entry in songs.entries]
        count = np.array([len(row) for row in rows], np.int32)
        found = found._replace(
            captions=np.array([text for row in rows for text in row] + [0], np.int32),
            first=np.cumsum(count, dtype=np.int32) - count,
            count=count,
            **dict(zip(("tokens", "mask", "pooled"), arrays, strict=True)),
        )
    return found


def facts(entry):
    """The numbers that a manifest's entry tells of its song."""
    told = {"tempo": entry.get("tempo"), "length": entry["seconds"]}
    return {name: value for name, value in told.items() if value is not None}


def numbers(vocabulary, told):
    """{name: value} as the network's numbers, NaN where nothing is told.  # [K]"""
    in_units = lambda name: UNITS[name](told[name]) if name in told else math.nan
    return np.array([in_units(name) for name in vocabulary.scalars], np.float32)


def draw(vocabulary, held, batch, key=None):
    """The Condition of crops: what is said of their songs, and one caption of each.

    Args:
      held: Tables. batch: a feeding.Batch, of which song and start are used.
      key: draws the captions; None takes each song's first.
    """
    if not (vocabulary.labels or vocabulary.scalars or vocabulary.text):
        return None
    song, start = batch.song, batch.start
    made = Condition()
    if vocabulary.labels:
        made = made._replace(labels=held.labels[song].astype(jnp.float32))
    if vocabulary.scalars:
        begins = jnp.array([name == "start" for name in vocabulary.scalars])[None]
        value = UNITS["start"](start)[:, None].astype(jnp.float32)
        made = made._replace(scalars=jnp.where(begins, value, held.scalars[song]))
    if vocabulary.text:
        text, known = caption(held, song, key)
        mask = held.mask[text] & known[:, None]
        made = made._replace(tokens=held.tokens[text], mask=mask, pooled=held.pooled[text])
    return made


def caption(held, song, key=None):
    """One caption of each song: (its row among the texts, whether there is one).  # [B], [B]"""
    count = held.count[song]
    which = 0 if key is None else jax.random.randint(key, song.shape, 0, jnp.maximum(count, 1))
    return held.captions[held.first[song] + which], count > 0


def fit(config, songs, text):
    """Return the Vocabulary of a config: what its training songs are called."""
    c = config.condition
    labels = labels_of(songs, c.min_songs) if c.labels else ()
    return Vocabulary(labels, tuple(c.scalars), text)


def check(config):
    """Return whether the model is conditional.

    Raises:
      ValueError: an unknown scalar, or a field that would be ignored.
    """
    c = config.condition
    for name in c.scalars:
        choose(UNITS, "condition.scalars", name)
    anything = bool(c.labels or c.text or c.scalars)
    needs = {"min_songs": c.labels, "label_balance": c.labels, "max_tokens": c.text}
    needs |= {"cross_heads": anything, "dropout": anything, "modality_dropout": c.labels or c.text}
    needs |= {"token_dropout": anything}
    for name, on in needs.items():
        if c[name] is not None and not on:
            raise ValueError(f"condition.{name}={c[name]} has nothing to act on; set it to None")
        if c[name] is None and on and name != "label_balance":
            raise ValueError(f"condition.{name} must be set for what condition asks for")
    return anything
