"""The one place where a config becomes objects.

A config section holds the keyword arguments of a maker. None means unset; a set field that the
chosen maker does not take is an error, so that no option is ever silently ignored.
"""

import difflib
import inspect
import math

import jax
import jax.numpy as jnp
import optax

from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.augment import augment
from specdiff_jax.audio.stft import check_framing
from specdiff_jax.diffusion import losses, predictions, samplers, schedules
from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.dit import BLOCKS, DiT, grid_of
from specdiff_jax.models.layers import TIME_FEATURES
from specdiff_jax.models.positions import POSITIONS, axial_angles
from specdiff_jax.state import init_state

OWN_KEY = 2**30  # folded in for augmentation; jax.random.split folds in small numbers


def choose(options, field, value):
    """options[value], or an error that names the field, the choices and the nearest one."""
    if value in options:
        return options[value]
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{field}={value!r} is not one of {', '.join(options)}{hint}")


def set_fields(section, *apart):
    """The fields of a section that are set, except those named."""
    return {k: v for k, v in section.items() if v is not None and k not in apart}


def refuse_unused(path, fields, used, chosen):
    """Raises where a set field would be ignored by what was chosen."""
    for name in sorted(set(fields) - set(used)):
        raise ValueError(f"{path}.{name}={fields[name]!r} is not used by {chosen}; set it to None")


def call(path, maker, fields, chosen):
    """maker(**fields), refusing fields it does not take and naming those it misses."""
    parameters = inspect.signature(maker).parameters
    refuse_unused(path, fields, parameters, chosen)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in fields:
            raise ValueError(f"{path}.{name} must be set for {chosen}")
    return maker(**fields)


def representation(config):
    """The configured Representation, not fitted yet."""
    fields = set_fields(config.representation, "fit_crops")
    kind = fields["kind"]
    own = choose(representations.OPTIONS, "representation.kind", kind)
    shared = ("kind", "sample_rate", "n_fft", "hop", "frames", "standardize")
    chosen = f"representation.kind={kind!r}"
    refuse_unused("representation", fields, shared + own, chosen)
    for name in own:
        if name not in fields:
            raise ValueError(f"representation.{name} must be set for {chosen}")
    return representations.Representation(channels=config.data.channels, **fields)


def schedule(config):
    """The configured noise Schedule."""
    fields = set_fields(config.schedule, "kind", "log_snr_shift")
    maker = choose(schedules.SCHEDULES, "schedule.kind", config.schedule.kind)
    made = call("schedule", maker, fields, f"schedule.kind={config.schedule.kind!r}")
    shift = config.schedule.log_snr_shift
    return schedules.shifted(made, shift) if shift else made


def model(config, shape):
    """The configured DiT for tensors of `shape` (F, T, C)."""
    fields = set_fields(config.model)
    choose(BLOCKS, "model.block", fields["block"])
    choose(dict.fromkeys(POSITIONS), "model.positions", fields["positions"])
    choose(ATTENTIONS, "model.attention", fields["attention"])
    choose(TIME_FEATURES, "model.time_embedding", fields["time_embedding"])
    choose(dict.fromkeys(("float32", "bfloat16")), "model.dtype", fields["dtype"])
    if fields["width"] % fields["heads"]:
        raise ValueError(f"model.heads={fields['heads']} must divide model.width={fields['width']}")
    for axis, size, patch in zip(("bins", "frames"), shape, fields["patch"], strict=False):
        if size % patch:
            raise ValueError(f"model.patch={fields['patch']} does not divide the {size} {axis}")
    if fields["positions"] == "rotary":
        size = fields["width"] // fields["heads"]
        axial_angles(grid_of(shape, fields["patch"]), size)  # refuses heads that do not fit
    return DiT(shape=shape, **(fields | {"patch": tuple(fields["patch"])}))


def num_steps(config, crops):
    """Training steps: train.num_steps, or train.num_epochs over `crops` of all songs."""
    steps, epochs = config.train.num_steps, config.train.num_epochs
    if (steps is None) == (epochs is None):
        raise ValueError("train: set one of num_steps and num_epochs, and leave the other None")
    return steps if steps else math.ceil(epochs * crops / config.train.batch_size)


