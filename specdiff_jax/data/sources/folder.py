"""A folder of sound files, walked recursively, with what is written beside them.

metadata.csv or metadata.jsonl   rows with `file_name`, relative to it (Hugging Face audiofolder)
song.txt                         beside song.mp3: a caption a line
song.json                        beside song.mp3: the fields of one row
"""

import os
import pathlib

from specdiff_jax.audio import files
from specdiff_jax.data.sources import metadata as rows
from specdiff_jax.data.sources.items import Skipped, Song

TABLES = ("metadata.csv", "metadata.jsonl")
SIDECARS = (".txt", ".json")
MAX_TEXT = 1 << 20  # bytes of a file beside a song


def iterate_songs(folder, folder_labels=False):
    """Yields a Song or a Skipped for each sound file, in sorted order, and for what is missing.

    A sub-folder counts as an album, unless `folder_labels` makes its parts labels.

    Raises:
      ValueError: the folder is missing or holds no sound file, or a metadata table is broken.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"data.source: {folder} is neither 'songbook', a folder nor a data set")
    closed = []
    paths = files.find(root, files.SUFFIXES + files.FOREIGN, closed)
    if not paths:
        raise ValueError(f"data.source: no {', '.join(files.SUFFIXES)} file under {folder}")
    listed = read_tables(root)
    for path in paths:
        name, told = path.relative_to(root).as_posix(), listed.pop(path, rows.parse_fields({}))
        if path.suffix.lower() in files.FOREIGN:
            yield Skipped(name, f"{path.suffix} is not read by libsndfile; convert it to flac")
            continue
        if path.exists() and not path.is_file():  # a pipe would keep its reader waiting
            yield Skipped(name, "a folder, pipe or device, not a file")
            continue
        try:
            yield build_song(path, root, told, folder_labels)
        except ValueError as error:
            yield Skipped(name, str(error))
    for error in closed:
        yield Skipped(os.path.relpath(error.filename, root), f"folder not listed: {error.strerror}")
    for path in listed:
        yield Skipped(os.path.relpath(path, root), "listed in the metadata, but not there")


def build_song(path, root, told, folder_labels):
    """The Song of a file from what a table told and what lies beside it; the table wins."""
    parts = path.parent.relative_to(root).parts
    for row in read_sidecars(path):
        told = rows.merge_fields(told, rows.parse_fields(row))
    if folder_labels:
        told["labels"] = tuple(dict.fromkeys(told["labels"] + parts))
    elif parts and not told["album"]:
        told["album"] = "/".join(parts)
    return Song(name=path.relative_to(root).as_posix(), audio=str(path), **told)


def read_tables(root):
    """{path: fields} from every metadata table under `root`, rows of the same file joined."""
    found = {}
    for table in [path for path in files.find(root, TABLES) if path.name in TABLES]:
        read = rows.read_rows(table)
        rows.warn_unused_columns(table, read, "file_name")
        for number, row in enumerate(read, 1):
            if not (name := rows.parse_text(row.get("file_name"))):
                raise ValueError(f"{table}: row {number} has no file_name")
            path = pathlib.Path(os.path.normpath(table.parent / name))
            try:
                told = rows.parse_fields(row)
            except ValueError as error:
                raise ValueError(f"{table}: row {number}: {error}") from error
            found[path] = rows.merge_fields(found[path], told) if path in found else told
    return found


def read_sidecars(path):
    """The rows written beside a sound file.

    Raises:
      ValueError: a .json that is not an object.
    """
    for suffix in SIDECARS:
        other = path.with_suffix(suffix)
        if not other.is_file():
            continue
        with open(other, "rb") as file:
            content = file.read(MAX_TEXT).decode("utf-8-sig", errors="replace")
        if suffix == ".txt":
            yield {"captions": [line for line in content.splitlines() if line.strip()]}
            continue
        try:
            yield rows.parse_object(content)
        except ValueError as error:
            raise ValueError(f"{other.name} beside it {error}") from error


def fingerprint_files(folder):
    """What must stay the same for a cache to stay valid: names, sizes, modification times."""
    root = pathlib.Path(folder)
    suffixes = files.SUFFIXES + files.FOREIGN + SIDECARS + (".csv", ".jsonl", ".parquet", ".arrow")
    found = []
    for path in files.find(root, suffixes):
        name = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape").hex()
        found.append((name, *files.stamp(path)))
    return found
