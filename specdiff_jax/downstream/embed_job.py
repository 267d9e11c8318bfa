"""An embedding as a job of the train loop: a head that puts sounds of a song near each other.

wave -> stft -> x_0 -> x_t at a small t -> DiT's tokens -> attention pooling -> projection -> z [E]
two crops of each song: z near each other, far from other songs'; a caption of the song near both
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from specdiff_jax.audio import augment
from specdiff_jax.conditioning.labels import label_table
from specdiff_jax.conditioning.text import TextValue, caption_table, draw_captions
from specdiff_jax.config import build
from specdiff_jax.data import caption_features, crops, feeding, prepare
from specdiff_jax.downstream import backbone, contrastive, embed_rules, tag_labels
from specdiff_jax.models.heads import EmbeddingHead, TextHead
from specdiff_jax.runtime import random_streams
from specdiff_jax.training import checkpoints, optimizers, train_state
from specdiff_jax.training.train_state import init_state

FREE = tuple(name for name in checkpoints.FREE if name not in ("head", "embed"))


class Told(NamedTuple):
    """What the loss knows of the crops of a batch; None where the config asks for no such thing."""

    song: Any  # [B] int32
    tags: Any = None  # [B, V] float32
    text: Any = None  # [B] int32, the row of the caption drawn
    known: Any = None  # [B] bool, whether the song has a caption
    pooled: Any = None  # [B, P] float32, of that caption


class Embedding:
    """All that train.loop asks of a job, and what makes vectors of sounds and texts.

    `text` tells which encoder reads captions: after take_songs or restore, None without.
    """

    def __init__(self, config):
        self.config = config
        self.trunk = backbone.Backbone(config)
        self.samples = augment.samples_needed(self.rep.samples, build.augmentation(config))
        self.tx = self.optimizer(build.num_steps(config, crops=1))  # to restore into
        self.text = None

    @property
    def rep(self):
        return self.trunk.rep

    def optimizer(self, steps):
        return backbone.optimizer(self.config, steps)

    def take_songs(self):
        """The songs to learn from, what they are called, and how long; not needed to embed.

        Raises:
          ValueError: fewer than two songs, none with a caption, or no tags of the kinds.
        """
        config, e = self.config, self.config.embed
        self.songs = prepare.load_split(config, "train", 2 * self.samples)
        self.valid_songs = self.held_out("valid")
        names = ()
        if e.kinds:
            made = tag_labels.tags_of(self.songs, e.kinds, e.min_songs or 1, "embed")
            self.songs, names = tag_labels.labelled(self.songs, made, "train", "embed"), made.names
        refuse_one(self.songs, "train")
        features = None
        if e.text:
            place = prepare.locate_cache(config)
            caption_features.prepare_features(place, e.text, e.max_tokens, "embed.text")
            self.text, features = caption_features.read_features(place, e.text, e.max_tokens)
            if not any(entry["captions"] for entry in self.songs.entries):
                raise ValueError(f"embed.text={e.text!r}: no train song has a caption; unset it")
        self.tables = {"labels": label_table(self.songs, names) if names else None}
        if features:
            table = caption_table(self.songs, features)
            pooled = TextValue(None, None, table.features.pooled)  # only whole texts are compared
            self.tables["captions"] = table._replace(features=pooled)
        self.num_steps = build.num_steps(config, crops.epoch_size(self.songs, self.samples))
        self.tx = self.optimizer(self.num_steps)

    def held_out(self, split):
        songs = prepare.load_split(self.config, split, 2 * self.rep.samples)
        refuse_one(songs, split)
        return songs

    def head(self):
        return EmbeddingHead(self.config.embed.dim, self.config.head.pool_queries)

    def text_head(self):
        return TextHead(self.config.embed.dim)

    def init(self, trunk=None):
        """The state at step 0, with this trunk, else a function of the config alone."""
        trunk = self.trunk.init() if trunk is None else trunk
        key = jax.random.key(self.config.seed)
        tokens = jnp.zeros((1, 1, self.config.model.width))
        head = self.head().init(jax.random.fold_in(key, random_streams.HEAD_INIT), tokens)["params"]
        params = {"trunk": trunk, "head": head}
        if scales := embed_rules.scales(self.config.embed):
            params["scales"] = scales
        if self.text:
            pooled = jnp.zeros((1, self.text["pooled_width"]))
            text_key = jax.random.fold_in(key, random_streams.TEXT_HEAD_INIT)
            params["text"] = self.text_head().init(text_key, pooled)["params"]
        return init_state(params, self.tx)

    def start(self):
        """The state at step 0 and, in `self.rep`, statistics: fresh, or of finetune.init_from."""
        return self.init(self.trunk.start(self.songs))

    def to_dict(self):
        """What a checkpoint keeps beside the state, for `json`."""
        return self.trunk.to_dict() | {"embedding": {"text": self.text}}

    def restore(self, step, workdir=None):
        """The state of a checkpoint and, in self, its text encoder and representation."""
        workdir = workdir or self.config.workdir
        saved = checkpoints.read_run(workdir, step)
        checkpoints.refuse_changed(saved["config"], self.config, FREE)
        self.trunk.restore(saved)
        self.text = saved["embedding"]["text"]
        return checkpoints.restore(workdir, step, jax.eval_shape(self.init))

    # ---- what train.loop asks for

    def feed(self, dispatches):
        draw = crops.draw_pair_offsets
        return feeding.feed(self.config, self.songs, self.samples, self.tables, dispatches, draw)

    def validation(self, step):
        return self.make_validation(step)

    def train_step(self):
        average = optimizers.ema_update(self.config)
        return train_state.make_dispatch(
            self.config, self.samples, tell, self.loss(), self.tx, average
        )

    def loss(self):
        """(params, (wave, Told), key) -> (loss, {"sound_loss", "text_loss"})."""
        settings, e = build.augmentation(self.config), self.config.embed

        def loss(params, batch, key):
            wave, told = batch
            channels = wave.reshape(len(wave), self.config.data.channels, -1)
            own_key = jax.random.fold_in(
                key, random_streams.AUGMENTATION
            )  # every crop draws its own changes
            changed = augment.augment(channels, own_key, settings, self.rep.samples)
            x_0 = self.rep.encode(changed.reshape(wave.shape[:-1] + changed.shape[-1:]))
            eps = jax.random.normal(
                jax.random.fold_in(key, random_streams.BACKBONE_NOISE), x_0.shape
            )
            params = backbone.held(self.config, params)
            vectors = self.placed(params, self.trunk.tokens(params["trunk"], x_0, eps))
            scales = params.get("scales", {})
            found = {"sound_loss": sound_loss(e, scales, vectors, told)}
            total = found["sound_loss"]
            if e.text:
                texts = self.text_head().apply({"params": params["text"]}, told.pooled)
                found["text_loss"] = text_loss(e, scales, vectors, texts, told)
                total += found["text_loss"] * (1.0 if e.text_weight is None else e.text_weight)
            return total, found

        return loss

    # ---- what becomes of sound and of texts

    def placed(self, params, tokens):
        """[B, L, D] -> [B, E] of length one."""
        return self.head().apply({"params": params["head"]}, tokens)

    def vectors(self):
        """The jitted (params, wave [B, N] or [B, A, N]) -> [B, E] of length one."""
        return jax.jit(
            lambda params, wave: self.placed(params, self.trunk.heard(params["trunk"], wave))
        )

    def read(self, params, pooled):
        """Pooled vectors of texts, placed among the sounds.  # [B, P] -> [B, E]"""
        return self.text_head().apply({"params": params["text"]}, pooled)


