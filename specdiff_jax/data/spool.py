"""Songs that workers have made, each in a file until a shard takes it: pipes are slow.

A worker hands over a name, not samples, so its parent holds no songs, whatever their length.
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
    path: pathlib.Path
    samples: int
    sha256: str


def write_song(pcm, folder):
    """pcm [N, A] int16 -> Aside.

    Raises:
      Stop: it cannot be written, which is no fault of the song.
    """
    pcm = np.ascontiguousarray(pcm)
    try:
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder, delete=False) as file:
            file.write(pcm)
    except OSError as error:
        raise Stop(f"cannot write into {folder}: {error.strerror}") from error
    return SpooledSong(pathlib.Path(file.name), len(pcm), hashlib.sha256(pcm).hexdigest())


def append_song(aside, file):
    """Appends the samples to an open file; they are aside no more."""
    with open(aside.path, "rb") as source:
        shutil.copyfileobj(source, file, COPY_BYTES)
    aside.path.unlink()


def remove_leftovers(folder):
    """Removes what nobody came for, as of a worker that was killed."""
    for left in folder.glob(f"{PREFIX}*"):
        left.unlink()
