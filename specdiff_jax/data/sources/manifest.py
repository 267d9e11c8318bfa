"""A list of songs, JSON Lines or CSV: path, start, end, labels, captions, artist, album, split,
license, tempo. Paths are relative to the list. One file may give several songs by start and end.
"""

import pathlib

from specdiff_jax.audio import files
from specdiff_jax.data.sources import metadata
from specdiff_jax.data.sources.items import Skipped, Song, Source

SUFFIXES = (".jsonl", ".csv")


def matches(name):
    """Return whether data.source is such a list."""
    path = pathlib.Path(name)
    return path.suffix in SUFFIXES and path.is_file()


def iterate_songs(name):
    """Yield a Song or a Skipped for each part of each file, in the list's order.

    Rows of the same part are one song. Parts of one file are never divided by a split: where no
    artist or album is given, the file is the album.

    Raises:
      ValueError: the list is broken, empty or without paths.
    """
    path = pathlib.Path(name)
    listed, rows = {}, metadata.read_rows(path)
    metadata.warn_unused_columns(path, rows, "path")
    for number, row in enumerate(rows, 1):
        if not (audio := metadata.parse_text(row.get("path"))):
            raise ValueError(f"{path}: row {number} has no path")
        try:
            fields = metadata.parse_fields(row)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
        fields["album"] = fields["album"] or audio
        key = (audio, fields["start"], fields["end"])
        listed[key] = metadata.merge_fields(listed[key], fields) if key in listed else fields
    if not listed:
        raise ValueError(f"{path}: lists no songs")
    for (audio, start, end), fields in listed.items():
        part = "" if start is None and end is None else f"#{start or 0:g}-{end or ''}"
        place = path.parent / audio
        if place.is_file():
            yield Song(name=audio + part, audio=str(place), **fields)
        else:
            yield Skipped(audio + part, "listed, but not there")


def fingerprint_files(name, options=None):
    """Return sizes and modification times of the list and of the files that it names."""
    path = pathlib.Path(name)
    texts = {metadata.parse_text(row.get("path")) for row in metadata.read_rows(path)}
    audio = sorted(text for text in texts if text)
    return [
        files.read_stamp(path),
        *([text, files.read_stamp(path.parent / text)] for text in audio),
    ]


SOURCE = Source(
    title="a .jsonl or .csv list of songs",
    matches=matches,
    songs=iterate_songs,
    fingerprint=fingerprint_files,
)
