"""The diffusion model under a head: its weights, and the tokens of one of its blocks.

wave [B, N] -> stft -> encode: x_0 -> q_sample at a small fixed t: x_t -> DiT -> tokens [B, L, D]

(Xiang et al. 2023, "Denoising Diffusion Autoencoders are Unified Self-supervised Learners",
arXiv 2303.09769: inner blocks at low noise carry the features that a linear probe reads best.)
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import representation as representations
from specdiff_jax.conditioning import vocabulary as vocabularies
from specdiff_jax.config import build
from specdiff_jax.data import crops
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import init_from
from specdiff_jax.training.train_state import init_params
from specdiff_jax.training.trained_model import TrainedModel

MODEL_MAY_DIFFER = ("scan", "attention", "remat", "dtype")  # fields of model that change no weights


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Features: the tokens of one block of a diffusion model at one noise level."""

    model: TrainedModel  # its own params are not used
    block: int  # 0 the first
    noise_level: float  # t of x_t

    def features(self, params, x_0, eps):
        """Return the unconditional tokens of x_t after the block.  # [B, L, D]"""
        condition = self.model.null_condition(len(x_0))
        blocks = self.model.denoiser(params).features(x_0, eps, self.noise_level, condition)
        return blocks[self.block]

    def wave_features(self, params, wave, eps):
        """Return the tokens of waves that all get the same noise.  # -> [B, L, D]

        Args:
          wave: [B, N] or [B, A, N]; eps: [1, F, T, C].
        """
        x_0 = self.model.rep.encode(wave)
        return self.features(params, x_0, jnp.broadcast_to(eps, x_0.shape))


# ---- where a model to be trained under a head comes from


def init_model(config):
    """Return the TrainedModel of a config, unconditional, without statistics and parameters."""
    rep, schedule = build.representation(config), build.schedule(config)
    model = TrainedModel(None, None, None, config, rep, None, schedule, None, None)
    return set_vocabulary(model, vocabularies.Vocabulary(), None)


def set_vocabulary(model, vocabulary, cross_heads):
    """Return a TrainedModel whose network takes the conditions of a vocabulary."""
    config = model.config.copy_and_resolve_references()
    config.condition.cross_heads = cross_heads
    network = build.model(config, model.rep.shape, vocabulary)
    return dataclasses.replace(model, config=config, vocabulary=vocabulary, model=network)


def start(config, songs):
    """Return (TrainedModel, params) to begin a training with: of finetune.init_from, or fresh.

    The statistics of the representation are fitted to `songs`, or taken from init_from.
    """
    f, model = config.finetune, init_model(config)
    if f.init_from is None:
        model = fit_statistics(model, songs)
        return model, init_params(model.model, config.seed)
    source = init_from.load(f.init_from)
    refuse_other_model(source.config, config)
    rep = init_from.take_statistics(source.rep, model.rep)
    model = dataclasses.replace(model, rep=rep)
    model = set_vocabulary(model, source.vocabulary, source.config.condition.cross_heads)
    if f.refit_statistics:
        model = fit_statistics(model, songs)
    fresh = init_params(model.model, config.seed)
    shape = model.rep.shape
    params, outcomes = init_from.match_params(fresh, source, config, shape, source.vocabulary)
    lines = init_from.describe_arrays(f.init_from, outcomes)
    for line in lines + init_from.describe_changes(source, config):
        log(line)
    return model, params


def fit_statistics(model, songs):
    """Return a TrainedModel whose representation is fitted to crops of songs."""
    count = model.config.representation.stats_crops
    waves = crops.read_fixed_waves(songs, model.rep.samples, count)
    return dataclasses.replace(model, rep=representations.fit(model.rep, waves))


def refuse_other_model(source, config):
    """Raise ValueError naming the first field of `model` that differs from init_from's."""
    for name, ours in config.model.items():
        theirs = source.model.get(name)
        same = tuple(theirs) == tuple(ours) if name == "patch" else theirs == ours
        if not same and name not in MODEL_MAY_DIFFER:
            raise ValueError(
                f"model.{name} is {theirs!r} in the run of finetune.init_from, {ours!r} here; "
                f"set it to {theirs!r}"
            )


# ---- what a checkpoint keeps


def to_dict(model, config):
    """Return what a checkpoint keeps of a model beside the parameters, for `json`."""
    return {
        "config": config.to_dict(),
        "representation": representations.to_dict(model.rep),
        "vocabulary": model.vocabulary.to_dict(),
        "cross_heads": model.config.condition.cross_heads,
    }


def from_dict(saved, config):
    """Return the TrainedModel, without parameters, that `to_dict` saved."""
    rep = representations.from_dict(saved["representation"])
    model = dataclasses.replace(init_model(config), rep=rep)
    return set_vocabulary(model, vocabularies.from_dict(saved["vocabulary"]), saved["cross_heads"])


# ---- windows of songs through a network


def map_windows(function, params, sound, size):
    """Return what a network computes of the windows of songs, a batch at a time.  # [S, W, V]

    Args:
      function: jitted (params, wave [size, N]) -> [size, V].
      sound: [S, W, N, A] int16, or [S, W, N] or [S, W, A, N] float32.
      size: of a batch; the last one is filled up with silence.
    """
    songs, windows = sound.shape[:2]
    flat = sound.reshape(songs * windows, *sound.shape[2:])
    outputs = []
    for start in range(0, len(flat), size):
        batch = flat[start : start + size]
        wave = crops.pcm_to_wave(batch) if batch.dtype == np.int16 else batch
        padding = ((0, size - len(wave)),) + ((0, 0),) * (wave.ndim - 1)
        outputs.append(np.asarray(function(params, np.pad(wave, padding)))[: len(wave)])
    return np.concatenate(outputs).reshape(songs, windows, -1)
