"""config.tag: what is refused, what is compared in training, and what of it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from specdiff_jax import build, finetuning, optimizers
from specdiff_jax.audio import augment
from specdiff_jax.fields import choose

SAME = ("scan", "attention", "remat", "dtype")  # of a model: free to differ from its trunk's


def check(config):
    """Refuses fields of `tag` that make no sense and whatever would be ignored."""
    t, f = config.tag, config.finetune
    choose(dict.fromkeys(("all", "held", "held_first")), "tag.learns", t.learns)
    if not 0 <= t.block < config.model.depth:
        raise ValueError(f"tag.block={t.block}: the trunk has blocks 0 to {config.model.depth - 1}")
    if not 0 <= t.t < 1:
        raise ValueError(f"tag.t={t.t} is not at least 0 and below 1")
    for name, low, high in (("balance", 0, 1), ("mix_up", 0, 0.5)):
        if t[name] is not None and not low <= t[name] <= high:
            raise ValueError(f"tag.{name}={t[name]} is not between {low} and {high}")
    for name in ("min_songs", "queries", "windows", "held_steps", "patience"):
        if t[name] is not None and t[name] < 1:
            raise ValueError(f"tag.{name}={t[name]} is not at least 1")
    if (t.held_steps is None) == (t.learns == "held_first"):
        raise ValueError("tag.held_steps and tag.learns='held_first' need each other; set both")
    if t.trunk_rate is not None and (t.learns == "held" or t.trunk_rate <= 0):
        raise ValueError(f"tag.trunk_rate={t.trunk_rate} needs a trunk that learns, and be above 0")
    check_masks(config)
    for name in finetuning.FIELDS[2:]:
        if f[name] is not None:
            raise ValueError(f"finetune.{name} is not used by --mode=tag; see tag.learns")
    if config.optimizer.kind == "schedule_free" and t.learns != "all":
        raise ValueError(f"tag.learns={t.learns!r} cannot hold what schedule_free averages")
    if config.model.scan:
        raise ValueError("--mode=tag tells blocks apart; set model.scan=False")
    if config.augment.mix_up is not None:
        raise ValueError("augment.mix_up would mix songs and not their tags; set tag.mix_up")
    c = config.condition
    if c.labels or c.text or c.numbers:
        raise ValueError("condition: a tagger is told nothing; leave labels, text and numbers out")


def check_masks(config):
    rep = build.representation(config)
    for name, size in (("band_masks", rep.shape[0]), ("time_masks", rep.shape[1])):
        pair = config.tag[name]
        if pair is not None and not (len(pair) == 2 and pair[0] >= 1 and 1 <= pair[1] <= size):
            raise ValueError(f"tag.{name}={tuple(pair)} is not (how many, widest up to {size})")


def refuse_other_model(old, config):
    """Raises ValueError naming the first field in which a model is not its trunk's."""
    for name, value in config.model.items():
        there = old.model.get(name)
        same = tuple(there) == tuple(value) if name == "patch" else there == value
        if not same and name not in SAME:
            raise ValueError(
                f"model.{name} is {there!r} in the run of finetune.init_from, {value!r} here; "
                "set it to that"
            )


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


# ---- what learns


def learning(config, params):
    """Which parameters learn: the head; of the trunk all that comes before the block's tokens."""
    t, depth = config.tag, config.model.depth
    reached = lambda path: finetuning.distance(path, depth) >= depth - t.block
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key == "head" or (t.learns != "held" and reached(path)), params
    )


def held(config, params):
    """The parameters, those that do not learn cut off from the gradient."""
    stop = lambda x, learns: x if learns else jax.lax.stop_gradient(x)
    return jax.tree.map(stop, params, learning(config, params))


def optimizer(config, steps):
    """The configured optimiser of what learns, the trunk's share of it slower or later."""
    t, made = config.tag, optimizers.optimizer(config, steps)
    if t.held_steps is not None or t.trunk_rate is not None:
        made = optax.chain(made, of_trunk(t.trunk_rate or 1.0, t.held_steps or 0))
    kinds = {True: made, False: optax.set_to_zero()}
    return optax.multi_transform(kinds, lambda params: learning(config, params))


def of_trunk(rate, held_steps):
    """Scales the trunk's updates by `rate`, by nothing for the first steps."""

    def update(updates, state, params=None):
        scale = rate * (state.count >= held_steps)
        trunk = jax.tree.map(lambda x: x * scale, updates["trunk"])
        return updates | {"trunk": trunk}, finetuning.Steps(state.count + 1)

    return optax.GradientTransformation(
        lambda params: finetuning.Steps(jnp.zeros((), jnp.int32)), update
    )


def held_average(config, average):
    """An average that leaves what does not learn as it is, to the bit."""

    def of(old, params, opt_state, step):
        new = average(old, params, opt_state, step)
        pick = lambda kept, moved, learns: moved if learns else kept
        return jax.tree.map(pick, old, new, learning(config, params))

    return of
