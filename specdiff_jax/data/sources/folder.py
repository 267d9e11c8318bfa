"""A folder of sound files, walked recursively, with the metadata written beside them.

metadata.csv or metadata.jsonl   rows with `file_name`, relative to it (Hugging Face audiofolder)
song.txt                         beside song.mp3: a caption a line
song.json                        beside song.mp3: the fields of one row
"""

import os
import pathlib

from specdiff_jax.audio import files
from specdiff_jax.config import jsonl
from specdiff_jax.data.sources import metadata
from specdiff_jax.data.sources.items import Skipped, Song, Source

TABLES = ("metadata.csv", "metadata.jsonl")
SIDECARS = (".txt", ".json")
SOUNDS = files.SUFFIXES + files.FOREIGN
MAX_SIDECAR_BYTES = 1 << 20  # of a file beside a song


def iterate_songs(name, folder_labels=False):
    """Yield a Song or a Skipped for each sound file, in sorted order, and for missing files.

    A sub-folder counts as an album, unless `folder_labels` turns its parts into labels.

    Raises:
      ValueError: the folder is missing or holds no sound file, or a metadata table is broken.
    """
    root = pathlib.Path(name)
    if not root.is_dir():
        raise ValueError(f"data.source: {name} is neither 'songbook', a folder nor a data set")
    unreadable = []
    paths = files.find_files(root, SOUNDS, unreadable)
    if not paths:
        raise ValueError(f"data.source: no {', '.join(files.SUFFIXES)} file under {name}")
    listed = read_tables(root)
    for path in paths:
        relative, fields = path.relative_to(root).as_posix(), listed.pop(path, None)
        if path.suffix.lower() in files.FOREIGN:
            yield Skipped(relative, f"{path.suffix} is not read by libsndfile; convert it to flac")
            continue
        if path.exists() and not path.is_file():  # a pipe would keep its reader waiting
            yield Skipped(relative, "a folder, pipe or device, not a file")
            continue
        try:
            yield build_song(path, root, fields or metadata.parse_fields({}), folder_labels)
        except ValueError as error:
            yield Skipped(relative, str(error))
    for error in unreadable:
        yield Skipped(os.path.relpath(error.filename, root), f"folder not listed: {error.strerror}")
    for path in listed:
        yield Skipped(os.path.relpath(path, root), "listed in the metadata, but not there")


def build_song(path, root, fields, folder_labels):
    """Return the Song of a file; fields of a table take precedence over those of its sidecars."""
    parts = path.parent.relative_to(root).parts
    for row in read_sidecars(path):
        fields = metadata.merge_fields(fields, metadata.parse_fields(row))
    if folder_labels:
        fields["labels"] = tuple(dict.fromkeys(fields["labels"] + parts))
    elif parts and not fields["album"]:
        fields["album"] = "/".join(parts)
    return Song(name=path.relative_to(root).as_posix(), audio=str(path), **fields)


def read_tables(root):
    """Return {path: fields} of every metadata table under `root`; rows of one file are merged."""
    listed = {}
    for table in [path for path in files.find_files(root, TABLES) if path.name in TABLES]:
        rows = metadata.read_rows(table)
        metadata.warn_unused_columns(table, rows, "file_name")
        for number, row in enumerate(rows, 1):
            if not (name := metadata.parse_text(row.get("file_name"))):
                raise ValueError(f"{table}: row {number} has no file_name")
            path = pathlib.Path(os.path.normpath(table.parent / name))
            try:
                fields = metadata.parse_fields(row)
            except ValueError as error:
                raise ValueError(f"{table}: row {number}: {error}") from error
            earlier = listed.get(path)
            listed[path] = metadata.merge_fields(earlier, fields) if earlier else fields
    return listed


def read_sidecars(path):
    """Yield the rows written beside a sound file.

    Raises:
      ValueError: a .json file holds no object.
    """
    for suffix in SIDECARS:
        sidecar = path.with_suffix(suffix)
        if not sidecar.is_file():
            continue
        with open(sidecar, "rb") as file:
            content = file.read(MAX_SIDECAR_BYTES).decode("utf-8-sig", errors="replace")
        if suffix == ".txt":
            yield {"captions": [line for line in content.splitlines() if line.strip()]}
            continue
        try:
            yield jsonl.parse_object(content)
        except ValueError as error:
            raise ValueError(f"{sidecar.name} beside it {error}") from error


def fingerprint_files(name, options=None):
    """Return names, sizes and modification times of the files; any folder may be fingerprinted."""
    root, stamps = pathlib.Path(name), []
    suffixes = SOUNDS + SIDECARS + (".csv", ".jsonl", ".parquet", ".arrow")
    for path in files.find_files(root, suffixes):
        relative = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape").hex()
        stamps.append((relative, *files.read_stamp(path)))
    return stamps


SOURCE = Source(
    title="a folder of sound files",
    matches=lambda name: bool(name) and pathlib.Path(name).is_dir(),
    songs=iterate_songs,
    fingerprint=fingerprint_files,
    expected=lambda name: len(files.find_files(pathlib.Path(name), SOUNDS)),
)
