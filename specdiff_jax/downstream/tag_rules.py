"""config.tag: what is refused, and what is compared in training."""

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import augment
from specdiff_jax.config import build
from specdiff_jax.downstream import backbone


def check(config):
    """Refuses fields of `tag` that make no sense and whatever would be ignored."""
    t = config.tag
    backbone.check(config, "tag")
    for name, low, high in (("class_balance", 0, 1), ("mix_up", 0, 0.5)):
        if t[name] is not None and not low <= t[name] <= high:
            raise ValueError(f"tag.{name}={t[name]} is not between {low} and {high}")
    check_masks(config)
    if config.augment.mix_up is not None:
        raise ValueError("augment.mix_up would mix songs and not their tags; set tag.mix_up")


def check_masks(config):
    rep = build.representation(config)
    for name, size in (("freq_masks", rep.shape[0]), ("time_masks", rep.shape[1])):
        pair = config.tag[name]
        if pair is not None and not (len(pair) == 2 and pair[0] >= 1 and 1 <= pair[1] <= size):
            raise ValueError(f"tag.{name}={tuple(pair)} is not (how many, widest up to {size})")


# ---- loss


def comparison(true, one, balance):
    """(logits, truth [B, V]) -> cross-entropy, for tags of songs [S, V] that are one a song or any.

    A tag counts more where it is true, the rarer the more: (false / true songs) ** balance, at
    least 1; where there is one a song, (songs of it) ** -balance, in the mean over songs 1.
    """
    songs, count = len(true), true.sum(axis=0).astype(np.float64)
    if one:
        weights = count**-balance
        return of_one(weights * count.sum() / (weights * count).sum())
    return of_each(np.maximum((songs - count) / count, 1.0) ** balance)


def of_one(weights):
    """(logits, truth [B, V]) -> cross-entropy of the softmax, a class weighed by its weight."""
    weights = jnp.asarray(weights, jnp.float32)[None]
    return lambda logits, truth: (
        -jnp.mean(jnp.sum(weights * truth * jax.nn.log_softmax(logits), axis=1))
    )


def of_each(weights):
    """(logits, truth [B, V]) -> mean cross-entropy of each tag's sigmoid."""
    weights = jnp.asarray(weights, jnp.float32)[None]

    def compare(logits, truth):
        true, false = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        return -jnp.mean(weights * truth * true + (1 - truth) * false)

    return compare


def mixed(wave, truth, key, most):
    """Waves with the previous of the batch added, and tags in the same shares (Zhang et al. 2018,
    arXiv 1710.09412; the sum of waves keeps its level, see augment.mix_up)."""
    weight = augment.uniform(key, len(wave), 0.0, most)[:, :, 0]  # the one that mix_up draws
    return augment.mix_up(wave, key, most), truth + weight * (jnp.roll(truth, 1, axis=0) - truth)
