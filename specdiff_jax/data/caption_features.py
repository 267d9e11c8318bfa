"""Compute the features of all captions of a prepared collection once, and keep them beside it."""

import json
import pathlib

import numpy as np

from specdiff_jax.conditioning import text_encoders
from specdiff_jax.data import cache
from specdiff_jax.runtime.files import atomic_path
from specdiff_jax.runtime.logs import log

ARRAYS = ("tokens", "mask", "pooled")
ABOUT = ("name", "revision", "sha256", "width", "pooled_width")


def locate_features(folder, name, max_tokens):
    """Return the path of one encoder's features."""
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return pathlib.Path(folder) / f"text-{plain}-{max_tokens}.npz"


def prepare_features(folder, name, max_tokens, field="condition.text"):
    """Write the features of every caption of a cache folder, unless they exist.

    Args:
      field: of the config that names the encoder, for the error.

    Raises:
      ValueError: no song has a caption, or the encoder cannot be loaded.
    """
    path = locate_features(folder, name, max_tokens)
    if path.exists():
        return
    songs = cache.read_manifest(folder)["songs"]
    captions = sorted({caption for song in songs for caption in song["captions"]})
    if not captions:
        raise ValueError(
            f"{field}={name!r}: none of the {len(songs)} songs has a caption; set it to None"
        )
    encoder = text_encoders.load(name)
    features = encoder.encode(captions, max_tokens)
    if cut := sum(place is not None for place in features.truncated):
        log(f"text: {cut} of {len(captions)} captions are longer than {max_tokens} tokens, cut")
    about = {name: getattr(encoder, name) for name in ABOUT}
    arrays = {name: getattr(features, name) for name in ARRAYS}
    with atomic_path(path) as partial, partial.open("wb") as file:
        about = json.dumps(about | {"max_tokens": max_tokens, "captions": captions})
        np.savez(file, about=np.array(about), **arrays)


def read_features(folder, name, max_tokens):
    """Return (about the encoder, ({caption: row}, (tokens, mask, pooled))) from the file."""
    with np.load(locate_features(folder, name, max_tokens)) as file:
        about = json.loads(str(file["about"]))
        arrays = tuple(file[name] for name in ARRAYS)
    row_of = {caption: row for row, caption in enumerate(about.pop("captions"))}
    return about, (row_of, arrays)
