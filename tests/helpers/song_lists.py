"""Lists of songs for data.source, with their splits, labels and captions."""

import csv

import numpy as np

from specdiff_jax.audio import files
from tests.helpers.nano import RATE


def write_song_list(folder, songs):
    """Write waves and songs.csv, and return its path.

    Args:
      songs: (split, wave [N], labels with semicolons between them, caption) of each song.
    """
    rows = []
    for number, (split, wave, labels, caption) in enumerate(songs):
        path = folder / f"{split} {number}.wav"
        files.write(path, wave.astype(np.float32), RATE)
        row = {"path": path, "split": split, "artist": path.stem}
        rows.append(row | {"labels": labels, "captions": caption})
    with (folder / "songs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "songs.csv"


def sine(hertz, samples):
    """Return a sine wave of amplitude one.  # [N]"""
    return np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)
