"""A song's sound where it is not known already; run by a worker, without jax or a config."""

import hashlib
import json

import numpy as np

from specdiff_jax.audio.ingest import ingest
from specdiff_jax.data.sources.items import More, Skipped

BLOCK_BYTES = 1 << 20  # bytes of a file read at a time


def decode_if_changed(job, intake):
    """(sha256 of the content, pcm [N, A] int16), pcm None where the hash is the known one.

    Args:
      job: (what a source yields, the hash that is known of its name or None).

    Returns:
      None for a More.

    Raises:
      ValueError: the item is a Skipped, or its audio is not usable; says why.
    """
    item, known = job
    if isinstance(item, Skipped):
        raise ValueError(item.reason)
    if isinstance(item, More):
        return None
    found = hash_content(item)
    if found == known:
        return found, None
    return found, ingest(item.audio, intake, item.start, item.end)[0]


def hash_content(song):
    """sha256 of what is taken of a Song: its bytes and the range of them."""
    found = hashlib.sha256(json.dumps([song.start, song.end]).encode())
    if isinstance(song.audio, str):
        with open(song.audio, "rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                found.update(block)
    elif isinstance(song.audio, bytes):
        found.update(song.audio)
    else:
        found.update(np.ascontiguousarray(song.audio.wave))
        found.update(str(song.audio.sample_rate).encode())
    return found.hexdigest()
