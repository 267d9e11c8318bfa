"""Rows of metadata (JSON Lines or CSV) and what they say about a song."""

import csv
import json
import math

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
CSV_LIST = ";"  # between labels, and between captions, of one CSV cell


def read(path):
    """All rows of a .jsonl or .csv file, dicts.

    Raises:
      ValueError: not readable as such; names the file and the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error
    if path.suffix == ".csv":
        csv.field_size_limit(1 << 24)
        return list(csv.DictReader(text.splitlines()))
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(rows[-1], dict):
            raise ValueError(f"{path}: line {number} is not an object with named fields")
    return rows


def fields(row):
    """The Song fields of a row: artist, album, labels, captions, licence, split, times, tempo.

    Labels and captions are lists, or cells with ';' between them; `caption` is one text.

    Raises:
      ValueError: an unknown split, or a start, end or tempo that is no such number.
    """
    split = text(row.get("split"))
    if split and split.lower() not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    captions = texts(row.get("captions"))
    if (one := text(row.get("caption"))) and one not in captions:
        captions = (one, *captions)
    return {
        "artist": text(row.get("artist")),
        "album": text(row.get("album")),
        "labels": texts(row.get("labels")),
        "captions": captions,
        "licence": text(row.get("licence") or row.get("license")),
        "split": SPLITS[split.lower()] if split else None,
        "start": number("start", row.get("start"), "a time in seconds"),
        "end": number("end", row.get("end"), "a time in seconds"),
        "tempo": number("tempo", row.get("tempo"), "a number of beats a minute") or None,
    }


def text(value):
    """A value as stripped text; None where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def texts(value):
    """A list, or a cell with separators, as a tuple of texts without empty or repeated ones."""
    parts = value if isinstance(value, (list, tuple)) else (text(value) or "").split(CSV_LIST)
    return tuple(dict.fromkeys(filter(None, map(text, parts))))


def number(name, value, what):
    """A number that is not negative; None where there is nothing."""
    if text(value) is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < math.inf:
        raise ValueError(f"{name}={value!r} is not {what}")
    return found


def joined(first, second):
    """Two `fields` of the same song: labels and captions of both, the rest of the first."""
    both = {name: first[name] or second[name] for name in first}
    for name in ("labels", "captions"):
        both[name] = tuple(dict.fromkeys(first[name] + second[name]))
    return both
