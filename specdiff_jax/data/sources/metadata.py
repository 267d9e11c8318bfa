"""Read metadata tables (JSON Lines or CSV) and parse their rows into the fields of a Song."""

import csv
import io
import math

from specdiff_jax.config import jsonl
from specdiff_jax.runtime.logs import log

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
MAX_CELL = 1 << 24  # characters
CSV_LIST = ";"  # between labels, and between captions, of one CSV cell


def read_rows(path):
    """Return all rows of a .jsonl or .csv file, dicts.

    Raises:
      ValueError: the file is not such a table; names the file and the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error
    if path.suffix == ".csv":
        return list(parse_csv(path, text))
    return [row for _, row in jsonl.parse_lines(path, text)]


def parse_csv(path, text):
    """Yield the rows of a CSV table; a cell in quotes may hold commas and line breaks."""
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


def parse_fields(row):
    """Return a row as Song fields: artist, album, labels, captions, license, split, times, tempo.

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
        "license": parse_text(row.get("license") or row.get("licence")),
        "split": SPLITS[split.lower()] if split else None,
        "start": parse_number("start", row.get("start"), "a time in seconds"),
        "end": parse_number("end", row.get("end"), "a time in seconds"),
        "tempo": parse_number("tempo", row.get("tempo"), "a number of beats a minute") or None,
    }


def warn_unused_columns(path, rows, own):
    """Log the columns of a table that are not read, as a `label` that should be `labels`."""
    read = [own, *parse_fields({}), "caption", "licence"]
    unused = dict.fromkeys(name for row in rows for name in row if name not in read)
    if unused:
        names = ", ".join(map(repr, unused))[:300]
        log(f"data: {path}: columns not read: {names}; columns read: {', '.join(read)}")


def parse_text(value):
    """Return a value as stripped text; None where it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def parse_texts(value):
    """Return a list, or a cell with separators, as a tuple of texts, none empty or repeated."""
    parts = value if isinstance(value, (list, tuple)) else (parse_text(value) or "").split(CSV_LIST)
    return tuple(dict.fromkeys(filter(None, map(parse_text, parts))))


def parse_number(name, value, what):
    """Return a number that is not negative; None for an empty value.

    Raises:
      ValueError: the value is no such number; the message says that it is not `what`.
    """
    if parse_text(value) is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}={value!r} is not {what}")
    return number


def merge_fields(first, second):
    """Merge two fields of one song: labels and captions of both, else the first value set."""
    both = {name: first[name] or second[name] for name in first}
    for name in ("labels", "captions"):
        both[name] = tuple(dict.fromkeys(first[name] + second[name]))
    return both
