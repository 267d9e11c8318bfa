"""A diffusion trunk under a head that is trained: where it comes from, what it hears, what learns.

wave -> stft -> encode: x_0 -> q_sample at a small fixed t: x_t -> DiT -> the tokens of one block

A section of the config, `tag` or `embed`, says which block, t, and how much of the trunk learns.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from specdiff_jax.audio import representation as representations
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.config import build
from specdiff_jax.config.fields import choose
from specdiff_jax.data import songs as data
from specdiff_jax.runtime.logs import say
from specdiff_jax.training import diffusion_job, finetuning, init_from, optimizers

SAME = ("scan", "attention", "remat", "dtype")  # of a model: free to differ from its trunk's
HEAD_KEY, NOISE_KEY = build.OWN_KEY + 10, build.OWN_KEY + 11


class Backbone:
    """The trunk of a job. It has no statistics and no conditions until `begin` or `restore`."""

    def __init__(self, config, section):
        self.config, self.at = config, config[section]
        self.rep = build.representation(config)
        self.schedule = build.schedule(config)
        self.know(conditions.Vocabulary(), None)

    def know(self, vocabulary, cross_heads):
        """Takes the trunk's vocabulary, and the model that knows it."""
        self.vocabulary, self.cross_heads = vocabulary, cross_heads
        with_heads = self.config.copy_and_resolve_references()
        with_heads.condition.cross_heads = cross_heads
        self.model = build.model(with_heads, self.rep.shape, vocabulary)

    def init(self):
        """Fresh parameters, a function of the config alone."""
        return build.initial_params(self.config, self.model, self.rep.shape)

    def begin(self, songs):
        """Parameters and, in `self.rep`, statistics: fresh, or those of finetune.init_from."""
        f, crops, own = self.config.finetune, self.config.representation.fit_crops, self.rep
        if f.init_from is not None:
            old = init_from.read(f.init_from)
            refuse_other_model(old.config, self.config)
            self.rep = init_from.representation(old.rep, own)
            self.know(old.vocabulary, old.config.condition.cross_heads)
        if f.init_from is None or f.new_statistics:
            self.rep = representations.fit(own, diffusion_job.fixed_crops(songs, own, crops))
        if f.init_from is None:
            return self.init()
        shape = self.rep.shape
        params, fates = init_from.fitted(self.init(), old, self.config, shape, old.vocabulary)
        for line in init_from.lines(f.init_from, fates) + init_from.changes(old, self.config):
            say(line)
        return params

    def to_dict(self):
        """What a checkpoint keeps of it beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
            "vocabulary": dataclasses.asdict(self.vocabulary),
            "cross_heads": self.cross_heads,
        }

    def restore(self, saved):
        """Takes what `to_dict` kept."""
        self.rep = representations.from_dict(saved["representation"])
        self.know(conditions.vocabulary_from(saved["vocabulary"]), saved["cross_heads"])

    def tokens(self, params, x_0, eps):
        """The tokens of the chosen block at the chosen noise level.  # -> [B, L, D]"""
        blocks = build.features(self.config, self.model, params, self.schedule, x_0, eps, self.at.t)
        return blocks[self.at.block]

    def heard(self, params, wave):
        """The tokens of waves [B, N] or [B, A, N], each under the same noise.  # -> [B, L, D]"""
        x_0 = self.rep.encode(wave)
        eps = jax.random.normal(jax.random.key(NOISE_KEY), (1, *x_0.shape[1:]))
        return self.tokens(params, x_0, jnp.broadcast_to(eps, x_0.shape))


