"""Where a config becomes objects (optimizers.py and sampling.py aside); fields.py has the rules."""

import functools
import math

import jax
import jax.numpy as jnp

from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.augment import augment
from specdiff_jax.audio.distances import spectral_loss
from specdiff_jax.audio.stft import check_framing
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.config import bounds
from specdiff_jax.config.fields import (
    bind,
    call,
    choose,
    must_divide,
    prefixed,
    refuse_unused,
    set_fields,
)
from specdiff_jax.data import collection
from specdiff_jax.diffusion import losses, objectives, predictions, schedules
from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.blocks import BLOCKS, REMATS
from specdiff_jax.models.conditioning import dropped, unsaid
from specdiff_jax.models.dit import DiT
from specdiff_jax.models.layers import MLPS, TIME_FEATURES
from specdiff_jax.models.matmul import fast_dtype
from specdiff_jax.models.norms import NORMS
from specdiff_jax.models.positions import POSITIONS, axial_angles, grid_of
from specdiff_jax.runtime import mesh
from specdiff_jax.sampling import options as sampling
from specdiff_jax.training import finetuning, optimizers
from specdiff_jax.training.train_state import init_state

OWN_KEY = 2**30  # folded in for augmentation; jax.random.split folds in small numbers
DROP_KEY = OWN_KEY + 1  # for what is left unsaid

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
    """The configured Representation, not fitted yet."""
    fields = set_fields(config.representation, "fit_crops")
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
    """The configured noise Schedule."""
    fields = set_fields(config.schedule, "kind", "log_snr_shift")
    kind, shift = config.schedule.kind, config.schedule.log_snr_shift
    maker = choose(schedules.SCHEDULES, "schedule.kind", kind)
    made = call("schedule.", maker, fields, f"schedule.kind={kind!r}")
    if shift and kind == "edm":
        raise ValueError(
            f"schedule.log_snr_shift={shift} is not used by schedule.kind='edm'; set it to 0 and "
            "change sigma_min and sigma_max"
        )
    return schedules.shifted(made, shift) if shift else made


