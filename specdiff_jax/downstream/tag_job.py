"""Tagging as a task of a HeadJob: which labels are tags, the head's loss, and its validation.

tokens [B, L, D] -> attention pooling -> Dense -> logits [B, V] -> cross-entropy
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import augment
from specdiff_jax.conditioning.labels import label_table, list_labels
from specdiff_jax.config import build
from specdiff_jax.data import crops
from specdiff_jax.data.songs import take_songs
from specdiff_jax.downstream import head_job
from specdiff_jax.downstream.backbone import map_windows
from specdiff_jax.downstream.head_job import HeadJob
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.models.heads import TagHead
from specdiff_jax.runtime import random_streams
from specdiff_jax.runtime.logs import log
from specdiff_jax.training.validation import BestCheckpoint

KIND, SCORE = "tags", "pr_auc_macro"  # of the lines in metrics.jsonl; the best on valid is kept


# ---- which labels are tags


@dataclasses.dataclass(frozen=True)
class Tags:
    """The tags that a tagger predicts."""

    names: tuple[str, ...]
    one: bool  # every song has exactly one of them

    def targets(self, songs):
        """Return which tags each song has.  # [S, V] bool"""
        return label_table(songs, self.names)


def fit_tags(songs, kinds, min_songs, section="tag"):
    """Return the Tags of training songs: their labels of some kinds, of all kinds if none.

    Raises:
      ValueError: there are fewer than two.
    """
    is_wanted = lambda label: not kinds or label.split(":", 1)[0] in kinds
    names = tuple(sorted(filter(is_wanted, list_labels(songs, min_songs))))
    fields = f"{section}.kinds={tuple(kinds)}, {section}.min_songs={min_songs}"
    if not names:
        present = sorted({label.split(":", 1)[0] for label in list_labels(songs)})
        has = f"the songs have {', '.join(present)}" if present else "the songs have no labels"
        raise ValueError(f"{fields} leave no tag: {has}")
    if len(names) < 2:
        raise ValueError(f"{fields} leave one tag only ({names[0]}); at least two are needed")
    counts = Tags(names, False).targets(songs).sum(axis=1)
    return Tags(names, bool((counts[counts > 0] == 1).all()))


def select_tagged(songs, tags, split, section="tag"):
    """Return the songs that have at least one tag; the tags of the others are unknown.

    Raises:
      ValueError: there is none, or a song has two tags where each training song has one.
    """
    counts = tags.targets(songs).sum(axis=1)
    if not counts.any():
        raise ValueError(
            f"none of the {split} songs has a tag; see {section}.kinds and data.source"
        )
    if tags.one and (counts > 1).any():
        name = songs.entries[int(np.argmax(counts > 1))]["name"]
        raise ValueError(f"{split} song {name!r} has two tags, the training songs have one each")
    if missing := int((counts == 0).sum()):
        log(f"{section}: {missing} of {len(counts)} {split} songs have no tag and are not used")
    return take_songs(songs, counts > 0)


# ---- the task


class TagTask:
    """What a HeadJob needs to train a tagger; `tags` are there after fit_songs or from_dict."""

    section, crops_per_song = "tag", 1

    def __init__(self, config):
        self.config = config

    def head(self):
        return TagHead(len(self.tags.names), self.config.head.pool_queries)

    def init_head(self, key, width):
        """Return the parameters of the head, a function of the key alone."""
        head_key = jax.random.fold_in(key, random_streams.HEAD_INIT)
        return {"head": self.head().init(head_key, jnp.zeros((1, 1, width)))["params"]}

    def to_dict(self):
        return {"tags": dataclasses.asdict(self.tags)}

    def from_dict(self, saved):
        self.tags = Tags(tuple(saved["tags"]["names"]), saved["tags"]["one"])

    def fit_songs(self, songs):
        """Take the tags of training songs, and return the songs that have some."""
        self.tags = fit_tags(songs, self.config.tag.kinds, self.config.tag.min_songs)
        songs = self.select_songs(songs, "train")
        balance = self.config.tag.class_balance
        self.compare = make_cross_entropy(self.tags.targets(songs), self.tags.one, balance)
        return songs

    def select_songs(self, songs, split):
        return select_tagged(songs, self.tags, split)

    def tables(self, songs):
        """Return the tags of songs.  # [S, V] bool"""
        return self.tags.targets(songs)

    def draw_targets(self, tables, batch, key):
        """Return the tags of crops.  # [B, V] float32"""
        return tables[batch.song].astype(jnp.float32)

    def augment(self, wave, targets, key):
        """Return waves and targets, mixed with others of the batch by tag.mix_up."""
        share = self.config.tag.mix_up
        if share is None:
            return wave, targets
        return mix_up(wave, targets, jax.random.fold_in(key, random_streams.TAG_MIX_UP), share)

    def mask(self, x_0, key):
        """Return x_0 without some bands and spans: SpecAugment by tag.freq_masks, time_masks."""
        t = self.config.tag
        if not (t.freq_masks or t.time_masks):
            return x_0
        bands, spans = t.freq_masks or (0, 0), t.time_masks or (0, 0)
        mask_key = jax.random.fold_in(key, random_streams.SPEC_AUGMENT)
        return augment.spec_augment(x_0, mask_key, *bands, *spans)

    def loss(self, params, tokens, targets):
        """Return the weighted cross-entropy, and no other metrics."""
        return self.compare(self.logits(params, tokens), targets), {}

    def logits(self, params, tokens):
        """Return a score for each tag.  # [B, V]"""
        return self.head().apply({"params": params["head"]}, tokens)

    def validation(self, job, step):
        return TagValidation(job, step)


