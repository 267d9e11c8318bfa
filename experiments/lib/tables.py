"""Read and write result tables: one CSV an experiment."""

import csv
import pathlib

from specdiff_jax.runtime.files import write_csv

__all__ = ["RESULTS", "read_csv", "write_csv", "write_device_rows"]
RESULTS = pathlib.Path(__file__).parents[1] / "results"


def read_csv(path):
    """Return rows as dicts of text without empty cells; [] where there is no such file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def write_device_rows(path, rows):
    """Write the rows of a device, and keep the rows of other devices in the file."""
    devices = {row["device"] for row in rows}
    write_csv(path, [row for row in read_csv(path) if row["device"] not in devices] + rows)
