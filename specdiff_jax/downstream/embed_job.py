"""Embedding for search as a task of a HeadJob: what comes of crops and captions, and its losses.

tokens [B, L, D] -> attention pooling -> Dense -> vectors [B, E] of length one
two crops of each song: similar to each other, not to other songs'; so is a caption of the song
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning.labels import label_table
from specdiff_jax.conditioning.text import TextValue, caption_table, draw_captions
from specdiff_jax.data import caption_features, crops, prepare
from specdiff_jax.downstream import contrastive
from specdiff_jax.downstream.backbone import map_windows
from specdiff_jax.downstream.head_job import HeadJob
from specdiff_jax.downstream.tag_job import fit_tags, select_tagged
from specdiff_jax.evaluation.metrics import retrieval
from specdiff_jax.models.heads import EmbeddingHead, TextHead
from specdiff_jax.runtime import random_streams
from specdiff_jax.runtime.logs import log
from specdiff_jax.training.validation import BestCheckpoint

KIND, SCORE = "embedding", "recall_1"  # of the lines in metrics.jsonl; the best on valid is kept


class Targets(NamedTuple):
    """What the loss compares crops by; None where the config has no such targets."""

    song: Any  # [B] int32
    tags: Any = None  # [B, V] float32
    text: Any = None  # [B] int32, the row of the caption drawn
    has_text: Any = None  # [B] bool, whether the song has a caption
    pooled: Any = None  # [B, P] float32, of that caption


class EmbedTask:
    """What a HeadJob needs to train vectors for search.

    `text` describes the encoder of captions after fit_songs or from_dict; None without captions.
    """

    section, crops_per_song = "embed", 2

    def __init__(self, config):
        self.config, self.text = config, None

    def head(self):
        return EmbeddingHead(self.config.embed.dim, self.config.head.pool_queries)

    def text_head(self):
        return TextHead(self.config.embed.dim)

    def init_head(self, key, width):
        """Return the parameters beside the backbone's, a function of the key alone."""
        head_key = jax.random.fold_in(key, random_streams.HEAD_INIT)
        params = {"head": self.head().init(head_key, jnp.zeros((1, 1, width)))["params"]}
        if scales := contrastive.init_scales(self.config.embed):
            params["scales"] = scales
        if self.text:
            pooled = jnp.zeros((1, self.text["pooled_width"]))
            text_key = jax.random.fold_in(key, random_streams.TEXT_HEAD_INIT)
            params["text"] = self.text_head().init(text_key, pooled)["params"]
        return params

    def to_dict(self):
        return {"embedding": {"text": self.text}}

    def from_dict(self, saved):
        self.text = saved["embedding"]["text"]

    def fit_songs(self, songs):
        """Take the tags and captions of training songs, and return the songs that can be used.

        Raises:
          ValueError: fewer than two songs, none with a caption, or no tags of the kinds.
        """
        e, self.names = self.config.embed, ()
        if e.kinds:
            tags = fit_tags(songs, e.kinds, e.min_songs or 1, "embed")
            songs, self.names = select_tagged(songs, tags, "train", "embed"), tags.names
        refuse_single_song(songs, "train")
        if e.text:
            place = prepare.locate_cache(self.config)
            caption_features.prepare_features(place, e.text, e.max_tokens, "embed.text")
            self.text, self.features = caption_features.read_features(place, e.text, e.max_tokens)
            if not any(entry["captions"] for entry in songs.entries):
                raise ValueError(f"embed.text={e.text!r}: no train song has a caption; unset it")
        return songs

    def select_songs(self, songs, split):
        refuse_single_song(songs, split)
        return songs

    def tables(self, songs):
        """Return {"labels": tags [S, V] or None}, and "captions" if embed.text is set."""
        tables = {"labels": label_table(songs, self.names) if self.names else None}
        if self.text:
            table = caption_table(songs, self.features)
            pooled = TextValue(None, None, table.features.pooled)  # only whole texts are compared
            tables["captions"] = table._replace(features=pooled)
        return tables

    def draw_targets(self, tables, batch, key):
        """Return the Targets of crops, one caption of each drawn."""
        targets = Targets(batch.song)
        if tables["labels"] is not None:
            targets = targets._replace(tags=tables["labels"][batch.song].astype(jnp.float32))
        if "captions" in tables:
            text, has_text = draw_captions(tables["captions"], batch.song, key)
            pooled = tables["captions"].features.pooled[text]
            targets = targets._replace(text=text, has_text=has_text, pooled=pooled)
        return targets

    def augment(self, wave, targets, key):
        return wave, targets

    def mask(self, x_0, key):
        return x_0

    def loss(self, params, tokens, targets):
        """Return (loss, {"sound_loss", "text_loss"})."""
        e, scales = self.config.embed, params.get("scales", {})
        vectors = self.vectors(params, tokens)
        metrics = {"sound_loss": sound_loss(e, scales, vectors, targets)}
        total = metrics["sound_loss"]
        if e.text:
            texts = self.text_vectors(params, targets.pooled)
            metrics["text_loss"] = text_loss(e, scales, vectors, texts, targets)
            total += metrics["text_loss"] * (1.0 if e.text_weight is None else e.text_weight)
        return total, metrics

    def vectors(self, params, tokens):
        """Return vectors of length one.  # [B, L, D] -> [B, E]"""
        return self.head().apply({"params": params["head"]}, tokens)

    def text_vectors(self, params, pooled):
        """Return vectors of length one of pooled text features.  # [B, P] -> [B, E]"""
        return self.text_head().apply({"params": params["text"]}, pooled)

    def validation(self, job, step):
        return EmbedValidation(job, step)


