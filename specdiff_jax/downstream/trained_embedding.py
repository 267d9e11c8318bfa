"""A trained embedding as an embedder: the best checkpoint of a run of --mode=embed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from specdiff_jax.conditioning.text import Text
from specdiff_jax.downstream.embed_job import Embedding
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.training import checkpoints
from specdiff_jax.training.validation import best_folder

KIND = "embed"
BATCH = 8


def there(workdir):
    """Whether a run is one of --mode=embed that has kept a best checkpoint."""
    folder = best_folder(workdir)
    steps = checkpoints.steps(folder)
    return bool(steps) and "embedding" in checkpoints.read_run(folder, steps[-1])


def best(workdir):
    """(Embedding, params, sha256 of the checkpoint) of the best of a run.

    Raises:
      ValueError: there is none, or it does not verify.
    """
    if not there(workdir):
        raise ValueError(f"embed:{workdir}: no embedding was trained there; run --mode=embed first")
    folder = best_folder(workdir)
    step = checkpoints.require_step(folder)
    job = Embedding(ConfigDict(checkpoints.read_run(folder, step)["config"]))
    params = job.restore(step, folder).ema_params
    return job, jax.device_put(params), checkpoints.manifest_sha256(folder, step)


def load(workdir):
    """The Embedder of a run's best checkpoint; it reads texts where embed.text was set.

    Raises:
      ValueError: as `best`; or, when a text is read, its encoder is not to be had.
    """
    job, params, sha256 = best(workdir)
    rep = job.rep
    return Embedder(
        f"{KIND}:{workdir}",
        sha256,
        job.config.embed.dim,
        rep.sample_rate,
        rep.samples,
        BATCH,
        functools.partial(heard(job), params),
        functools.partial(read, job, params) if job.text else None,
        min_samples=job.config.model.patch[1] * rep.hop,
    )


def heard(job):
    """The jitted (params, mono waves [B, N]) -> [B, E]."""
    of, channels = job.vectors(), job.rep.channels
    if channels == 1:
        return of
    return lambda params, waves: of(params, jnp.repeat(waves[:, None], channels, axis=1))


def read(job, params, texts):
    """Vectors of texts, by the encoder that captions were read by.  # -> [K, E]"""
    encoder = Text(**job.text).load_encoder()
    pooled = encoder.encode(list(texts), job.text["max_tokens"]).pooled
    return np.asarray(job.read(params, jnp.asarray(pooled, jnp.float32)))
