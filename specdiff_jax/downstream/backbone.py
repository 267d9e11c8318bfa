"""A diffusion trunk under a head that is trained: where it comes from, what it hears, what learns.

wave -> stft -> encode: x_0 -> q_sample at a small fixed t: x_t -> DiT -> the tokens of one block

The section `head` of the config says which block, t, and how much of the trunk learns.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from specdiff_jax.audio import representation as representations
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.conditioning.conditioners import null_condition
from specdiff_jax.config import bounds, build
from specdiff_jax.config.fields import choose
from specdiff_jax.data import crops as crops_module
from specdiff_jax.runtime import random_streams
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import finetuning, init_from, optimizers, train_state

SAME = ("scan", "attention", "remat", "dtype")  # of a model: free to differ from its trunk's


class Backbone:
    """The trunk of a job. It has no statistics and no conditions until `start` or `restore`."""

    def __init__(self, config):
        self.config, self.at = config, config.head
        self.rep = build.representation(config)
        self.schedule = build.schedule(config)
        self.set_vocabulary(conditions.Vocabulary(), None)

    def set_vocabulary(self, vocabulary, cross_heads):
        """Takes the trunk's vocabulary, and the model that knows it."""
        self.vocabulary, self.cross_heads = vocabulary, cross_heads
        with_heads = self.config.copy_and_resolve_references()
        with_heads.condition.cross_heads = cross_heads
        self.model = build.model(with_heads, self.rep.shape, vocabulary)

    def init(self):
        """Fresh parameters, a function of the config alone."""
        return train_state.init_params(self.model, self.config.seed)

    def start(self, songs):
        """Parameters and, in `self.rep`, statistics: fresh, or those of finetune.init_from."""
        f, crops, own = self.config.finetune, self.config.representation.stats_crops, self.rep
        if f.init_from is not None:
            old = init_from.load(f.init_from)
            refuse_other_model(old.config, self.config)
            self.rep = init_from.take_statistics(old.rep, own)
            self.set_vocabulary(old.vocabulary, old.config.condition.cross_heads)
        if f.init_from is None or f.refit_statistics:
            self.rep = representations.fit(
                own, crops_module.read_fixed_waves(songs, own.samples, crops)
            )
        if f.init_from is None:
            return self.init()
        shape = self.rep.shape
        params, fates = init_from.match_params(self.init(), old, self.config, shape, old.vocabulary)
        for line in init_from.describe_arrays(f.init_from, fates) + init_from.describe_changes(
            old, self.config
        ):
            log(line)
        return params

    def to_dict(self):
        """What a checkpoint keeps of it beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
            "vocabulary": self.vocabulary.to_dict(),
            "cross_heads": self.cross_heads,
        }

    def restore(self, saved):
        """Takes what `to_dict` kept."""
        self.rep = representations.from_dict(saved["representation"])
        self.set_vocabulary(conditions.from_dict(saved["vocabulary"]), saved["cross_heads"])

    def tokens(self, params, x_0, eps):
        """The tokens of the chosen block at the chosen noise level.  # -> [B, L, D]"""
        denoiser = build.denoiser(self.config, self.model, params, self.schedule)
        nothing = null_condition(self.model.conditioners, len(x_0))
        blocks = denoiser.features(x_0, eps, self.at.noise_level, nothing)
        return blocks[self.at.block]

    def heard(self, params, wave):
        """The tokens of waves [B, N] or [B, A, N], each under the same noise.  # -> [B, L, D]"""
        x_0 = self.rep.encode(wave)
        eps = jax.random.normal(jax.random.key(random_streams.BACKBONE_NOISE), (1, *x_0.shape[1:]))
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
        wave = crops_module.pcm_to_wave(batch) if batch.dtype == np.int16 else batch
        padding = ((0, size - len(wave)),) + ((0, 0),) * (wave.ndim - 1)
        found.append(np.asarray(of(params, np.pad(wave, padding)))[: len(wave)])
    return np.concatenate(found).reshape(songs, windows, -1)


# ---- what is refused


def check(config, section):
    """Refuses fields of `head` that make no sense for any head, and what would be ignored."""
    bounds.check(config)
    h, f, mode = config.head, config.finetune, f"--mode={section}"
    choose(dict.fromkeys(("all", "head", "head_first")), "head.trainable", h.trainable)
    if not 0 <= h.block < config.model.depth:
        raise ValueError(
            f"head.block={h.block}: the backbone has blocks 0 to {config.model.depth - 1}"
        )
    if (h.frozen_steps is None) == (h.trainable == "head_first"):
        raise ValueError(
            "head.frozen_steps and head.trainable='head_first' need each other; set both"
        )
    if h.backbone_lr_scale is not None and h.trainable == "head":
        raise ValueError(
            f"head.backbone_lr_scale={h.backbone_lr_scale} needs a trainable backbone; unset it"
        )
    for name in finetuning.FIELDS[2:]:
        if f[name] is not None:
            raise ValueError(f"finetune.{name} is not used by {mode}; see head.trainable")
    if config.optimizer.kind == "schedule_free" and h.trainable != "all":
        raise ValueError(
            f"head.trainable={h.trainable!r} cannot freeze what schedule_free averages"
        )
    if config.model.scan:
        raise ValueError(f"{mode} tells blocks apart; set model.scan=False")
    c = config.condition
    if c.labels or c.text or c.scalars:
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


def learning(config, params):
    """Which parameters learn: what is on the trunk; of it all that comes before the tokens."""
    h, depth = config.head, config.model.depth
    reached = lambda path: finetuning.distance_from_output(path, depth) >= depth - h.block
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key != "trunk" or (h.trainable != "head" and reached(path)), params
    )


def held(config, params):
    """The parameters, those that do not learn cut off from the gradient."""
    stop = lambda x, learns: x if learns else jax.lax.stop_gradient(x)
    return jax.tree.map(stop, params, learning(config, params))


def optimizer(config, steps):
    """The configured optimiser of what learns, the trunk's share of it slower or later."""
    h, made = config.head, optimizers.optimizer(config, steps)
    if h.frozen_steps is not None or h.backbone_lr_scale is not None:
        made = optax.chain(made, of_trunk(h.backbone_lr_scale or 1.0, h.frozen_steps or 0))
    kinds = {True: made, False: optax.set_to_zero()}
    return optax.multi_transform(kinds, lambda params: learning(config, params))


def of_trunk(rate, held_steps):
    """Scales the trunk's updates by `rate`, by nothing for the first steps."""

    def update(updates, state, params=None):
        scale = rate * (state.count >= held_steps)
        trunk = jax.tree.map(lambda x: x * scale, updates["trunk"])
        return updates | {"trunk": trunk}, finetuning.UpdateCount(state.count + 1)

    return optax.GradientTransformation(
        lambda params: finetuning.UpdateCount(jnp.zeros((), jnp.int32)), update
    )
