"""A config made into representation, schedule, model and objective; fields.py has the rules."""

import functools
import math

import jax

from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.distances import spectral_loss
from specdiff_jax.config.fields import (
    bind,
    call,
    choose,
    prefixed,
    refuse_unused,
    set_fields,
)
from specdiff_jax.diffusion import objectives, predictions, schedules
from specdiff_jax.diffusion.denoiser import Denoiser
from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.blocks import BLOCKS, REMATS
from specdiff_jax.models.dit import DiT
from specdiff_jax.models.layers import MLPS, TIME_FEATURES
from specdiff_jax.models.matmul import resolve_dtype
from specdiff_jax.models.norms import NORMS
from specdiff_jax.models.positions import POSITIONS, axial_angles, patch_grid

MODEL_CHOICES = {
    "block": BLOCKS,
    "positions": POSITIONS,
    "time_embedding": TIME_FEATURES,
    "mlp": MLPS,
    "norm": NORMS,
    "attention": ATTENTIONS,
    "remat": REMATS,
    "dtype": ("auto", "float32", "bfloat16"),
}


def representation(config):
    """Return the configured Representation, not fitted yet."""
    fields = set_fields(config.representation, "stats_crops")
    kind = fields["kind"]
    own = choose(representations.OPTIONS, "representation.kind", kind)
    shared = ("kind", "sample_rate", "n_fft", "hop", "frames", "standardize")
    chosen = f"representation.kind={kind!r}"
    refuse_unused("representation.", fields, shared + own, chosen)
    for name in own:
        if name not in fields:
            raise ValueError(f"representation.{name} must be set for {chosen}")
    choose(dict.fromkeys(("band", "global")), "representation.standardize", fields["standardize"])
    return representations.Representation(channels=config.data.channels, **fields)


def schedule(config):
    """Return the configured noise Schedule."""
    fields = set_fields(config.schedule, "kind", "log_snr_shift")
    kind, shift = config.schedule.kind, config.schedule.log_snr_shift
    maker = choose(schedules.SCHEDULES, "schedule.kind", kind)
    result = call("schedule.", maker, fields, f"schedule.kind={kind!r}")
    if shift and kind == "edm":
        raise ValueError(
            f"schedule.log_snr_shift={shift} is not used by schedule.kind='edm'; set it to 0 and "
            "change sigma_min and sigma_max"
        )
    return schedules.shift_log_snr(result, shift) if shift else result


