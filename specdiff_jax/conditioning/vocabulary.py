"""The conditions that a model takes: the conditioners fitted to its training songs."""

import dataclasses

from specdiff_jax.conditioning.conditioners import CONDITIONERS


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The fitted conditioners of a model, in the order of CONDITIONERS. Checkpoints keep it."""

    conditioners: tuple = ()
    reader: dict | None = None  # infers labels from texts; see label_reader.py

    def get(self, kind):
        """Return the conditioner of a kind, None where the model takes no such condition."""
        return next((c for c in self.conditioners if c.kind == kind), None)

    @property
    def labels(self):
        """The names of the labels, () without."""
        labels = self.get("labels")
        return labels.names if labels else ()

    @property
    def scalars(self):
        """The names of the scalars, () without."""
        scalars = self.get("scalars")
        return scalars.names if scalars else ()

    @property
    def text(self):
        """The Text conditioner, None without."""
        return self.get("text")

    def tables(self, songs, features=None):
        """Return {kind: arrays} of the conditions of a split's songs.

        Args:
          features: of all captions, for texts; see `Text.table`.
        """
        return {c.kind: c.table(songs, features) for c in self.conditioners}

    def draw(self, tables, batch, key=None):
        """Return the Condition of the crops of a Batch, None for a model that takes none.

        Args:
          tables: what `tables` returns; batch: a feeding.Batch, of which song and start are used.
          key: draws the captions; each song's first without.
        """
        return {c.kind: c.draw(tables[c.kind], batch, key) for c in self.conditioners} or None

    def describe(self):
        """Return the conditions in words."""
        return "; ".join(c.describe() for c in self.conditioners) or "none"

    def to_dict(self):
        """Return what a checkpoint keeps, for `json`."""
        kept = {c.kind: dataclasses.asdict(c) for c in self.conditioners}
        return {"conditioners": kept, "reader": self.reader}


def from_dict(saved):
    """Return the Vocabulary of what `to_dict` returned, read from JSON."""
    fixed = lambda value: tuple(value) if isinstance(value, list) else value
    conditioners = tuple(
        CONDITIONERS[kind](**{name: fixed(value) for name, value in fields.items()})
        for kind, fields in saved["conditioners"].items()
    )
    return Vocabulary(conditioners, saved["reader"])


def fit(config, songs, encoder=None):
    """Return the Vocabulary of a config and its training songs.

    Args:
      encoder: {field of Text: value} of the encoder of the captions.
    """
    fitted = (CONDITIONERS[kind].fit(config, songs, encoder) for kind in kinds_used(config))
    return Vocabulary(tuple(c for c in fitted if c is not None))


def kinds_used(config):
    """Return the kinds of condition that a config turns on."""
    return [kind for kind in CONDITIONERS if config.condition.get(kind)]


def check(config):
    """Return whether the model is conditional.

    Raises:
      ValueError: an unknown scalar, a field that would be ignored, or one that must be set.
    """
    kinds, uses = kinds_used(config), {}
    for kind in kinds:
        uses |= CONDITIONERS[kind].check(config)
    if kinds:
        uses |= dict.fromkeys(("cross_heads", "dropout", "token_dropout"), True)
    for name, must_be_set in uses.items():
        if must_be_set and config.condition[name] is None:
            raise ValueError(f"condition.{name} must be set for condition.{', '.join(kinds)}")
    for name, value in config.condition.items():
        if value is not None and name not in (*CONDITIONERS, *uses):
            raise ValueError(f"condition.{name}={value} has nothing to act on; set it to None")
    return bool(kinds)
