"""A new kind of condition takes one class and one dict entry: here, the artist of a song."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.conditioning import vocabulary
from specdiff_jax.conditioning.conditioners import CONDITIONERS
from specdiff_jax.conditioning.prompts import Prompt, prompt_of, read_prompts
from specdiff_jax.data import prepare
from specdiff_jax.sampling import check_config, generator, sample
from specdiff_jax.training import train, trained_model


@dataclasses.dataclass(frozen=True)
class Artist:
    """The artist of a song; a value is [B, A] float32, one-hot, zero for other artists."""

    kind: ClassVar[str] = "artist"
    field: ClassVar[str] = "artist"
    token_width: ClassVar[None] = None

    names: tuple[str, ...]

    @classmethod
    def check(cls, config):
        return {}

    @classmethod
    def fit(cls, config, songs, encoder):
        return cls(tuple(sorted({artist_of(entry) for entry in songs.entries})))

    def describe(self):
        return "artist: " + ", ".join(self.names)

    def table(self, songs, features):
        return np.stack([self.encode(artist_of(entry)) for entry in songs.entries])

    def draw(self, table, batch, key):
        return jnp.asarray(table)[batch.song]

    def null(self, batch):
        return jnp.zeros((batch, len(self.names)))

    def dropout(self, value, dropout):
        return value * dropout.items

    def vector(self, module, value, width):
        init = jax.nn.initializers.normal(0.3)
        return value @ module.param("artist", init, (len(self.names), width))

    def tokens(self, module, value, width):
        init = jax.nn.initializers.normal(1.0)
        table = module.param("artist_tokens", init, (len(self.names), width))
        return table[None], value > 0

    def parse(self, text):
        if text not in self.names:
            raise ValueError(f"artist {text!r} is not one of {', '.join(self.names)}")
        return text, ()

    def encode(self, name, texts=None):
        return np.array([name == artist for artist in self.names], np.float32)


def artist_of(entry):
    return entry["name"].split("/")[0]


@pytest.fixture
def config(nano, monkeypatch):
    """Return a config with the field of the toy kind, as configs/base.py would have it."""
    monkeypatch.setitem(CONDITIONERS, "artist", Artist)
    nano.condition.artist = True
    nano.condition.update(cross_heads=1, dropout=0.1, token_dropout=0.1)
    nano.sample.artist = None
    nano.train.update(num_steps=6, eval_every=6, checkpoint_every=6, steps_per_dispatch=6)
    nano.model.depth = 1
    nano.sample.batch_size = 3
    nano.optimizer.update(learning_rate=2e-2)
    return nano


def test_toy_conditioner_is_trained_saved_and_sampled_with(config):
    check_config.check(config)
    prepare.run(config)
    train.run(config)
    model = trained_model.load(config.workdir)
    (artist,) = model.vocabulary.conditioners
    assert vocabulary.from_dict(model.vocabulary.to_dict()) == model.vocabulary
    assert {"artist", "artist_tokens", "no_token"} == set(model.params["condition"])
    names = artist.names[:2]
    prompts = [Prompt(more=(("artist", name),)) for name in names]
    assert [prompt_of(prompt.set_fields()) for prompt in prompts] == prompts
    model, rep_out = sample.load_for_sampling(config)
    generate = generator.Generator(model, rep_out, prompts)
    first, second, null = generate([(prompts[0], 0), (prompts[1], 0), (Prompt(), 0)])
    assert np.abs(first - second).max() > 1e-4 < np.abs(first - null).max()
    config.sample.artist = names[0]
    assert read_prompts(config.sample) == prompts[:1]
    with pytest.raises(ValueError, match="artist 'nobody' is not one of artist 0"):
        generate.encode_prompts([Prompt(more=(("artist", "nobody"),))])
