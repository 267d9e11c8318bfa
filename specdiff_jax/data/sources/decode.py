"""Decode the items of a source in a worker process, which imports neither JAX nor a config."""

import hashlib
import json

import numpy as np

from specdiff_jax.audio.decode import decode_audio
from specdiff_jax.data import spool
from specdiff_jax.data.sources.items import More, Skipped, Song

BLOCK_BYTES = 1 << 20  # of a file, read at a time


def decode_item(item, audio_format):
    """Return (pcm [N, A] int16, facts, landmarks) of a Song, None of a More.

    Raises:
      ValueError: the item is a Skipped, or its audio is unusable; the message is the reason.
    """
    if isinstance(item, Skipped):
        raise ValueError(item.reason)
    if isinstance(item, More):
        return None
    return decode_audio(item.audio, audio_format, item.start, item.end)


def decode_to_spool(item, audio_format, folder):
    """Decode an item into a file of `folder` and return (SpooledSong, facts, landmarks)."""
    decoded = decode_item(item, audio_format)
    return decoded and (spool.write_song(decoded[0], folder), *decoded[1:])


def decode_if_changed(job, audio_format):
    """Return (sha256 of the content, pcm [N, A] int16), pcm None where the sha256 is unchanged.

    Args:
      job: (item of a source, sha256 of an earlier content of that name or None).

    Returns:
      None for a More.

    Raises:
      ValueError: as `decode_item`.
    """
    item, earlier = job
    if isinstance(item, Song):
        sha256 = hash_content(item)
        if sha256 == earlier:
            return sha256, None
    decoded = decode_item(item, audio_format)
    return decoded and (sha256, decoded[0])


def hash_content(song):
    """Return the sha256 of a Song's audio: its bytes, and the range of them that is used."""
    sha256 = hashlib.sha256(json.dumps([song.start, song.end]).encode())
    if isinstance(song.audio, str):
        with open(song.audio, "rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                sha256.update(block)
    elif isinstance(song.audio, bytes):
        sha256.update(song.audio)
    else:
        sha256.update(np.ascontiguousarray(song.audio.wave))
        sha256.update(str(song.audio.sample_rate).encode())
    return sha256.hexdigest()
