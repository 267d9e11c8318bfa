"""Where results go: one CSV an experiment."""

import csv
import itertools
import pathlib

RESULTS = pathlib.Path(__file__).parent / "results"


def write_csv(path, rows):
    """Writes dicts as rows; the columns are all keys in the order they are first seen."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(itertools.chain(*rows))))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path):
    """The rows of a table as dicts of text without empty cells; [] where there is no such file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
