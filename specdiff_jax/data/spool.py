"""Files that pass decoded songs from workers to shards: pipes are slow.

A worker returns a path, not samples, so its parent holds no song in memory.
"""

import hashlib
import pathlib
import shutil
import tempfile
import typing

import numpy as np

from specdiff_jax.runtime.worker_pool import Stop

PREFIX = "song-"
COPY_BYTES = 1 << 20  # bytes at a time


class SpooledSong(typing.NamedTuple):
    """A decoded song in a file of its own."""

    path: pathlib.Path
    samples: int
    sha256: str


def write_song(pcm, folder):
    """Write pcm [N, A] int16 into a new file of a folder and return its SpooledSong.

    Raises:
      Stop: the file cannot be written, which is no fault of the song.
    """
    pcm = np.ascontiguousarray(pcm)
    try:
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder, delete=False) as file:
            file.write(pcm)
    except OSError as error:
        raise Stop(f"cannot write into {folder}: {error.strerror}") from error
    return SpooledSong(pathlib.Path(file.name), len(pcm), hashlib.sha256(pcm).hexdigest())


def append_song(song, file):
    """Append the samples to an open file and remove their own."""
    with open(song.path, "rb") as source:
        shutil.copyfileobj(source, file, COPY_BYTES)
    song.path.unlink()


def remove_leftovers(folder):
    """Remove files that no shard took, as those of a worker that was killed."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink()
