"""A trained model's own ear: features of one of its blocks at a little noise, as an embedder.

x_t at a small fixed t -> DiT -> the tokens after a block -> their mean -> length one
(Xiang et al. 2023, "Denoising Diffusion Autoencoders are Unified Self-supervised Learners",
arXiv 2303.09769: inner blocks at little noise hold what a linear probe reads best.)
"""

import functools
import hashlib
import json

import jax
import jax.numpy as jnp

from specdiff_jax.conditioning.conditioners import null_condition
from specdiff_jax.evaluation import embedders
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.training import trained_model

KIND = "trunk"
NOISE = 0.1  # t, where none is named
BATCH = 8


def load(name, block=None, noise=None, step=None, ema=True):
    """The embedder of a name.

    Args:
      name: 'trunk:' and a run's workdir or a folder of --mode=export; or as `embedders.load`.
      block: whose tokens are read, 0 the first; the middle one where unset.
      noise: t in [0, 1) of the sound that it is shown, NOISE where unset.
      step, ema: of the checkpoint, see `trained.load`.

    Raises:
      ValueError: no such embedder, checkpoint, block or noise, or one that would be ignored.
    """
    kind, _, place = name.partition(":")
    if kind == KIND and place:
        return of_trained(trained_model.load(place, step, ema), block, noise)
    for field, value in {"block": block, "noise": noise}.items():
        if value is not None:
            raise ValueError(f"search.{field}={value} is for a trunk, not for {name!r}; unset it")
    if kind == KIND:
        raise ValueError("embedder 'trunk:' names no run: write trunk:WORKDIR")
    return embedders.load_embedder(name)


def of_trained(one, block=None, noise=None):
    """The embedder of a trained.Trained."""
    config, rep = one.config, one.rep
    depth, block = config.model.depth, config.model.depth // 2 if block is None else block
    noise = NOISE if noise is None else noise
    if not 0 <= block < depth:
        raise ValueError(f"search.block={block}: {one.workdir} has blocks 0 to {depth - 1}")
    if not 0 <= noise < 1:
        raise ValueError(f"search.noise_level={noise} is not at least 0 and below 1")
    told = json.dumps([one.sha256, block, noise])  # other features are another model
    return Embedder(
        f"{KIND}:{one.workdir}",
        hashlib.sha256(told.encode()).hexdigest(),
        config.model.width,
        rep.sample_rate,
        rep.samples,
        BATCH,
        functools.partial(program(one, block, noise), one.params),
        min_samples=config.model.patch[1] * rep.hop,
    )


def program(one, block, noise):
    """The jitted (params, waves [B, N]) -> [B, D] of length one.

    The noise is drawn once and is the same for all, so a window's vector depends on nothing else.
    """
    rep = one.rep
    eps = jax.random.normal(jax.random.key(0), (1, *rep.shape))

    @jax.jit
    def heard(params, waves):
        if rep.channels > 1:  # what is embedded is mono
            waves = jnp.repeat(waves[:, None], rep.channels, axis=1)
        x_0 = rep.encode(waves)  # [B, F, T, C]
        drawn = jnp.broadcast_to(eps, x_0.shape)
        nothing = null_condition(one.model.conditioners, len(x_0))
        blocks = one.denoiser(params).features(x_0, drawn, noise, nothing)
        mean = blocks[block].astype(jnp.float32).mean(axis=1)  # [B, D]
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    return heard
