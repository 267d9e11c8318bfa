"""Write files whole or not at all, read checked JSON, and hash files."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import pathlib

from specdiff_jax.runtime import logs
from specdiff_jax.runtime.text import one_line


@contextlib.contextmanager
def atomic_path(path):
    """Yield the path to write to; its file replaces `path` where the block raises nothing.

    A reader sees the old file or the new one, also after a crash. The folder is created.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path, content):
    """Write bytes, or a text as UTF-8, whole or not at all and return the path."""
    content = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return pathlib.Path(path)


def write_json(path, value):
    """Write a JSON file whole or not at all, in the first process of a job only."""
    if not logs.muted:
        write_bytes(path, json.dumps(value, indent=1))


def write_csv(path, rows):
    """Write dicts as rows; the columns are all keys in the order of their first appearance."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(itertools.chain(*rows))))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue())


def read_json(path, parse=dict):
    """Return parse(the object in a JSON file), None where there is no file.

    Raises:
      ValueError: the file holds no JSON object, or `parse` rejects it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    return parse_json(f"{path.parent.name}/{path.name}", path.read_bytes(), parse)


def parse_json(name, raw, parse):
    """Return parse(the JSON object in `raw`).

    Raises:
      ValueError: any fault of the text or of `parse`, in one line that begins with `name`.
    """
    try:
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise ValueError(f"expected a JSON object, found {type(data).__name__}")
        return parse(data)
    except KeyError as error:
        raise ValueError(f"{name}: field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: {one_line(error)}") from error


def hash_file(path):
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