def model(config, shape, vocabulary=None):
    """Return the configured DiT for tensors of `shape` (F, T, C) and a Vocabulary."""
    fields = set_fields(config.model)
    for name, options in MODEL_CHOICES.items():
        choose(dict.fromkeys(options), f"model.{name}", fields[name])
    if fields["width"] % fields["heads"]:
        raise ValueError(f"model.heads={fields['heads']} must divide model.width={fields['width']}")
    if len(fields["patch"]) != 2 or min(fields["patch"]) < 1:
        raise ValueError(f"model.patch={fields['patch']} is not (bins, frames), 1 or more of each")
    for axis, size, patch in zip(("bins", "frames"), shape, fields["patch"], strict=False):
        if size % patch:
            raise ValueError(f"model.patch={fields['patch']} does not divide the {size} {axis}")
    if fields["scan"] and fields["long_skips"]:
        raise ValueError("model.scan needs blocks that are all alike; set model.long_skips=False")
    if fields["long_skips"] and fields["depth"] < 3:
        raise ValueError(f"model.long_skips needs model.depth of 3 or more, not {fields['depth']}")
    if fields["scan"] and config.optimizer.kind == "muon":
        raise ValueError(
            "model.scan stacks matrices, which optimizer.kind='muon' would mix; set one"
        )
    if fields["attention"] == "cudnn" and jax.default_backend() != "gpu":
        raise ValueError("model.attention='cudnn' needs an NVIDIA GPU; here is none, so set 'auto'")
    grid = patch_grid(shape, fields["patch"])
    if fields["positions"] != "learned":  # refuses sizes that do not fit
        rotary = fields["positions"] == "rotary"
        axial_angles(grid, fields["width"] // (fields["heads"] if rotary else 1))
    fields |= {"patch": tuple(fields["patch"]), "dtype": resolve_dtype(fields["dtype"])}
    if vocabulary and vocabulary.conditioners:
        fields["conditioners"] = vocabulary.conditioners
        fields["cross_heads"] = config.condition.cross_heads or 0
    return DiT(shape=shape, **fields)


def num_steps(config, crops):
    """Return train.num_steps, or the steps of train.num_epochs over `crops` of all songs."""
    steps, epochs = config.train.num_steps, config.train.num_epochs
    if (steps is None) == (epochs is None):
        raise ValueError("train: set one of num_steps and num_epochs, and leave the other None")
    return steps if steps else math.ceil(epochs * crops / config.train.batch_size)


def augmentation(config):
    """Return {name: parameters} of the augmentations that are on; see audio/augment.py.

    Raises:
      ValueError: a pair that makes no sense, or a strength that would be ignored.
    """
    a, rate = config.augment, config.representation.sample_rate
    if a.swap is not None and config.data.channels == 1:
        raise ValueError("augment.swap is for data.channels=2; set it to None")
    for name in ("low_pass_hz", "noise_db"):
        if a[name] is not None and not (len(a[name]) == 2 and a[name][0] <= a[name][1]):
            raise ValueError(f"augment.{name}={tuple(a[name])} is not a pair (lowest, highest)")
    if a.low_pass_hz is not None and a.low_pass_hz[0] <= 0:
        raise ValueError(f"augment.low_pass_hz={tuple(a.low_pass_hz)} must be above 0 Hz")
    pair = lambda value, low, high: value and {low: value[0], high: value[1]}
    one = lambda value, name: None if value is None else {name: value}
    low_pass = pair(a.low_pass_hz, "min_hz", "max_hz")
    return {
        "speed": one(a.speed_semitones, "semitones"),
        "time_roll": one(a.time_roll, "fraction"),
        "swap": one(a.swap, "probability"),
        "polarity": one(a.polarity, "probability"),
        "low_pass": low_pass and low_pass | {"sample_rate": rate},
        "mix_up": one(a.mix_up, "max_weight"),
        "noise": pair(a.noise_db, "min_snr_db", "max_snr_db"),
        "gain": one(a.gain_db, "db"),
    }


def objective(config, rep, schedule):
    """Return the configured training Objective."""
    d, kind = config.diffusion, config.schedule.kind
    choose(predictions.PREDICTIONS, "diffusion.prediction", d.prediction)
    if (d.prediction == "edm") != (kind == "edm"):
        raise ValueError(
            f"diffusion.prediction={d.prediction!r} cannot use schedule.kind={kind!r}: prediction "
            "'edm' and schedule 'edm' need each other (they alone scale the network's input)"
        )
    if d.prediction == "eps" and d.loss_weighting in ("v", "velocity", "edm"):
        raise ValueError(
            f"diffusion.loss_weighting={d.loss_weighting!r} grows without bound in pure noise for "
            "prediction 'eps'; use target, snr, min_snr or sigmoid"
        )
    if d.skip_variance is not None and d.prediction != "x0":
        raise ValueError("diffusion.skip_variance is for prediction 'x0'; set it to None")
    delta = {} if d.loss_delta is None else {"delta": d.loss_delta}
    own = {"loss": delta} | {
        n: prefixed(d, f"{n}_") for n in ("timestep_sampling", "loss_weighting")
    }
    part = lambda options, name: bind(
        f"diffusion.{name}_",
        choose(options, f"diffusion.{name}", d[name]),
        own[name],
        f"diffusion.{name}={d[name]!r}",
    )
    times = part(objectives.TIMESTEP_SAMPLING, "timestep_sampling")
    times(jax.random.key(0), 1, schedule)  # raises for schedules that it cannot use
    perceptual = None
    if d.stft_loss_weight is not None:
        if rep.kind != "complex":
            raise ValueError(
                f"diffusion.stft_loss_weight={d.stft_loss_weight} needs "
                f"representation.kind='complex': {rep.kind!r} has no phase; unset it"
            )
        decode = lambda x: rep.decode(x).reshape(len(x), -1, rep.samples)  # [B, A, N]
        perceptual = lambda x_0_hat, x_0: (
            d.stft_loss_weight * spectral_loss(decode(x_0_hat), decode(x_0))
        )
    return objectives.Objective(
        prediction=d.prediction,
        times=times,
        weight=part(objectives.LOSS_WEIGHTING, "loss_weighting"),
        distance=part(objectives.LOSSES, "loss"),
        perceptual=perceptual,
    )


def denoiser(config, model, params, schedule):
    """Return the Denoiser of a model with these parameters."""
    d = config.diffusion
    apply = functools.partial(model.apply, {"params": params})
    return Denoiser(apply, schedule, d.prediction, d.skip_variance)


def dropout(config):
    """Return the rates of `conditioners.drop_conditions`."""
    c = config.condition
    return {"everything": c.dropout, "part": c.modality_dropout, "each": c.token_dropout}
