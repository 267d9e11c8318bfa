"""A folder of sound files, walked recursively. The simplest source: no labels, no captions."""

import pathlib

from specdiff_jax.audio import files
from specdiff_jax.sources.song import Skipped, Song


def songs(folder):
    """Yields a Song or a Skipped for each sound file, in sorted order.

    A file's artist is its sub-folder, or its own name at the top of `folder`.

    Raises:
      ValueError: the folder is missing or holds no sound file.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"data.source: {folder} is neither 'songbook', a folder nor a data set")
    paths = files.find(root)
    if not paths:
        raise ValueError(f"data.source: no {', '.join(files.SUFFIXES)} file under {folder}")
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            wave, sample_rate = files.decode(path)
        except ValueError as error:
            yield Skipped(name, str(error))
            continue
        artist = path.parent.relative_to(root).as_posix() if path.parent != root else path.stem
        yield Song(name, artist, (), (), wave, sample_rate)


def fingerprint(folder):
    """What must stay the same for a cache to stay valid: names, sizes, modification times."""
    root = pathlib.Path(folder)
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files.find(root)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
