"""Prepared songs on disk: flat int16 shards, an index, and a manifest that is written last.

    NAME/            manifest.json  pcm-00000.int16  pcm-00001.int16 ...
    NAME.partial/    the same while it grows: each finished shard with shard-00000.json and .npz,
                     and song-* that workers wrote and no shard holds yet

A cache without its manifest does not exist. A preparation that was killed resumes after its last
finished shard; what it wrote after that is written again.
"""

import contextlib
import fcntl
import hashlib
import json
import pathlib

import numpy as np

from specdiff_jax.data import spool
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log

SHARD_BYTES = 1 << 27  # a shard is closed by the first song that takes it past this


class Writer:
    """Write NAME.partial; `seen` counts the source's items that its finished shards account for.

    Attributes:
      songs, skipped, more: what was recorded, in the source's order; `songs` with their shard.
      landmarks: [songs] fingerprints.
    """

    def __init__(self, cache):
        self.folder = locate_partial(cache)
        self.folder.mkdir(parents=True, exist_ok=True)
        spool.remove_leftovers(self.folder)
        self.shards, self.songs, self.skipped, self.more, self.landmarks = [], [], [], [], []
        self.seen = 0
        while (index := self.folder / f"shard-{len(self.shards):05d}.json").exists():
            self._load_shard(json.loads(index.read_text()), index.with_suffix(".npz"))
        self._begin_shard()

    def _load_shard(self, index, arrays):
        """Add a shard that an earlier process finished."""
        self.shards.append(index["shard"])
        for name in ("songs", "skipped", "more"):
            getattr(self, name).extend(index[name])
        with np.load(arrays) as saved:
            self.landmarks += [saved[f"{k}"] for k in range(len(index["songs"]))]
        self.seen = index["seen"]

    def _begin_shard(self):
        """Open the file of the next shard."""
        self.file_name = f"pcm-{len(self.shards):05d}.int16"
        self.file = open(self.folder / self.file_name, "wb")  # noqa: SIM115, closed with its shard
        self.samples, self.seen_before = 0, self.seen
        self.first = {name: len(getattr(self, name)) for name in ("songs", "skipped", "more")}

    def add(self, entry, song, landmarks):
        """Append a song: its manifest entry without a place, and its samples, a `SpooledSong`."""
        spool.append_song(song, self.file)
        place = {"shard": len(self.shards), "start": self.samples, "samples": song.samples}
        self.songs.append(entry | place | {"sha256": song.sha256})
        self.landmarks.append(landmarks)
        self.samples += song.samples

    def count_item(self):
        """Count one more item of the source; may close a shard."""
        self.seen += 1
        if self.file.tell() >= SHARD_BYTES:
            self.close_shard()
            self._begin_shard()

    def close_shard(self):
        """Write the current shard: its data first, then the index that marks it as finished."""
        self.file.close()
        if self.seen == self.seen_before:
            return (self.folder / self.file_name).unlink()
        stem = f"shard-{len(self.shards):05d}"
        added = {name: getattr(self, name)[first:] for name, first in self.first.items()}
        landmarks = self.landmarks[self.first["songs"] :]
        arrays = {str(k): value for k, value in enumerate(landmarks)}
        np.savez(self.folder / f"{stem}.npz", **arrays)
        self.shards.append({"file": self.file_name, "samples": self.samples})
        index = {"shard": self.shards[-1], "seen": self.seen, **added}
        write_json(self.folder / f"{stem}.json", index)

    def publish(self, manifest):
        """Write the manifest, rename the folder in one step and return its path."""
        spool.remove_leftovers(self.folder)  # a worker that was killed leaves one
        write_json(self.folder / "manifest.json", manifest)
        complete = self.folder.rename(
            self.folder.with_name(self.folder.name.removesuffix(".partial"))
        )
        # Only now: killed among these, a cache that still grows would lack some.
        for index in complete.glob("shard-*"):
            index.unlink()
        return complete


def locate_partial(cache):
    """Return the folder in which a cache grows."""
    return cache.with_name(cache.name + ".partial")


@contextlib.contextmanager
def lock_cache(cache):
    """Let one process prepare a cache; another waits here until it is complete."""
    folder = cache.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = open(folder / f".{cache.name}.lock", "w")  # noqa: SIM115, closed below
    except OSError:  # a cache that another machine prepared is often there to be read only
        if not (cache / "manifest.json").exists():
            raise
        lock = None
    with lock or contextlib.nullcontext():
        if lock:
            acquire_lock(lock, cache)
        yield


def acquire_lock(lock, cache):
    """Wait until this process has the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(f"data: another process is preparing {cache}; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def read_manifest(cache):
    """Return the manifest of a cache folder, a dict.

    Raises:
      ValueError: the file is damaged.
    """
    path = pathlib.Path(cache) / "manifest.json"
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        remedy = f"delete {path.parent} and prepare it again"
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error


def verify_cache(cache):
    """Read every song once and return the manifest, a dict.

    Raises:
      ValueError: a shard is missing or truncated, or a song in it changed.
    """
    cache = pathlib.Path(cache)
    manifest, remedy = read_manifest(cache), f"delete {cache} and prepare it again"
    for shard in manifest["shards"]:
        path, size = cache / shard["file"], 2 * manifest["channels"] * shard["samples"]
        if not path.exists() or path.stat().st_size != size:
            raise ValueError(f"{path} is damaged (missing or cut); {remedy}")
    shards = open_shards(cache, manifest)
    for song in manifest["songs"]:
        pcm = shards[song["shard"]][song["start"] : song["start"] + song["samples"]]
        if hashlib.sha256(pcm).hexdigest() != song["sha256"]:
            path = cache / manifest["shards"][song["shard"]]["file"]
            raise ValueError(f"{path} is damaged (sha256 of {song['name']!r}); {remedy}")
    return manifest


def open_shards(cache, manifest):
    """Return memory maps [samples, A] int16 of all shards, read-only."""
    maps = []
    for shard in manifest["shards"]:
        path, shape = pathlib.Path(cache) / shard["file"], (shard["samples"], manifest["channels"])
        # An empty file, of a shard of skipped items alone, cannot be mapped.
        empty = np.zeros(shape, np.int16)
        maps.append(np.memmap(path, np.int16, "r", shape=shape) if shard["samples"] else empty)
    return maps
