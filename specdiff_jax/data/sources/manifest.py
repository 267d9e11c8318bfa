"""A list of songs, JSON Lines or CSV: path, start, end, labels, captions, artist, album, split,
licence, tempo. Paths are relative to the list. One file may give several songs by start and end.
"""

import pathlib

from specdiff_jax.audio import files
from specdiff_jax.data.sources import metadata
from specdiff_jax.data.sources.items import Skipped, Song

SUFFIXES = (".jsonl", ".csv")


def iterate_songs(path):
    """Yields a Song or a Skipped for each part of each file, in the list's order.

    Rows of the same part are one song. Parts of one file are never divided by a split: where no
    artist or album is known, the file is the album.

    Raises:
      ValueError: the list is broken, empty or without paths.
    """
    path = pathlib.Path(path)
    listed, table = {}, metadata.read_rows(path)
    metadata.warn_unused_columns(path, table, "path")
    for number, row in enumerate(table, 1):
        if not (audio := metadata.parse_text(row.get("path"))):
            raise ValueError(f"{path}: row {number} has no path")
        try:
            told = metadata.parse_fields(row)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
        told["album"] = told["album"] or audio
        key = (audio, told["start"], told["end"])
        listed[key] = metadata.merge_fields(listed[key], told) if key in listed else told
    if not listed:
        raise ValueError(f"{path}: lists no songs")
    for (audio, start, end), told in listed.items():
        part = "" if start is None and end is None else f"#{start or 0:g}-{end or ''}"
        place = path.parent / audio
        if place.is_file():
            yield Song(name=audio + part, audio=str(place), **told)
        else:
            yield Skipped(audio + part, "listed, but not there")


def fingerprint_files(path):
    """What must stay the same for a cache to stay valid: the list, and the files that it names."""
    named = {
        text for row in metadata.read_rows(path) if (text := metadata.parse_text(row.get("path")))
    }
    return [files.stamp(path), *([name, files.stamp(path.parent / name)] for name in sorted(named))]
