"""Read config.data: the kind of collection that data.source names, its songs and its options."""

import functools
import os

from specdiff_jax.audio.decode import LOUDNESS, AudioFormat
from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.data.sources import folder, huggingface, manifest
from specdiff_jax.data.sources.songbook import songbook

PLACEMENTS = ("auto", "device", "host")
FRACTIONS = ("max_error_fraction", "valid_fraction", "test_fraction")


def find_source(config):
    """Return the Source of config.data.

    Raises:
      ValueError: data.source names no collection of any kind.
    """
    name = expand_source(config)
    for source in SOURCES.values():
        if source.matches(name):
            return source
    titles = ", ".join(source.title for source in SOURCES.values())
    raise ValueError(f"data.source={config.data.source!r} is not one of: {titles}")


def expand_source(config):
    """Return data.source with its ~ expanded: no shell does that behind a =."""
    return os.path.expanduser(config.data.source)


def read_options(config):
    """Return {field: value} of the set fields of config.data that belong to some source."""
    names = {name for source in SOURCES.values() for name in source.options}
    return {name: value for name, value in set_fields(config.data).items() if name in names}


def iterate_items(config):
    """Return an iterator of Song, More and Skipped over the configured collection.

    Raises:
      ValueError: a set option belongs to another kind of collection.
    """
    source = find_source(config)
    songs = functools.partial(source.songs, expand_source(config))
    return call("data.", songs, read_options(config), source.title)


def resolve_revision(config):
    """Return the version of the data set that a revision stands for, as a commit, or None."""
    return find_source(config).revision(expand_source(config), read_options(config))


def fingerprint_source(config):
    """Return what must stay the same for a cache to stay valid, for JSON."""
    return find_source(config).fingerprint(expand_source(config), read_options(config))


def count_expected(config):
    """Return how many items the progress bar counts to; None where it is unknown."""
    return find_source(config).expected(expand_source(config))


def check_data(config):
    """Check the values of config.data before any work.

    Raises:
      ValueError: a fraction out of range, or held-out music that leaves none to train with.
    """
    d = config.data
    for name in FRACTIONS:
        if not 0 <= d[name] <= 1:
            raise ValueError(f"data.{name}={d[name]} is not a fraction from 0 to 1")
    if d.valid_fraction + d.test_fraction >= 1:
        raise ValueError(
            f"data.valid_fraction={d.valid_fraction} and data.test_fraction={d.test_fraction} "
            "leave nothing to train with; lower one"
        )
    if d.trim_db is not None and d.trim_db >= 0:
        raise ValueError(f"data.trim_db={d.trim_db} cuts everything: full scale is 0; try -60")
    choose(dict.fromkeys(PLACEMENTS), "data.placement", d.placement)
    build_audio_format(config)


def build_audio_format(config):
    """Return the form that songs are decoded to.

    Raises:
      ValueError: an unknown way to normalize, a level that is unused, or one that is missing.
    """
    d = config.data
    choose(dict.fromkeys(LOUDNESS), "data.loudness", d.loudness)
    if d.channels not in (1, 2):
        raise ValueError(f"data.channels={d.channels} is neither 1 (mono) nor 2 (stereo)")
    if (d.loudness == "as_is") != (d.level_db is None):
        raise ValueError(
            f"data.level_db={d.level_db} does not go with data.loudness={d.loudness!r}: "
            "set it for peak and lufs, leave it None for as_is"
        )
    return AudioFormat(
        config.representation.sample_rate, d.channels, d.loudness, d.level_db, d.trim_db
    )


SOURCES = {  # the first that matches data.source
    "songbook": songbook.SOURCE,
    "manifest": manifest.SOURCE,
    "local": huggingface.LOCAL,
    "folder": folder.SOURCE,
    "hub": huggingface.HUB,
}
