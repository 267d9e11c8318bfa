"""The condition of a text: a song's caption, or a prompt, as a frozen text encoder embeds it."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning import text_encoders
from specdiff_jax.models.layers import Dense


class TextValue(NamedTuple):
    """The value of a text. An item without a condition has a mask of False throughout."""

    tokens: Any  # [B, S, E] features of each token
    mask: Any  # [B, S] bool, where there is a token
    pooled: Any  # [B, P] features of the text as a whole


class CaptionTable(NamedTuple):
    """The captions of all songs, song after song, and the features of all texts."""

    captions: Any  # [C] int32, the row of each caption among the texts
    first: Any  # [S] int32, where a song's captions begin
    count: Any  # [S] int32, how many it has
    features: TextValue  # of all texts: tokens float16, pooled float32


@dataclasses.dataclass(frozen=True)
class Text:
    """Texts as one frozen encoder embeds them, which these fields identify."""

    kind: ClassVar[str] = "text"
    field: ClassVar[str] = "prompt"  # of a Prompt

    name: str  # as `text_encoders.load` takes it
    revision: str
    sha256: str  # of its weights
    width: int  # E, of a token
    pooled_width: int  # P, of a text
    max_tokens: int  # S

    @property
    def token_width(self):
        """E: the tokens of a text enter the cross-attention as they are."""
        return self.width

    @classmethod
    def check(cls, config):
        """Return {field of config.condition that texts use: whether it must be set}."""
        return {"max_tokens": True, "modality_dropout": True}

    @classmethod
    def fit(cls, config, songs, encoder):
        """Return the Text of the encoder that embedded the captions.

        Args:
          encoder: {field of this class: value}.
        """
        return cls(**encoder)

    def describe(self):
        """Return the encoder in words."""
        return f"text, encoded by {self.name}"

    # ---- of songs

    def table(self, songs, features):
        """Return the CaptionTable of songs."""
        return caption_table(songs, features)

    def draw(self, table, batch, key):
        """Return one caption of the song of each crop: a random one, the first without a key."""
        text, has_caption = draw_captions(table, batch.song, key)
        value = jax.tree.map(lambda x: x[text], table.features)
        return value._replace(mask=value.mask & has_caption[:, None])

    # ---- in the network

    def null(self, batch):
        """Return the value of `batch` items without a condition, with room for one token."""
        return TextValue(
            tokens=jnp.zeros((batch, 1, self.width)),
            mask=jnp.zeros((batch, 1), bool),
            pooled=jnp.zeros((batch, self.pooled_width)),
        )

    def dropout(self, value, dropout):
        """Return the value with texts, and tokens of texts, dropped at random."""
        kept = dropout.items & dropout.kind() & dropout.elements(value.mask.shape)
        return value._replace(mask=value.mask & kept)

    def vector(self, module, value, width):
        """Return a linear map of the pooled features, a learned vector without text.  # [B, D]"""
        no_text = module.param("no_text", jax.nn.initializers.normal(0.02), (1, width))
        text = Dense(width, use_bias=False, name="text")(normalize_features(value.pooled))
        return jnp.where(value.mask.any(axis=1, keepdims=True), text, no_text)

    def tokens(self, module, value, width):
        """Return (the features of each token [B, S, E], mask [B, S])."""
        return normalize_features(value.tokens), value.mask

    # ---- of prompts

    def parse(self, text):
        """Return (text, ())."""
        return text, ()

    def encode(self, text, texts):
        """Return the value of one item with a text, or without one.

        Args:
          texts: maps a text to its TextValue.
        """
        if text is not None:
            return texts(text)
        return TextValue(
            tokens=np.zeros((self.max_tokens, self.width), np.float16),
            mask=np.zeros(self.max_tokens, bool),
            pooled=np.zeros(self.pooled_width, np.float32),
        )

    def load_encoder(self):
        """Load the TextEncoder that the model was trained with.

        Raises:
          ValueError: it cannot be loaded, or its weights differ.
        """
        encoder = text_encoders.load(self.name, self.revision)
        if encoder.sha256 != self.sha256:
            raise ValueError(
                f"text encoder {self.name!r} has weights {encoder.sha256[:12]}, the checkpoint was "
                f"trained with {self.sha256[:12]} (revision {self.revision}); install that one"
            )
        return encoder


def caption_table(songs, features):
    """Return the CaptionTable of songs.

    Args:
      features: {caption: row} and (tokens, mask, pooled) of all captions; see
        data/caption_features.py.
    """
    row_of, arrays = features
    rows = [[row_of[caption] for caption in entry["captions"]] for entry in songs.entries]
    count = np.array([len(row) for row in rows], np.int32)
    captions = np.array([text for row in rows for text in row] + [0], np.int32)
    first = np.cumsum(count, dtype=np.int32) - count
    return CaptionTable(captions, first, count, TextValue(*arrays))


def draw_captions(table, song, key=None):
    """Return (row among the texts, whether there is one) of a caption of each song.  # [B], [B]"""
    count = table.count[song]
    which = 0 if key is None else jax.random.randint(key, song.shape, 0, jnp.maximum(count, 1))
    return table.captions[table.first[song] + which], count > 0


def normalize_features(features):
    """Return features of any encoder at unit mean square, float32.  # [..., E], as it"""
    features = features.astype(jnp.float32)
    square = jnp.mean(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(square + 1e-12)
