"""A tagger as a job of the train loop: a head on the tokens of one block of a diffusion trunk.

wave -> stft -> encode: x_0 -> q_sample at a small fixed t: x_t -> DiT's tokens -> head -> logits
"""

import dataclasses

import jax
import jax.numpy as jnp

from specdiff_jax.audio import augment
from specdiff_jax.config import build
from specdiff_jax.data import crops, feeding, prepare
from specdiff_jax.downstream import backbone, tag_labels, tag_rules
from specdiff_jax.models.heads import PooledHead
from specdiff_jax.runtime import random_streams
from specdiff_jax.training import checkpoints, optimizers, train_state
from specdiff_jax.training.train_state import init_state

FREE = tuple(name for name in checkpoints.FREE if name not in ("head", "tag"))


class Tagger:
    """All that train.loop asks of a job, and what scores songs."""

    def __init__(self, config):
        self.config = config
        self.trunk = backbone.Backbone(config)
        self.samples = augment.samples_needed(self.rep.samples, build.augmentation(config))
        self.tx = self.optimizer(build.num_steps(config, crops=1))  # to restore into

    @property
    def rep(self):
        return self.trunk.rep

    def optimizer(self, steps):
        return backbone.optimizer(self.config, steps)

    def take_songs(self):
        """The songs to learn from, their tags, and how long; not needed to predict."""
        config, t = self.config, self.config.tag
        songs = prepare.load_split(config, "train", self.samples)
        self.tags = tag_labels.tags_of(songs, t.kinds, t.min_songs)
        self.songs = tag_labels.labelled(songs, self.tags, "train")
        self.valid_songs = self.held_out("valid")
        self.num_steps = build.num_steps(config, crops.epoch_size(self.songs, self.samples))
        self.tx = self.optimizer(self.num_steps)

    def held_out(self, split):
        songs = prepare.load_split(self.config, split, self.rep.samples)
        return tag_labels.labelled(songs, self.tags, split)

    def head(self):
        return PooledHead(len(self.tags.names), self.config.head.pool_queries)

    def init(self, trunk=None):
        """The state at step 0, with this trunk, else a function of the config alone."""
        if trunk is None:
            trunk = self.trunk.init()
        tokens = jnp.zeros((1, 1, self.config.model.width))
        key = jax.random.fold_in(jax.random.key(self.config.seed), random_streams.HEAD_INIT)
        head = self.head().init(key, tokens)["params"]
        return init_state({"trunk": trunk, "head": head}, self.tx)

    def start(self):
        """The state at step 0 and, in `self.rep`, statistics: fresh, or of finetune.init_from."""
        return self.init(self.trunk.start(self.songs))

    def to_dict(self):
        """What a checkpoint keeps beside the state, for `json`."""
        return self.trunk.to_dict() | {"tags": dataclasses.asdict(self.tags)}

    def restore(self, step, workdir=None):
        """The state of a checkpoint and, in self, its tags and representation."""
        workdir = workdir or self.config.workdir
        saved = checkpoints.read_run(workdir, step)
        checkpoints.refuse_changed(saved["config"], self.config, FREE)
        self.trunk.restore(saved)
        self.tags = tag_labels.Tags(tuple(saved["tags"]["names"]), saved["tags"]["one"])
        return checkpoints.restore(workdir, step, jax.eval_shape(self.init))

    # ---- what train.loop asks for

    def feed(self, dispatches):
        table = self.tags.of(self.songs)
        return feeding.feed(self.config, self.songs, self.samples, table, dispatches)

    def validation(self, step):
        return self.make_validation(step)

    def train_step(self):
        average = optimizers.ema_update(self.config)
        targets = lambda table, batch, key: table[batch.song].astype(jnp.float32)  # [B, V]
        return train_state.make_dispatch(
            self.config, self.samples, targets, self.loss(), self.tx, average
        )

    def loss(self):
        """(params, (wave, tags [B, V]), key) -> (loss, {})."""
        t, settings = self.config.tag, build.augmentation(self.config)
        true = self.tags.of(self.songs)
        compare = tag_rules.comparison(true, self.tags.one, t.class_balance)

        def loss(params, batch, key):
            wave, truth = batch  # [B, N], [B, V]
            channels = wave.reshape(len(wave), self.config.data.channels, -1)
            wave = augment.augment(
                channels,
                jax.random.fold_in(key, random_streams.AUGMENTATION),
                settings,
                self.rep.samples,
            )
            if t.mix_up is not None:
                wave, truth = tag_rules.mixed(
                    wave, truth, jax.random.fold_in(key, random_streams.TAG_MIX_UP), t.mix_up
                )
            x_0 = self.rep.encode(wave.reshape(batch[0].shape[:-1] + wave.shape[-1:]))
            if t.freq_masks or t.time_masks:
                bands, spans = t.freq_masks or (0, 0), t.time_masks or (0, 0)
                mask_key = jax.random.fold_in(key, random_streams.SPEC_AUGMENT)
                x_0 = augment.spec_augment(x_0, mask_key, *bands, *spans)
            eps = jax.random.normal(
                jax.random.fold_in(key, random_streams.BACKBONE_NOISE), x_0.shape
            )
            learning = backbone.held(self.config, params)
            tokens = self.trunk.tokens(learning["trunk"], x_0, eps)
            return compare(self.logits(learning, tokens), truth), {}

        return loss

    # ---- what a trunk and a head make of sound

    def logits(self, params, tokens):
        """[B, V]"""
        return self.head().apply({"params": params["head"]}, tokens)

    def likely(self):
        """The jitted (params, wave [B, N]) -> how likely each tag is.  # [B, V]"""
        link = jax.nn.softmax if self.tags.one else jax.nn.sigmoid
        return jax.jit(
            lambda params, wave: link(self.logits(params, self.trunk.heard(params["trunk"], wave)))
        )