def make_job(config):
    """Return the HeadJob that trains the embedding of a config."""
    return HeadJob(config, EmbedTask(config))


def make_embed(job):
    """Return the jitted (params, wave [B, N] or [B, A, N]) -> [B, E] of length one."""
    return jax.jit(lambda params, wave: job.task.vectors(params, job.wave_tokens(params, wave)))


def refuse_single_song(songs, split):
    """Raise ValueError unless there are two songs: a crop needs a negative."""
    if len(songs.entries) < 2:
        remedy = "add songs" if split == "train" else f"raise data.{split}_fraction or add songs"
        raise ValueError(
            f"--mode=embed: a single {split} song leaves its crops no song to differ from; {remedy}"
        )


# ---- losses


def sound_loss(e, scales, vectors, targets):
    """Return the loss of crops [B, E] against each other: by their songs, or their songs' tags."""
    if targets.tags is None:
        weights, mask = contrastive.crop_pairs(targets.song)
    else:
        weights, mask = contrastive.tag_pairs(targets.song, targets.tags)
    scores = contrastive.scale_cosines(vectors @ vectors.T, scales.get("sound"), e.temperature)
    return contrastive.LOSSES[e.loss](scores, weights, mask)


def text_loss(e, scales, vectors, texts, targets):
    """Return the mean loss of crops against captions and of captions against crops, [B, E] each."""
    weights, mask = contrastive.text_pairs(targets.song, targets.text, targets.has_text)
    scores = contrastive.scale_cosines(vectors @ texts.T, scales["text"])
    loss = contrastive.LOSSES[e.loss]
    return (loss(scores, weights, mask) + loss(scores.T, weights.T, mask.T)) / 2


# ---- validation


class EmbedValidation:
    """Scores the EMA by retrieval on the valid songs, and keeps the best checkpoint."""

    def __init__(self, job, step):
        self.job, self.measure = job, RetrievalMetrics(job, job.valid_songs)
        self.best = BestCheckpoint(job, KIND, SCORE, job.config.head.patience, step)
        self.stopped = self.best.stopped

    def __call__(self, state, step, logs):
        """Return whether to stop: head.patience validations passed without a better score."""
        metrics = self.measure(state.ema_params)
        best_step, best = self.best.update(state, step, metrics, {"valid": metrics}, logs)
        with_text = self.job.task.text is not None
        texts = f", of a caption's song {metrics['text_recall_1']:.4f}" if with_text else ""
        log(
            f"embed: recall@1 of another crop {metrics[SCORE]:.4f}{texts} on valid at step {step} "
            f"of {self.job.num_steps}; the best is {best:.4f} at step {best_step}"
        )
        return self.stopped()


class RetrievalMetrics:
    """params -> {name: value}: how well windows retrieve other windows of their song.

    A window's neighbors that overlap it are left out. Captions retrieve songs, if there are some.
    """

    def __init__(self, job, songs):
        count, samples = job.config.head.windows, job.rep.samples
        self.job, self.songs, self.embed = job, songs, make_embed(job)
        self.waves = crops.read_spread_crops(songs, samples, count)  # [S, W, N, A]
        offsets = crops.spread_offsets(songs, samples, count).reshape(-1)
        song = np.repeat(np.arange(len(songs.entries)), count)
        self.relevant = song[:, None] == song[None]  # [S * W, S * W]
        overlap = np.abs(offsets[:, None] - offsets[None]) < samples
        self.excluded = self.relevant & overlap
        self.captions = read_captions(job, songs) if job.task.text else None

    def __call__(self, params):
        size = self.job.config.train.batch_size
        vectors = map_windows(self.embed, params, self.waves, size)  # [S, W, E]
        flat = vectors.reshape(-1, vectors.shape[-1])
        result = retrieval.measure_retrieval(flat @ flat.T, self.relevant, self.excluded)
        metrics = to_metrics(result)
        if self.captions is None:
            return metrics
        relevant, pooled = self.captions
        texts = np.asarray(jax.jit(self.job.task.text_vectors)(params, pooled))  # [K, E]
        scores = np.einsum("ke,swe->ksw", texts, vectors).max(axis=2)  # as search ranks songs
        by_text = to_metrics(retrieval.measure_retrieval(scores, relevant))
        return metrics | {f"text_{name}": value for name, value in by_text.items()}


def to_metrics(result):
    """Return {name: value} of a Retrieval."""
    recalls = {f"recall_{k}": value for k, value in result.recall.items()}
    return recalls | {"mrr": result.mrr, "map_10": result.map_10, "queries": result.queries}


def read_captions(job, songs):
    """Return (which songs have each caption [K, S], its pooled features [K, P]) of songs.

    Raises:
      ValueError: no song has a caption.
    """
    e = job.config.embed
    place = prepare.locate_cache(job.config)
    _, (row_of, (_, _, pooled)) = caption_features.read_features(place, e.text, e.max_tokens)
    captions = sorted({caption for entry in songs.entries for caption in entry["captions"]})
    if not captions:
        raise ValueError(
            f"embed.text={e.text!r}: no held-out song has a caption; unset it, or raise "
            "data.valid_fraction and data.test_fraction"
        )
    has = np.array([[c in entry["captions"] for entry in songs.entries] for c in captions])
    return has, pooled[[row_of[caption] for caption in captions]]
