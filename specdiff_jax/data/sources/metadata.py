"""Rows of metadata (JSON Lines or CSV) and what they say about a song."""

import csv
import io
import json
import math

from specdiff_jax.runtime.logs import log

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
MAX_CELL = 1 << 24  # characters
CSV_LIST = ";"  # between labels, and between captions, of one CSV cell


def read_rows(path):
    """All rows of a .jsonl or .csv file, dicts.

    Raises:
      ValueError: not readable as such; names the file and the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error
    return list(parse_csv(path, text) if path.suffix == ".csv" else parse_json_lines(path, text))


def parse_csv(path, text):
    """Yields the rows of a CSV table; a cell in quotes may hold commas and line breaks."""
    csv.field_size_limit(MAX_CELL)
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in table:
            # Spreadsheets end every row with empty cells; others would be lost.
            if any(row.pop(None, ())):
                raise ValueError(
                    f"{path}: line {table.line_num} has more cells than the header; put cells with "
                    "commas in quotes"
                )
            yield row
    except csv.Error as error:  # an open quote swallows all that follows
        raise ValueError(f"{path}: line {table.line_num}: {error}; are quotes closed?") from error


def parse_json_lines(path, text):
    """Yields the rows of JSON Lines."""
    # Not splitlines(): a JSON text may hold other characters that end a line, as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} {error}") from error
        yield row


def parse_object(text):
    """The dict that a JSON text holds.

    Raises:
      ValueError: it holds none; says what it is instead.
    """
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError("is not an object with named fields")
    return row


def parse_fields(row):
    """The Song fields of a row: artist, album, labels, captions, licence, split, times, tempo.

    Labels and captions are lists, or cells with ';' between them; `caption` is one text.

    Raises:
      ValueError: an unknown split, or a start, end or tempo that is no such number.
    """
    split = parse_text(row.get("split"))
    if split and split.lower() not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    captions = parse_texts(row.get("captions"))
    if (one := parse_text(row.get("caption"))) and one not in captions:
        captions = (one, *captions)
    return {
        "artist": parse_text(row.get("artist")),
        "album": parse_text(row.get("album")),
        "labels": parse_texts(row.get("labels")),
        "captions": captions,
        "licence": parse_text(row.get("licence") or row.get("license")),
        "split": SPLITS[split.lower()] if split else None,
        "start": parse_number("start", row.get("start"), "a time in seconds"),
        "end": parse_number("end", row.get("end"), "a time in seconds"),
        "tempo": parse_number("tempo", row.get("tempo"), "a number of beats a minute") or None,
    }


def warn_unused_columns(path, table, own):
    """Says which columns of a table nobody reads: a `label` for `labels` would be lost unsaid."""
    known = [own, *parse_fields({}), "caption", "license"]
    unused = dict.fromkeys(name for row in table for name in row if name not in known)
    if unused:
        names = ", ".join(map(repr, unused))[:300]
        log(f"data: {path}: not read: {names}; what is: {', '.join(known)}")


def parse_text(value):
    """A value as stripped text; None where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def parse_texts(value):
    """A list, or a cell with separators, as a tuple of texts without empty or repeated ones."""
    parts = value if isinstance(value, (list, tuple)) else (parse_text(value) or "").split(CSV_LIST)
    return tuple(dict.fromkeys(filter(None, map(parse_text, parts))))


def parse_number(name, value, what):
    """A number that is not negative; None where there is nothing."""
    if parse_text(value) is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < math.inf:
        raise ValueError(f"{name}={value!r} is not {what}")
    return found


def merge_fields(first, second):
    """Two `fields` of the same song: labels and captions of both, the rest of the first."""
    both = {name: first[name] or second[name] for name in first}
    for name in ("labels", "captions"):
        both[name] = tuple(dict.fromkeys(first[name] + second[name]))
    return both
