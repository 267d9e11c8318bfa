"""Which labels of the songs are tags, and which songs have some."""

import dataclasses

import numpy as np

from specdiff_jax.conditioning.labels import label_table, list_labels
from specdiff_jax.data.songs import take_songs
from specdiff_jax.runtime.logs import log


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a tagger can say."""

    names: tuple[str, ...]
    one: bool  # of them exactly one is true of every song

    def of(self, songs):
        """What is true of each song.  # [S, V] bool"""
        return label_table(songs, self.names)


def wanted(kinds):
    """label -> whether it may be a tag."""
    return lambda label: not kinds or label.split(":", 1)[0] in kinds


def tags_of(songs, kinds, min_songs, section="tag"):
    """The Tags of training songs.

    Raises:
      ValueError: there are none, or one only.
    """
    there = list_labels(songs, min_songs)
    names = tuple(sorted(filter(wanted(kinds), there)))
    asked = f"{section}.kinds={tuple(kinds)}, {section}.min_songs={min_songs}"
    if not names:
        known = sorted({label.split(":", 1)[0] for label in list_labels(songs)})
        has = f"the songs have {', '.join(known)}" if known else "the songs have no labels at all"
        raise ValueError(f"{asked} leave no tag: {has}")
    if len(names) < 2:
        raise ValueError(f"{asked} leave one tag only ({names[0]}); there is nothing to tell apart")
    counts = Tags(names, False).of(songs).sum(axis=1)
    return Tags(names, bool((counts[counts > 0] == 1).all()))


def labelled(songs, tags, split, section="tag"):
    """The songs of which at least one tag is true; of the others nothing is known.

    Raises:
      ValueError: there is none, or a song has two tags of which there should be one.
    """
    counts = tags.of(songs).sum(axis=1)
    if not counts.any():
        raise ValueError(
            f"none of the {split} songs has a tag; see {section}.kinds and data.source"
        )
    if tags.one and (counts > 1).any():
        name = songs.entries[int(np.argmax(counts > 1))]["name"]
        raise ValueError(f"{split} song {name!r} has two tags, the training songs have one each")
    if missing := int((counts == 0).sum()):
        log(f"{section}: {missing} of {len(counts)} {split} songs have no tag and are not used")
    return take_songs(songs, counts > 0)
