"""A tagger as a job of the train loop: a head on the tokens of one block of a diffusion trunk.

wave -> stft -> encode: x_0 -> q_sample at a small fixed t: x_t -> DiT's tokens -> head -> logits
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax import (
    build,
    checkpoints,
    conditions,
    data,
    optimizers,
    prepare,
    pretrained,
    run,
    tag_rules,
    tags,
    trained,
)
from specdiff_jax.audio import augment
from specdiff_jax.audio import representation as representations
from specdiff_jax.logs import say
from specdiff_jax.models.heads import PooledHead
from specdiff_jax.state import init_state

FREE = tuple(name for name in run.FREE if name != "tag")  # sections a resume may change
HEAD_KEY, NOISE_KEY, MIX_KEY, MASK_KEY = (build.OWN_KEY + 10 + k for k in range(4))


class Tagger:
    """All that train.loop asks of a job, and what scores songs.

    The representation has no statistics, and the trunk no conditions, until `begin` or `restore`.
    """

    def __init__(self, config):
        self.config = config
        self.rep = build.representation(config)
        self.samples = augment.samples_needed(self.rep.samples, build.augmentation(config))
        self.schedule = build.schedule(config)
        self.tx = tag_rules.optimizer(config, build.num_steps(config, crops=1))  # to restore into
        self.know(conditions.Vocabulary(), None)

    def take_songs(self):
        """The songs to learn from, their tags, and how long; not needed to predict."""
        config, t = self.config, self.config.tag
        songs = prepare.songs_of(config, "train", self.samples)
        self.tags = tags.tags_of(songs, t.kinds, t.min_songs)
        self.songs = tags.labelled(songs, self.tags, "train")
        self.valid_songs = self.held_out("valid")
        self.num_steps = build.num_steps(config, data.epoch_size(self.songs, self.samples))
        self.tx = tag_rules.optimizer(config, self.num_steps)

    def held_out(self, split):
        songs = prepare.songs_of(self.config, split, self.rep.samples)
        return tags.labelled(songs, self.tags, split)

    def know(self, vocabulary, cross_heads):
        """Takes the trunk's vocabulary, and the model that knows it."""
        self.vocabulary, self.cross_heads = vocabulary, cross_heads
        with_heads = self.config.copy_and_resolve_references()
        with_heads.condition.cross_heads = cross_heads
        self.model = build.model(with_heads, self.rep.shape, vocabulary)

    def head(self):
        return PooledHead(len(self.tags.names), self.config.tag.queries)

    def init(self, trunk=None):
        """The state at step 0, with this trunk, else a function of the config alone."""
        if trunk is None:
            trunk = build.initial_params(self.config, self.model, self.rep.shape)
        tokens = jnp.zeros((1, 1, self.config.model.width))
        key = jax.random.fold_in(jax.random.key(self.config.seed), HEAD_KEY)
        head = self.head().init(key, tokens)["params"]
        return init_state({"trunk": trunk, "head": head}, self.tx)

    def begin(self):
        """The state at step 0 and, in `self.rep`, statistics: fresh, or of finetune.init_from."""
        f, crops = self.config.finetune, self.config.representation.fit_crops
        own = self.rep
        if f.init_from is not None:
            old = pretrained.read(f.init_from)
            tag_rules.refuse_other_model(old.config, self.config)
            self.rep = pretrained.representation(old.rep, own)
            self.know(old.vocabulary, old.config.condition.cross_heads)
        if f.init_from is None or f.new_statistics:
            self.rep = representations.fit(own, run.fixed_crops(self.songs, own, crops))
        if f.init_from is None:
            return self.init()
        fresh = build.initial_params(self.config, self.model, self.rep.shape)
        trunk, fates = pretrained.fitted(fresh, old, self.config, self.rep.shape, old.vocabulary)
        for line in pretrained.lines(f.init_from, fates) + pretrained.changes(old, self.config):
            say(line)
        return self.init(trunk)

    def to_dict(self):
        """What a checkpoint keeps beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
            "vocabulary": dataclasses.asdict(self.vocabulary),
            "cross_heads": self.cross_heads,
            "tags": dataclasses.asdict(self.tags),
        }

    def restore(self, workdir, step):
        """The state of a checkpoint and, in self, its tags and representation."""
        saved = trained.completed(checkpoints.read_run(workdir, step))
        run.refuse_changed(saved["config"], self.config.to_dict(), self.config.workdir, FREE)
        self.rep = representations.from_dict(saved["representation"])
        self.know(conditions.vocabulary_from(saved["vocabulary"]), saved["cross_heads"])
        self.tags = tags.Tags(tuple(saved["tags"]["names"]), saved["tags"]["one"])
        return checkpoints.restore(workdir, step, jax.eval_shape(self.init))

    # ---- what train.loop asks for

    def feed(self, dispatches):
        tables = conditions.tables(conditions.Vocabulary(self.tags.names), self.songs)
        return run.fed(self.config, self.songs, self.samples, tables, dispatches)

    def train_step(self):
        told = conditions.Vocabulary(self.tags.names)  # the loss is told the tags
        average = tag_rules.held_average(self.config, optimizers.averaging(self.config))
        return run.dispatch_of(self.config, self.samples, told, self.loss(), self.tx, average)

    def loss(self):
        """(params, (wave, Condition of tags), key) -> (loss, {})."""
        t, settings = self.config.tag, build.augmentation(self.config)
        true = self.tags.of(self.songs)
        compare = tag_rules.comparison(true, self.tags.one, t.balance)

        def loss(params, batch, key):
            wave, truth = batch[0], batch[1].labels  # [B, V]
            channels = wave.reshape(len(wave), self.config.data.channels, -1)
            wave = augment.augment(
                channels, jax.random.fold_in(key, build.OWN_KEY), settings, self.rep.samples
            )
            if t.mix_up is not None:
                wave, truth = tag_rules.mixed(
                    wave, truth, jax.random.fold_in(key, MIX_KEY), t.mix_up
                )
            x_0 = self.rep.encode(wave.reshape(batch[0].shape[:-1] + wave.shape[-1:]))
            if t.band_masks or t.time_masks:
                bands, spans = t.band_masks or (0, 0), t.time_masks or (0, 0)
                mask_key = jax.random.fold_in(key, MASK_KEY)
                x_0 = augment.spec_augment(x_0, mask_key, *bands, *spans)
            eps = jax.random.normal(jax.random.fold_in(key, NOISE_KEY), x_0.shape)
            return compare(self.logits(tag_rules.held(self.config, params), x_0, eps), truth), {}

        return loss

    # ---- what a trunk and a head make of sound

    def tokens(self, trunk, x_0, eps):
        """The tokens of the chosen block at the chosen noise level.  # -> [B, L, D]"""
        tag = self.config.tag
        blocks = build.features(self.config, self.model, trunk, self.schedule, x_0, eps, tag.t)
        return blocks[tag.block]

    def logits(self, params, x_0, eps):
        """[B, V]"""
        tokens = self.tokens(params["trunk"], x_0, eps)
        return self.head().apply({"params": params["head"]}, tokens)

    def likely(self):
        """(params, wave [B, N]) -> how likely each tag is.  # [B, V]

        Every window sees the same noise, so that what is said of one depends on nothing else.
        """
        link = jax.nn.softmax if self.tags.one else jax.nn.sigmoid

        @jax.jit
        def of(params, wave):
            x_0 = self.rep.encode(wave)
            eps = jax.random.normal(jax.random.key(NOISE_KEY), (1, *x_0.shape[1:]))
            return link(self.logits(params, x_0, jnp.broadcast_to(eps, x_0.shape)))

        return of


def heard(likely, params, sound, config):
    """How likely each tag is in windows, computed a batch at a time.

    Args:
      likely: what Tagger.likely gives.
      sound: [..., N, A] int16, or [..., N] or [..., A, N] float32 waves of songs and windows.

    Returns:
      [S, W, V] of sound [S, W, ...].
    """
    songs, windows = sound.shape[:2]
    flat, size = sound.reshape(songs * windows, *sound.shape[2:]), config.train.batch_size
    found = []
    for start in range(0, len(flat), size):
        batch = flat[start : start + size]
        wave = data.to_wave(batch) if batch.dtype == np.int16 else batch
        padding = ((0, size - len(wave)),) + ((0, 0),) * (wave.ndim - 1)
        found.append(np.asarray(likely(params, np.pad(wave, padding)))[: len(wave)])
    return np.concatenate(found).reshape(songs, windows, -1)
