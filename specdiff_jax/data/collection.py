"""config.data as a source of items: where songs come from and what form they are brought to."""

import functools
import os
import pathlib

from specdiff_jax.audio import files
from specdiff_jax.audio.ingest import LOUDNESS, Intake
from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.data.sources import folder, huggingface, manifest
from specdiff_jax.data.sources.songbook import songbook

OPTIONS = ("songbook_seconds", "folder_labels", "split", "revision", "streaming")
FEEDS = ("auto", "device", "host")
COLUMNS = tuple(f"{name}_column" for name in huggingface.COLUMNS)


def iterate_items(config):
    """An iterator of Song, More and Skipped over the configured collection."""
    kind, name = detect_kind(config), expand_source(config)
    fields = {k: v for k, v in set_fields(config.data).items() if k in OPTIONS + COLUMNS}
    if kind == "songbook":
        maker = lambda songbook_seconds=songbook.SECONDS: songbook.render_songs(
            songbook.parse_num_pieces(name), songbook_seconds
        )
        return call("data.", maker, fields, "the songbook")
    if kind == "folder":
        maker = lambda folder_labels=False: folder.iterate_songs(name, folder_labels)
        return call("data.", maker, fields, "a folder of sound files")
    if kind == "manifest":
        return call("data.", lambda: manifest.iterate_songs(name), fields, "a list of songs")
    columns = {k.removesuffix("_column"): fields.pop(k) for k in COLUMNS if k in fields}
    maker = functools.partial(huggingface.iterate_songs, name, columns)
    if kind == "hub":
        fields["revision"] = resolve_revision(config)
    return call("data.", maker, fields, "a Hugging Face source")


def expand_source(config):
    """data.source, its ~ written out: no shell does that behind a =."""
    return os.path.expanduser(config.data.source)


def detect_kind(config):
    """songbook, folder, manifest, local (a Hugging Face data set on disk) or hub.

    Raises:
      ValueError: none of these.
    """
    name, path = config.data.source, pathlib.Path(expand_source(config))
    if songbook.parse_num_pieces(name):
        return "songbook"
    if path.suffix in manifest.SUFFIXES and path.is_file():
        return "manifest"
    if path.is_file() and path.suffix in (".parquet", ".arrow"):
        return "local"
    if path.is_dir() and name:
        saved = any((path / f"dataset_{kind}.json").exists() for kind in ("info", "dict"))
        tables = any(files.find(path, (".parquet", ".arrow")))
        return "local" if saved or (tables and not files.find(path)) else "folder"
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(
            f"data.source={name!r} is not 'songbook', a folder, a .jsonl or .csv list, a .parquet "
            "file or a Hub name 'owner/name'"
        )
    return "hub"


@functools.lru_cache
def resolve_commit(name, revision):
    """`huggingface.pinned`, asked once a process."""
    return huggingface.resolve_commit(name, revision)


def resolve_revision(config):
    """The commit of a Hub source; None elsewhere."""
    if detect_kind(config) != "hub":
        return None
    return resolve_commit(config.data.source, config.data.revision)


def fingerprint_source(config):
    """What must stay the same for a cache to stay valid, for JSON."""
    kind, path = detect_kind(config), pathlib.Path(expand_source(config))
    if kind == "songbook":
        return songbook.package_versions()
    if kind == "hub":
        return resolve_revision(config)
    if path.is_dir():
        return folder.fingerprint_files(path)
    if kind == "manifest":
        return manifest.fingerprint_files(path)
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def count_expected(config):
    """How many items the progress bar counts to; None where nobody knows."""
    kind = detect_kind(config)
    if kind == "songbook":
        return songbook.parse_num_pieces(config.data.source)
    if kind == "folder":
        return len(files.find(expand_source(config), files.SUFFIXES + files.FOREIGN))
    return None


def check_data(config):
    """Refuses wrong values of config.data before any work.

    Raises:
      ValueError: a share that is none, held-out music that leaves none to train with.
    """
    d = config.data
    for name in ("max_error_fraction", "valid_fraction", "test_fraction"):
        if not 0 <= d[name] <= 1:
            raise ValueError(f"data.{name}={d[name]} is not a share from 0 to 1")
    if d.valid_fraction + d.test_fraction >= 1:
        raise ValueError(
            f"data.valid_fraction={d.valid_fraction} and data.test_fraction={d.test_fraction} "
            "leave nothing to train with; lower one"
        )
    if d.trim_db is not None and d.trim_db >= 0:
        raise ValueError(f"data.trim_db={d.trim_db} cuts everything: full scale is 0; try -60")
    choose(dict.fromkeys(FEEDS), "data.placement", d.placement)
    build_audio_format(config)


def build_audio_format(config):
    """The form that songs are brought to.

    Raises:
      ValueError: an unknown way, a level that would be ignored, or one that is missing.
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
    return Intake(config.representation.sample_rate, d.channels, d.loudness, d.level_db, d.trim_db)