def refuse_one(songs, split):
    if len(songs.entries) < 2:
        more = "add songs" if split == "train" else f"raise data.{split}_fraction or add songs"
        raise ValueError(
            f"--mode=embed: one {split} song alone holds two crops, so there is none to tell it "
            f"from; {more}"
        )


def tell(tables, batch, key):
    """The Told of crops."""
    told = Told(batch.song)
    if tables["labels"] is not None:
        told = told._replace(tags=tables["labels"][batch.song].astype(jnp.float32))
    if "captions" in tables:
        text, known = draw_captions(tables["captions"], batch.song, key)
        pooled = tables["captions"].features.pooled[text]
        told = told._replace(text=text, known=known, pooled=pooled)
    return told


def sound_loss(e, scales, vectors, told):
    """Of crops among each other: by their songs, or by their songs' tags.  # vectors: [B, E]"""
    pairs = contrastive.partners(told.song)
    if told.tags is not None:
        pairs = contrastive.tagged(told.song, told.tags)
    scores = embed_rules.scaled(vectors @ vectors.T, scales.get("sound"), e.temperature)
    return contrastive.LOSSES[e.loss](scores, *pairs)


def text_loss(e, scales, vectors, texts, told):
    """Of crops and captions, both ways.  # vectors, texts: [B, E]"""
    together, counted = contrastive.told(told.song, told.text, told.known)
    scores = embed_rules.scaled(vectors @ texts.T, scales["text"])
    loss = contrastive.LOSSES[e.loss]
    return (loss(scores, together, counted) + loss(scores.T, together.T, counted.T)) / 2
