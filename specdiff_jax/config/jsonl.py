"""Files of JSON objects, one a line."""

import json
import pathlib


def read_objects(field, path, make, what):
    """Return [make(number, fields)] of the lines of a file; empty lines are passed over.

    Args:
      field: of the config that names the file, for the errors, as "edit.list".
      make: takes a line's number, from 1 on, and its dict; a ValueError of it names the line.
      what: each line holds, as "edit".

    Raises:
      ValueError: there is no such file, a line is wrong, or there is none.
    """
    path, objects = pathlib.Path(path), []
    if not path.is_file():
        raise ValueError(f"{field}={str(path)!r}: there is no such file")
    # Not splitlines(): a JSON text may hold other characters that end a line, as U+2028.
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ValueError(f"is not a JSON object of one {what}")
            objects.append(make(number, fields))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if not objects:
        raise ValueError(f"{field}={str(path)!r}: holds no {what}")
    return objects
