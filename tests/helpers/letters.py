"""A text encoder that needs no download, and a run whose songs have labels, captions a tempo."""

import json

import numpy as np
import pytest

from specdiff_jax.audio import files
from specdiff_jax.conditioning import text_encoders
from specdiff_jax.conditioning.text_encoders import encoder as text_features_of
from specdiff_jax.data import prepare
from specdiff_jax.training import train
from tests.helpers import synth
from tests.helpers.nano import RATE, small_config


def load_letters(place, revision=None):
    """A text encoder that counts letters: no download, and other words are other features."""

    def encode(texts, max_tokens):
        counts = np.zeros((len(texts), max_tokens, 8), np.float16)
        for row, text in enumerate(texts):
            for place, letter in enumerate(text[:max_tokens]):
                counts[row, place, ord(letter) % 8] = 1
        mask = counts.any(axis=2)
        cut = tuple(max_tokens if len(text) > max_tokens else None for text in texts)
        pooled = counts.sum(axis=1).astype(np.float32) + 0.1
        return text_features_of.TextFeatures(counts, mask, pooled, cut)

    return text_features_of.TextEncoder("letters", "1", "weights", 8, 8, encode)


@pytest.fixture(scope="module", autouse=True)
def letters():
    text_encoders.TEXT_ENCODERS["letters"] = load_letters
    yield
    del text_encoders.TEXT_ENCODERS["letters"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on songs of two kinds, with a label, a caption and a tempo each."""
    folder = tmp_path_factory.mktemp("conditional")
    for kind, pitch in (("low", 110.0), ("high", 1760.0)):
        for song in range(8):
            rng = np.random.default_rng([song, int(pitch)])
            path = folder / "music" / f"{kind} {song}" / "song.wav"
            files.write(path, synth.chords(pitch * 2 ** (0.3 * rng.random(8)), 0.5, RATE), RATE)
            labels = [kind, f"{kind} register", f"{kind} pitch"]
            about = {"labels": labels, "captions": [f"{kind} notes", f"all {kind}"], "tempo": 120}
            path.with_suffix(".json").write_text(json.dumps(about))
    config = small_config(folder / "music", folder / "cache", folder)
    config.condition.update(labels=True, min_songs=1, text="letters", max_tokens=12)
    config.condition.update(cross_heads=1, scalars=("tempo", "start"), dropout=0.1)
    config.condition.update(modality_dropout=0.5, token_dropout=0.3)
    config.train.update(num_steps=300, eval_every=300, checkpoint_every=300, steps_per_dispatch=20)
    config.optimizer.update(learning_rate=5e-3, warmup_steps=10)
    prepare.run(config)
    train.run(config)
    return config
