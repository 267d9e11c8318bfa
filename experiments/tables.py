"""Where results go: one CSV an experiment, rewritten whole by every run of it."""

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