def in_batches(of, params, sound, size):
    """What `of` says of windows, computed a batch at a time.

    Args:
      of: jitted (params, wave [size, N]) -> [size, V].
      sound: [..., N, A] int16, or [..., N] or [..., A, N] float32 waves of songs and windows.

    Returns:
      [S, W, V] of sound [S, W, ...].
    """
    songs, windows = sound.shape[:2]
    flat = sound.reshape(songs * windows, *sound.shape[2:])
    found = []
    for start in range(0, len(flat), size):
        batch = flat[start : start + size]
        wave = data.to_wave(batch) if batch.dtype == np.int16 else batch
        padding = ((0, size - len(wave)),) + ((0, 0),) * (wave.ndim - 1)
        found.append(np.asarray(of(params, np.pad(wave, padding)))[: len(wave)])
    return np.concatenate(found).reshape(songs, windows, -1)


# ---- what is refused


def check(config, section):
    """Refuses fields of a section that make no sense for any head, and what would be ignored."""
    t, f, mode = config[section], config.finetune, f"--mode={section}"
    choose(dict.fromkeys(("all", "held", "held_first")), f"{section}.learns", t.learns)
    if not 0 <= t.block < config.model.depth:
        raise ValueError(
            f"{section}.block={t.block}: the trunk has blocks 0 to {config.model.depth - 1}"
        )
    if not 0 <= t.t < 1:
        raise ValueError(f"{section}.t={t.t} is not at least 0 and below 1")
    for name in ("min_songs", "queries", "windows", "held_steps", "patience"):
        if t[name] is not None and t[name] < 1:
            raise ValueError(f"{section}.{name}={t[name]} is not at least 1")
    if (t.held_steps is None) == (t.learns == "held_first"):
        raise ValueError(
            f"{section}.held_steps and {section}.learns='held_first' need each other; set both"
        )
    if t.trunk_rate is not None and (t.learns == "held" or t.trunk_rate <= 0):
        raise ValueError(
            f"{section}.trunk_rate={t.trunk_rate} needs a trunk that learns, and be above 0"
        )
    for name in finetuning.FIELDS[2:]:
        if f[name] is not None:
            raise ValueError(f"finetune.{name} is not used by {mode}; see {section}.learns")
    if config.optimizer.kind == "schedule_free" and t.learns != "all":
        raise ValueError(f"{section}.learns={t.learns!r} cannot hold what schedule_free averages")
    if config.model.scan:
        raise ValueError(f"{mode} tells blocks apart; set model.scan=False")
    c = config.condition
    if c.labels or c.text or c.numbers:
        raise ValueError(
            f"condition: {mode} tells the trunk nothing; leave labels, text and numbers out"
        )


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


# ---- what learns: parameters are {"trunk": ..., and what is put on it}


def learning(config, section, params):
    """Which parameters learn: what is on the trunk; of it all that comes before the tokens."""
    t, depth = config[section], config.model.depth
    reached = lambda path: finetuning.distance(path, depth) >= depth - t.block
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key != "trunk" or (t.learns != "held" and reached(path)), params
    )


def held(config, section, params):
    """The parameters, those that do not learn cut off from the gradient."""
    stop = lambda x, learns: x if learns else jax.lax.stop_gradient(x)
    return jax.tree.map(stop, params, learning(config, section, params))


def optimizer(config, section, steps):
    """The configured optimiser of what learns, the trunk's share of it slower or later."""
    t, made = config[section], optimizers.optimizer(config, steps)
    if t.held_steps is not None or t.trunk_rate is not None:
        made = optax.chain(made, of_trunk(t.trunk_rate or 1.0, t.held_steps or 0))
    kinds = {True: made, False: optax.set_to_zero()}
    return optax.multi_transform(kinds, lambda params: learning(config, section, params))


def of_trunk(rate, held_steps):
    """Scales the trunk's updates by `rate`, by nothing for the first steps."""

    def update(updates, state, params=None):
        scale = rate * (state.count >= held_steps)
        trunk = jax.tree.map(lambda x: x * scale, updates["trunk"])
        return updates | {"trunk": trunk}, finetuning.Steps(state.count + 1)

    return optax.GradientTransformation(
        lambda params: finetuning.Steps(jnp.zeros((), jnp.int32)), update
    )
