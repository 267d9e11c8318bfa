"""JSON Lines: a JSON object a line."""

import json
import pathlib


def parse_object(text):
    """Return the dict of a JSON text.

    Raises:
      ValueError: the text holds no dict; the message goes on from the text's name.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")
    return fields


def parse_lines(path, text):
    """Yield (line number from 1 on, dict) of JSON Lines; empty lines are skipped.

    Raises:
      ValueError: a line is no JSON object; names the file and the line.
    """
    # Not splitlines(): a JSON text may hold other characters that end a line, as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, parse_object(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error


def read_objects(field, path, make, what):
    """Return [make(number, fields)] of the lines of a file.

    Args:
      field: of the config that names the file, for the errors, as "edit.list".
      make: takes a line's number, from 1 on, and its dict; a ValueError of it names the line.
      what: a line should hold, as "edit".

    Raises:
      ValueError: there is no such file, a line is wrong, or there is none.
    """
    path, objects = pathlib.Path(path), []
    if not path.is_file():
        raise ValueError(f"{field}={str(path)!r}: there is no such file")
    for number, fields in parse_lines(path, path.read_text("utf-8")):
        try:
            objects.append(make(number, fields))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if not objects:
        raise ValueError(f"{field}={str(path)!r}: holds no {what}")
    return objects