def learning_rate(config, steps):
    """The learning rate as a function of the step."""
    o = config.optimizer
    after = max(1, steps - o.warmup_steps)
    decays = {
        "constant": lambda: optax.constant_schedule(o.learning_rate),
        "linear": lambda: optax.linear_schedule(o.learning_rate, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(o.learning_rate, after),
    }
    decay = choose(decays, "optimizer.decay", o.decay)()
    warmup = optax.linear_schedule(0.0, o.learning_rate, max(1, o.warmup_steps))
    return optax.join_schedules([warmup, decay], [o.warmup_steps]) if o.warmup_steps else decay


def optimizer(config, steps):
    """The optax transformation: clipping, then the optimiser on its schedule."""
    o = config.optimizer
    apart = ("kind", "learning_rate", "warmup_steps", "decay", "clip_norm", "accumulate")
    fields = set_fields(o, *apart, "ema_decay")
    rate = learning_rate(config, steps)
    makers = {
        "adam": lambda b1, b2: optax.adam(rate, b1, b2),
        "adamw": lambda b1, b2, weight_decay: optax.adamw(
            rate, b1, b2, weight_decay=weight_decay, mask=matrices
        ),
        "muon": lambda b1, b2, weight_decay: optax.contrib.muon(
            rate,
            adam_b1=b1,
            adam_b2=b2,
            weight_decay=weight_decay,
            weight_decay_mask=matrices,
        ),
    }
    maker = choose(makers, "optimizer.kind", o.kind)
    made = call("optimizer", maker, fields, f"optimizer.kind={o.kind!r}")
    return optax.chain(optax.clip_by_global_norm(o.clip_norm), made) if o.clip_norm else made


def init(config, model, tx, shape):
    """The train state at step 0, a function of the config alone."""
    x_t, t = jnp.zeros((1, *shape)), jnp.zeros(1)
    params = jax.jit(model.init)(jax.random.key(config.seed), x_t, t)["params"]
    return init_state(params, tx)


def abstract_state(config, shape):
    """Shapes and dtypes of the train state, to restore into."""
    tx = optimizer(config, num_steps(config, crops=1))
    return jax.eval_shape(lambda: init(config, model(config, shape), tx, shape))


def matrices(params):
    """Which parameters weight decay touches: those with two axes or more."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def network(config, model, params, schedule):
    """(x_t, t [B]) -> what the network says, blended with x_t where skip_variance asks for it."""
    variance = config.diffusion.skip_variance

    def ask(x_t, t):
        output, _ = model.apply({"params": params}, x_t, t)
        if variance is None:
            return output
        alpha, sigma = schedules.alpha_sigma(schedule, t, x_t)
        return predictions.blend(output, x_t, alpha, sigma, variance)

    return ask


def augmentation(config):
    """{name: parameters} of the augmentations that are on; see audio/augment.py.

    Raises:
      ValueError: a strength that makes no sense, or one that would be ignored.
    """
    a, rate = config.augment, config.representation.sample_rate
    if a.swap is not None and config.data.channels == 1:
        raise ValueError("augment.swap is for data.channels=2; set it to None")
    for name in ("time_roll", "swap", "polarity", "mix_up"):
        most = 0.5 if name == "mix_up" else 1.0
        if a[name] is not None and not 0 <= a[name] <= most:
            raise ValueError(f"augment.{name}={a[name]} is not between 0 and {most}")
    if a.speed_semitones is not None and not 0 <= a.speed_semitones <= 12:
        raise ValueError(f"augment.speed_semitones={a.speed_semitones} is not between 0 and 12")
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


def loss_fn(config, model, rep, schedule):
    """(params, wave [B, N] or [B, A, N], key) -> (loss, metrics): the first straight line."""
    settings = augmentation(config)

    def loss(params, wave, key):
        if any(settings.values()):
            channels = wave.reshape(len(wave), config.data.channels, -1)
            wave = augment(channels, jax.random.fold_in(key, OWN_KEY), settings, rep.samples)
        x_0 = rep.encode(wave)  # [B, F, T, C]
        ask = network(config, model, params, schedule)
        d = config.diffusion
        return losses.diffusion_loss(ask, x_0, key, schedule, d.prediction, d.times)

    return loss


def denoiser(config, model, params, schedule):
    """denoise(x_t, t [B]) -> (x_0, eps), the only thing that samplers and metrics see."""

    def denoise(x_t, t):
        output = network(config, model, params, schedule)(x_t, t)
        alpha, sigma = schedules.alpha_sigma(schedule, t, x_t)
        return predictions.to_x0_eps(config.diffusion.prediction, output, x_t, alpha, sigma)

    return denoise


def sampler(config, schedule):
    """f(denoise, x_T, keys) -> x_0, with the configured sampler and time grid."""
    s = config.sample
    chosen = choose(samplers.SAMPLERS, "sample.sampler", s.sampler)
    options = {"eta": s.eta} if s.eta else {}
    if options and s.sampler != "ddim":
        raise ValueError(f"sample.eta={s.eta} is not used by sampler {s.sampler!r}; set it to 0")
    times = samplers.uniform_grid(schedule, s.steps)
    return lambda denoise, x_T, keys: chosen(denoise, x_T, times, schedule, keys, **options)


def check(config):
    """Refuses wrong values and impossible combinations before any work."""
    rep, made = representation(config), schedule(config)
    check_framing(rep.n_fft, rep.hop)
    model(config, rep.shape)
    optimizer(config, num_steps(config, crops=1))
    sampler(config, made)
    augmentation(config)
    choose(predictions.PREDICTIONS, "diffusion.prediction", config.diffusion.prediction)
    if config.diffusion.skip_variance is not None and config.diffusion.prediction != "x0":
        raise ValueError("diffusion.skip_variance is for prediction 'x0'; set it to None")
    choose(losses.TIMES, "diffusion.times", config.diffusion.times)(jax.random.key(0), 1, made)
    t, o = config.train, config.optimizer
    must_divide("optimizer.accumulate", o.accumulate, "train.batch_size", t.batch_size)
    for name in ("valid_every", "checkpoint_every"):
        must_divide("train.steps_per_dispatch", t.steps_per_dispatch, f"train.{name}", t[name])


def must_divide(part_name, part, whole_name, whole):
    """Raises ValueError unless `part` divides `whole`."""
    if part < 1 or whole % part:
        raise ValueError(f"{part_name}={part} must divide {whole_name}={whole}")
