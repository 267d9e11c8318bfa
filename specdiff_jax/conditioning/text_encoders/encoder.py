"""The interface of a frozen text encoder, and the cleaning of texts for one."""

import dataclasses
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class TextFeatures(NamedTuple):
    """Features of T texts, with L tokens each.

    Attributes:
      tokens: [T, L, E] float16, zero beyond a text.
      mask: [T, L] bool, where a text has tokens; its start and end tokens count.
      pooled: [T, P] float32 of unit length, one vector a text.
      truncated: for each text the character where it was cut, None where it is whole. Characters
        are those of `clean(text)`.
    """

    tokens: np.ndarray
    mask: np.ndarray
    pooled: np.ndarray
    truncated: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder.

    Attributes:
      name: as `text_encoders.load` takes it.
      revision: version of its package, commit on the Hub, or 'local'. `load(name, revision)` loads
        the same encoder again.
      sha256: of its weights.
      width: E, of a token.
      pooled_width: P, of a text.
      encode: (texts, max_tokens) -> Features with L = max_tokens. Texts are cleaned first.
    """

    name: str
    revision: str
    sha256: str
    width: int
    pooled_width: int
    encode: Callable[[list[str], int], TextFeatures] = dataclasses.field(repr=False)


def clean_text(text):
    """Return a prompt on one line, without control characters or lone surrogates.

    Raises:
      ValueError: the text is empty.
    """
    shown = (c for c in text if c.isspace() or not unicodedata.category(c).startswith("C"))
    words = "".join(shown).split()
    if not words:
        raise ValueError("the prompt is empty; describe the music, or leave it out")
    return " ".join(words)


def find_cut(encoding):
    """Return the character at which a `tokenizers.Encoding` was truncated, or None."""
    return max(end for _, end in encoding.offsets) if encoding.overflowing else None


def l2_normalize(vectors):
    """Return vectors of unit length.  # [T, P] -> [T, P]"""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def clean_texts(texts, max_tokens, limit):
    """Return the texts, cleaned.

    Raises:
      ValueError: there is none, one is empty, or an encoder does not take `max_tokens`.
    """
    if not texts:
        raise ValueError("there are no texts to encode")
    if not 3 <= max_tokens <= limit:
        raise ValueError(f"max_tokens={max_tokens}: this text encoder takes from 3 to {limit}")
    return [clean_text(text) for text in texts]
