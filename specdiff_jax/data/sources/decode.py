"""What a worker process does with one item of a source; it imports neither jax nor a config."""

from specdiff_jax.audio.ingest import ingest
from specdiff_jax.data import spool
from specdiff_jax.data.sources.items import More, Skipped


def decode_item(item, intake):
    """(pcm, facts, landmarks) of a Song, None of a More.

    Raises:
      ValueError: the item is a Skipped, or its audio is not usable; says why.
    """
    if isinstance(item, Skipped):
        raise ValueError(item.reason)
    if isinstance(item, More):
        return None
    return ingest(item.audio, intake, item.start, item.end)


def decode_to_spool(item, intake, folder):
    """As `take`, with the samples put into a file of `folder`: (Aside, facts, landmarks)."""
    made = decode_item(item, intake)
    return made and (spool.write_song(made[0], folder), *made[1:])
