"""config.optimizer: an optax transformation, and the average of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.training import finetuning

# Of Muon's updates, so that they are as large as AdamW's usually are and its learning rate serves
# both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
MUON_RMS = 0.2
OTHER_FIELDS = (  # of config.optimizer, which its kind does not take
    "kind",
    "learning_rate",
    "warmup_steps",
    "lr_schedule",
    "clip_norm",
    "grad_accum_steps",
    "ema_kind",
    "ema_decay",
    "ema_rel_std",
)


def learning_rate(config, steps):
    """Return the learning rate as a function of the step."""
    o = config.optimizer
    after = max(1, steps - o.warmup_steps)
    schedules = {
        "constant": lambda: optax.constant_schedule(o.learning_rate),
        "linear": lambda: optax.linear_schedule(o.learning_rate, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(o.learning_rate, after),
    }
    after_warmup = choose(schedules, "optimizer.lr_schedule", o.lr_schedule)()
    warmup = optax.linear_schedule(0.0, o.learning_rate, max(1, o.warmup_steps))
    if not o.warmup_steps:
        return after_warmup
    return optax.join_schedules([warmup, after_warmup], [o.warmup_steps])


def learning_rates(config, steps):
    """Return the learning rate of every step, on the host: reading a device would wait for it."""
    rates = learning_rate(config, steps)(np.arange(steps))
    return np.broadcast_to(np.asarray(rates), steps)


def optimizer(config, steps):
    """Return the optax transformation: clipping, then the optimizer on its schedule."""
    o = config.optimizer
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
            consistent_rms=MUON_RMS,
        ),
        "schedule_free": lambda b1, b2, weight_decay: optax.contrib.schedule_free_adamw(
            rate, b1=b1, b2=b2, weight_decay=weight_decay
        ),
    }
    maker = choose(makers, "optimizer.kind", o.kind)
    fields = set_fields(o, *OTHER_FIELDS)
    tx = call("optimizer.", maker, fields, f"optimizer.kind={o.kind!r}")
    tx = optax.chain(optax.clip_by_global_norm(o.clip_norm), tx) if o.clip_norm else tx
    return finetuning.optimizer(config, tx)


def matrices(params):
    """Return which parameters weight decay is for: those of two axes or more before stacking."""
    stacked = lambda path: any(getattr(key, "key", None) == "blocks" for key in path)
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim >= 2 + stacked(path), params)


def ema_update(config):
    """Return (ema_params, params, opt_state, step) -> the average that is validated and sampled."""
    o = config.optimizer
    if (o.kind == "schedule_free") != (o.ema_kind == "schedule_free"):
        raise ValueError(
            f"optimizer.ema_kind={o.ema_kind!r} cannot go with optimizer.kind={o.kind!r}: "
            "'schedule_free' needs itself for both"
        )
    if o.kind == "schedule_free" and o.lr_schedule != "constant":
        raise ValueError(f"optimizer.lr_schedule={o.lr_schedule!r}: schedule_free needs 'constant'")
    profile = choose(EMA_KINDS, "optimizer.ema_kind", o.ema_kind)
    fields = {name: o[name] for name in ("ema_decay", "ema_rel_std") if o[name] is not None}
    return call("optimizer.", profile, fields, f"optimizer.ema_kind={o.ema_kind!r}")


def exponential_average(decay):
    """Return the exponential moving average whose decay is a function of the step.

    It adds a share of the difference, so that the average of a frozen parameter is that parameter
    to the bit. A weighted sum of two equal numbers (optax.incremental_update) may round.
    """

    def update(ema_params, params, opt_state, step):
        share = 1 - decay(step)
        return jax.tree.map(lambda old, new: old + share * (new - old), ema_params, params)

    return update


def constant(ema_decay):
    """Return the average with one decay, which is lower in the first steps."""
    return exponential_average(lambda step: jnp.minimum(ema_decay, (1 + step) / (10 + step)))


def power(ema_rel_std):
    """Return the average whose width is `ema_rel_std` of the run so far, however long it is.

    (Karras et al. 2023, arXiv 2312.02696, eq. 3 and algorithm 2: ema_rel_std is sigma_rel, the
    relative standard deviation of the profile.)
    """
    if not 0 < ema_rel_std < 0.28:
        raise ValueError(f"optimizer.ema_rel_std={ema_rel_std} is not between 0 and 0.28")
    roots = np.roots([1, 7, 16 - ema_rel_std**-2, 12 - ema_rel_std**-2])
    gamma = float(np.max(roots.real))
    return exponential_average(lambda step: (1 - 1 / (step + 1.0)) ** (gamma + 1))


def schedule_free():
    """Return the optimizer's own average (Defazio et al. 2024, arXiv 2405.15682, eq. 4)."""

    def update(_, params, opt_state, step):
        own = [
            s for s in jax.tree.leaves(opt_state, is_leaf=is_schedule_free) if is_schedule_free(s)
        ]
        return optax.contrib.schedule_free_eval_params(own[0], params)

    return update


def is_schedule_free(node):
    return isinstance(node, optax.contrib.ScheduleFreeState)


EMA_KINDS = {"constant": constant, "power": power, "schedule_free": schedule_free}
