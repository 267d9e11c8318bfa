"""Embedders of trained models: features of a diffusion backbone, or vectors of --mode=embed."""

import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning.text import Text
from specdiff_jax.downstream import embed_job, head_job
from specdiff_jax.downstream.backbone import Backbone
from specdiff_jax.evaluation import embedders
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.training import trained_model

BACKBONE, EMBED = "backbone", "embed"  # kinds: KIND:WORKDIR names an embedder
NOISE_LEVEL = 0.1  # t of the backbone's x_t, where unset
BATCH = 8


def load(name, block=None, noise_level=None, step=None, ema=True):
    """Return the Embedder of a name.

    Args:
      name: 'backbone:' and a run's workdir or a folder of --mode=export, 'embed:' and a workdir of
        --mode=embed, or as `evaluation.embedders.load` takes it.
      block: of the backbone, 0 the first; the middle one where unset.
      noise_level: t in [0, 1) of the backbone's x_t, NOISE_LEVEL where unset.
      step, ema: of the backbone's checkpoint, see `trained_model.load`.

    Raises:
      ValueError: no such embedder, checkpoint, block or noise level, or a field has no effect.
    """
    kind, _, place = name.partition(":")
    if kind in (BACKBONE, EMBED) and not place:
        raise ValueError(f"embedder '{kind}:' names no run; write {kind}:WORKDIR")
    if kind == BACKBONE:
        return embed_by_backbone(trained_model.load(place, step, ema), block, noise_level)
    for field, value in {"block": block, "noise_level": noise_level}.items():
        if value is not None:
            raise ValueError(
                f"search.{field}={value} is for a backbone, not for {name!r}; unset it"
            )
    if kind != EMBED:
        return embedders.load_embedder(name)
    if step is not None:
        raise ValueError(
            f"sample.checkpoint_step={step} is for a backbone, not for {name!r}; unset it"
        )
    if not ema:
        raise ValueError(f"sample.ema=False: {name} was chosen by its average; set it to True")
    return load_embedding(place)


# ---- features of a backbone


def embed_by_backbone(model, block=None, noise_level=None):
    """Return the Embedder of a TrainedModel: the mean token of a block, of length one."""
    depth = model.config.model.depth
    block = depth // 2 if block is None else block
    noise_level = NOISE_LEVEL if noise_level is None else noise_level
    if not 0 <= block < depth:
        raise ValueError(f"search.block={block}: {model.workdir} has blocks 0 to {depth - 1}")
    if not 0 <= noise_level < 1:
        raise ValueError(f"search.noise_level={noise_level} is not at least 0 and below 1")
    identity = json.dumps([model.sha256, block, noise_level])  # other features: another embedder
    embed = embed_mono(make_mean_token(Backbone(model, block, noise_level)), model.rep)
    return Embedder(
        f"{BACKBONE}:{model.workdir}",
        hashlib.sha256(identity.encode()).hexdigest(),
        model.config.model.width,
        model.rep.sample_rate,
        model.rep.samples,
        BATCH,
        functools.partial(embed, model.params),
        min_samples=model.rep.min_samples(model.config.model.patch[1]),
    )


def make_mean_token(backbone):
    """Return the jitted (params, wave) -> [B, D] of length one.

    All windows get the same noise, so that a window's vector depends on nothing else.
    """
    eps = jax.random.normal(jax.random.key(0), (1, *backbone.model.rep.shape))

    @jax.jit
    def embed(params, wave):
        tokens = backbone.wave_features(params, wave, eps)
        mean = tokens.astype(jnp.float32).mean(axis=1)  # [B, D]
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    return embed


def embed_mono(embed, rep):
    """Return `embed` for mono waves [B, N] where it takes those of a Representation."""
    if rep.channels == 1:
        return embed
    return lambda params, wave: embed(params, jnp.repeat(wave[:, None], rep.channels, axis=1))


# ---- vectors of --mode=embed


def load_best(workdir):
    """Return the Best of a run of --mode=embed.

    Raises:
      ValueError: there is none, or it does not verify.
    """
    if not head_job.has_best(workdir, "embedding"):
        raise ValueError(f"embed:{workdir}: no embedding was trained there; run --mode=embed first")
    return head_job.load_best(workdir, embed_job.make_job)


def load_embedding(workdir):
    """Return the Embedder of a run's best checkpoint; it embeds texts where embed.text was set.

    Raises:
      ValueError: as of `load_best`; or, at a text, its encoder is not available.
    """
    best = load_best(workdir)
    job, rep = best.job, best.job.rep
    return Embedder(
        f"{EMBED}:{workdir}",
        best.sha256,
        job.config.embed.dim,
        rep.sample_rate,
        rep.samples,
        BATCH,
        functools.partial(embed_mono(embed_job.make_embed(job), rep), best.params),
        functools.partial(embed_texts, job, best.params) if job.task.text else None,
        min_samples=rep.min_samples(job.config.model.patch[1]),
    )


def embed_texts(job, params, texts):
    """Return vectors of texts, encoded as the captions of the training were.  # -> [K, E]"""
    encoder = Text(**job.task.text).load_encoder()
    pooled = encoder.encode(list(texts), job.task.text["max_tokens"]).pooled
    return np.asarray(job.task.text_vectors(params, jnp.asarray(pooled, jnp.float32)))