def make_job(config):
    """Return the HeadJob that trains the tagger of a config."""
    return HeadJob(config, TagTask(config))


def make_predict(job):
    """Return the jitted (params, wave [B, N] or [B, A, N]) -> probability of each tag [B, V]."""
    task = job.task
    link = jax.nn.softmax if task.tags.one else jax.nn.sigmoid
    return jax.jit(lambda params, wave: link(task.logits(params, job.wave_tokens(params, wave))))


def read_windows(job, songs):
    """Return head.windows crops of each song, evenly spread.  # [S, W, N, A] int16"""
    return crops.read_spread_crops(songs, job.rep.samples, job.config.head.windows)


def predict_songs(job, predict, params, waves):
    """Return the mean probabilities over the windows of each song.  # [S, W, ...] -> [S, V]"""
    return average_windows(map_windows(predict, params, waves, job.config.train.batch_size))


def average_windows(probabilities):
    """Return the mean over the windows of each song.  # [S, W, V] -> [S, V]"""
    return probabilities.mean(axis=1, dtype=np.float64)


class TagValidation:
    """Scores the EMA on the valid songs; keeps the best checkpoint and its thresholds."""

    def __init__(self, job, step):
        self.job, self.predict = job, make_predict(job)
        self.targets = job.task.tags.targets(job.valid_songs)
        if not classification.has_both_classes(self.targets).any():
            raise ValueError(
                "every valid song has the same tags; raise data.valid_fraction or add songs"
            )
        self.waves = read_windows(job, job.valid_songs)
        self.best = BestCheckpoint(job, KIND, SCORE, job.config.head.patience, step)
        self.stopped = self.best.stopped

    def __call__(self, state, step, logs):
        """Return whether to stop: head.patience validations passed without a better score."""
        probabilities = predict_songs(self.job, self.predict, state.ema_params, self.waves)
        one = self.job.task.tags.one
        thresholds = None if one else classification.fit_thresholds(self.targets, probabilities)
        decisions = classification.predict_tags(probabilities, thresholds)
        metrics = classification.compute_metrics(self.targets, probabilities, decisions)
        extra = {"thresholds": None if one else thresholds.tolist(), "valid": metrics}
        best_step, best = self.best.update(state, step, metrics, extra, logs)
        log(
            f"tag: macro PR-AUC {metrics[SCORE]:.4f}, macro F1 {metrics['f1_macro']:.4f} on valid "
            f"at step {step} of {self.job.num_steps}; the best is {best:.4f} at step {best_step}"
        )
        return self.stopped()


# ---- losses


def make_cross_entropy(targets, one, balance):
    """Return (logits, targets [B, V]) -> cross-entropy, weighted for the tags of songs [S, V].

    Any number of tags a song: the positive term of a tag is weighted by (songs without / songs
    with it) ** balance, at least 1. One tag a song: a song is weighted by (songs with its tag) **
    -balance, scaled so that the mean weight over songs is 1.
    """
    songs, count = len(targets), targets.sum(axis=0).astype(np.float64)
    if one:
        weights = count**-balance
        return softmax_cross_entropy(weights * count.sum() / (weights * count).sum())
    return sigmoid_cross_entropy(np.maximum((songs - count) / count, 1.0) ** balance)


def softmax_cross_entropy(weights):
    """Return (logits, targets [B, V]) -> mean cross-entropy, each class with its weight [V]."""
    weights = jnp.asarray(weights, jnp.float32)[None]
    return lambda logits, targets: (
        -jnp.mean(jnp.sum(weights * targets * jax.nn.log_softmax(logits), axis=1))
    )


def sigmoid_cross_entropy(weights):
    """Return (logits, targets [B, V]) -> mean cross-entropy, positives with their weight [V]."""
    weights = jnp.asarray(weights, jnp.float32)[None]

    def compare(logits, targets):
        positive, negative = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        return -jnp.mean(weights * targets * positive + (1 - targets) * negative)

    return compare


def mix_up(wave, targets, key, max_share):
    """Return waves with the previous one of the batch added, and targets in the same shares.

    (Zhang et al. 2018, arXiv 1710.09412; the sum of waves keeps its level, see augment.mix_up.)
    """
    share = augment.draw_uniform(key, len(wave), 0.0, max_share)[:, :, 0]  # as mix_up draws it
    mixed = targets + share * (jnp.roll(targets, 1, axis=0) - targets)
    return augment.mix_up(wave, key, max_share), mixed


# ---- fields


def check(config):
    """Refuse fields of `tag` that make no sense, and fields that have no effect."""
    t = config.tag
    head_job.check(config, "tag")
    for name, low, high in (("class_balance", 0, 1), ("mix_up", 0, 0.5)):
        if t[name] is not None and not low <= t[name] <= high:
            raise ValueError(f"tag.{name}={t[name]} is not between {low} and {high}")
    rep = build.representation(config)
    for name, size in (("freq_masks", rep.shape[0]), ("time_masks", rep.shape[1])):
        pair = t[name]
        if pair is not None and not (len(pair) == 2 and pair[0] >= 1 and 1 <= pair[1] <= size):
            raise ValueError(f"tag.{name}={tuple(pair)} is not (how many, widest up to {size})")
    if config.augment.mix_up is not None:
        raise ValueError("augment.mix_up would mix songs and not their tags; set tag.mix_up")