def model(config, shape, vocabulary=None):
    """The configured DiT for tensors of `shape` (F, T, C) that knows a conditions.Vocabulary."""
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
    grid = grid_of(shape, fields["patch"])
    if fields["positions"] != "learned":  # refuses sizes that do not fit
        rotary = fields["positions"] == "rotary"
        axial_angles(grid, fields["width"] // (fields["heads"] if rotary else 1))
    inputs = vocabulary and vocabulary.inputs(config.condition.cross_heads or 0)
    fields |= {"patch": tuple(fields["patch"]), "dtype": fast_dtype(fields["dtype"])}
    return DiT(shape=shape, inputs=inputs, **fields)


def num_steps(config, crops):
    """Training steps: train.num_steps, or train.num_epochs over `crops` of all songs."""
    steps, epochs = config.train.num_steps, config.train.num_epochs
    if (steps is None) == (epochs is None):
        raise ValueError("train: set one of num_steps and num_epochs, and leave the other None")
    return steps if steps else math.ceil(epochs * crops / config.train.batch_size)


def initial_params(config, model, shape):
    """The parameters before any training, a function of the config alone."""
    example = jnp.zeros((1, *shape)), jnp.zeros(1), model.inputs and unsaid(model.inputs, 1)
    return jax.jit(model.init)(jax.random.key(config.seed), *example)["params"]


def init(config, model, tx, shape, params=None):
    """The train state at step 0, with `params` where they come from elsewhere."""
    params = initial_params(config, model, shape) if params is None else params
    return init_state(finetuning.with_updates(config, params), tx)


def abstract_state(config, shape, vocabulary=None):
    """Shapes and dtypes of the train state, to restore into."""
    tx = optimizers.optimizer(config, num_steps(config, crops=1))
    return jax.eval_shape(lambda: init(config, model(config, shape, vocabulary), tx, shape))


def network(config, model, params, schedule):
    """(x_t, t [B], condition) -> what the network says, blended with x_t by skip_variance."""
    kind, variance = config.diffusion.prediction, config.diffusion.skip_variance
    weights = finetuning.weights(config, params)

    def ask(x_t, t, condition=None):
        alpha, sigma = schedules.alpha_sigma(schedule, t, x_t)
        seen = predictions.network_input(kind, x_t, alpha, sigma)
        output, _ = model.apply({"params": weights}, seen, t, condition)
        if variance is None:
            return output
        return predictions.blend(output, x_t, alpha, sigma, variance)

    return ask


def features(config, model, params, schedule, x_0, eps, t):
    """What each block makes of x_t at one noise level t, nothing said.  # depth x [B, L, D]"""
    t = jnp.full(len(x_0), t, jnp.float32)
    alpha, sigma = schedules.alpha_sigma(schedule, t, x_0)
    kind = config.diffusion.prediction
    seen = predictions.network_input(kind, alpha * x_0 + sigma * eps, alpha, sigma)
    nothing = model.inputs and unsaid(model.inputs, len(x_0))
    return model.apply({"params": params}, seen, t, nothing)[1]


def augmentation(config):
    """{name: parameters} of the augmentations that are on; see audio/augment.py.

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


def conditioned(config):
    """Whether the model can be asked for anything.

    Raises:
      ValueError: a number that there is not, or a field that would be ignored.
    """
    c = config.condition
    for name in c.numbers:
        choose(conditions.UNITS, "condition.numbers", name)
    anything = bool(c.labels or c.text or c.numbers)
    needs = {"min_songs": c.labels, "balance": c.labels, "max_tokens": c.text}
    needs |= {"cross_heads": anything, "drop": anything, "drop_part": c.labels or c.text}
    needs |= {"drop_each": anything}
    for name, on in needs.items():
        if c[name] is not None and not on:
            raise ValueError(f"condition.{name}={c[name]} has nothing to act on; set it to None")
        if c[name] is None and on and name != "balance":
            raise ValueError(f"condition.{name} must be set for what condition asks for")
    return anything


def objective(config, rep, schedule):
    """The configured training Objective."""
    d, kind = config.diffusion, config.schedule.kind
    choose(predictions.PREDICTIONS, "diffusion.prediction", d.prediction)
    if (d.prediction == "edm") != (kind == "edm"):
        raise ValueError(
            f"diffusion.prediction={d.prediction!r} cannot use schedule.kind={kind!r}: prediction "
            "'edm' and schedule 'edm' need each other (they alone scale what the network sees)"
        )
    if d.prediction == "eps" and d.weight in ("v", "velocity", "edm"):
        raise ValueError(
            f"diffusion.weight={d.weight!r} grows without bound in pure noise for prediction "
            "'eps'; use target, snr, min_snr or sigmoid"
        )
    if d.skip_variance is not None and d.prediction != "x0":
        raise ValueError("diffusion.skip_variance is for prediction 'x0'; set it to None")
    part = lambda options, name: bind(
        f"diffusion.{name}_",
        choose(options, f"diffusion.{name}", d[name]),
        prefixed(d, f"{name}_"),
        f"diffusion.{name}={d[name]!r}",
    )
    times = part(objectives.TIMES, "times")
    times(jax.random.key(0), 1, schedule)  # refuses schedules that it cannot use
    perceptual = None
    if d.stft_weight is not None:
        if rep.kind != "complex":
            raise ValueError(
                f"diffusion.stft_weight={d.stft_weight} needs representation.kind='complex': "
                f"{rep.kind!r} has no phase to decode by; set it to None"
            )
        perceptual = lambda found, x_0: (
            d.stft_weight
            * spectral_loss(*(rep.decode(x).reshape(len(x), -1, rep.samples) for x in (found, x_0)))
        )
    return objectives.Objective(
        prediction=d.prediction,
        times=times,
        weight=part(objectives.WEIGHTS, "weight"),
        distance=part(objectives.DISTANCES, "distance"),
        perceptual=perceptual,
    )


def loss_fn(config, model, rep, schedule):
    """(params, (wave, condition), key) -> (loss, metrics): the first straight line.

    wave is [B, N] or [B, A, N]; condition a Condition, None of a model that takes none.
    """
    settings, goal = augmentation(config), objective(config, rep, schedule)

    def loss(params, batch, key):
        wave, condition = batch
        if any(settings.values()):
            channels = wave.reshape(len(wave), config.data.channels, -1)
            wave = augment(channels, jax.random.fold_in(key, OWN_KEY), settings, rep.samples)
        if condition is not None:
            drop_key, c = jax.random.fold_in(key, DROP_KEY), config.condition
            condition = dropped(condition, drop_key, c.drop, c.drop_part, c.drop_each)
        x_0 = mesh.by_batch(rep.encode)(wave)  # [B, F, T, C]
        learning = finetuning.held(config, params)
        ask = functools.partial(network(config, model, learning, schedule), condition=condition)
        return losses.diffusion_loss(ask, x_0, key, schedule, goal)

    return loss


def denoiser(config, model, params, schedule):
    """denoise(x_t, t [B], condition) -> (x_0, eps), the one thing that samplers and metrics see."""

    def denoise(x_t, t, condition=None):
        output = network(config, model, params, schedule)(x_t, t, condition)
        alpha, sigma = schedules.alpha_sigma(schedule, t, x_t)
        return predictions.to_x0_eps(config.diffusion.prediction, output, x_t, alpha, sigma)

    return denoise


def check(config):
    """Refuses wrong values and impossible combinations before any work."""
    bounds.check(config)
    collection.check(config)
    rep, made = representation(config), schedule(config)
    check_framing(rep.n_fft, rep.hop)
    model(config, rep.shape)
    optimizers.optimizer(config, num_steps(config, crops=1))
    optimizers.averaging(config)
    sampling.check(config, made)
    conditioned(config)
    finetuning.check(config)
    augmentation(config)
    objective(config, rep, made)
    t, o = config.train, config.optimizer
    must_divide("optimizer.accumulate", o.accumulate, "train.batch_size", t.batch_size)
    for name in ("valid_every", "checkpoint_every"):
        must_divide("train.steps_per_dispatch", t.steps_per_dispatch, f"train.{name}", t[name])
