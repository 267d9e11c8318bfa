"""config.optimizer -> an optax transformation and the average of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.training import finetuning

RATE = ("learning_rate", "warmup_steps", "lr_schedule")
# Of Muon's updates, so that they are as large as AdamW's usually are and its learning rate serves
# both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
MUON_RMS = 0.2
APART = ("kind", *RATE, "clip_norm", "grad_accum_steps", "ema_kind", "ema_decay", "ema_rel_std")


def learning_rate(config, steps):
    """The learning rate as a function of the step."""
    o = config.optimizer
    after = max(1, steps - o.warmup_steps)
    decays = {
        "constant": lambda: optax.constant_schedule(o.learning_rate),
        "linear": lambda: optax.linear_schedule(o.learning_rate, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(o.learning_rate, after),
    }
    decay = choose(decays, "optimizer.lr_schedule", o.lr_schedule)()
    warmup = optax.linear_schedule(0.0, o.learning_rate, max(1, o.warmup_steps))
    return optax.join_schedules([warmup, decay], [o.warmup_steps]) if o.warmup_steps else decay


def learning_rates(config, steps):
    """Of every step, on the host: one read from a device waits for all that it still has to do."""
    rates = learning_rate(config, steps)(np.arange(steps))
    return np.broadcast_to(np.asarray(rates), steps)


def optimizer(config, steps):
    """The optax transformation: clipping, then the optimiser on its schedule."""
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
    fields = set_fields(o, *APART)
    made = call("optimizer.", maker, fields, f"optimizer.kind={o.kind!r}")
    made = optax.chain(optax.clip_by_global_norm(o.clip_norm), made) if o.clip_norm else made
    return finetuning.optimizer(config, made)


def matrices(params):
    """Which parameters weight decay touches: those with two axes or more, stacking aside."""
    stacked = lambda path: any(getattr(key, "key", None) == "blocks" for key in path)
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim >= 2 + stacked(path), params)


def ema_update(config):
    """(average, params, opt_state, step) -> the average that validation and sampling use."""
    o = config.optimizer
    if (o.kind == "schedule_free") != (o.ema_kind == "schedule_free"):
        raise ValueError(
            f"optimizer.ema_kind={o.ema_kind!r} cannot go with optimizer.kind={o.kind!r}: "
            "'schedule_free' needs itself for both"
        )
    if o.kind == "schedule_free" and o.lr_schedule != "constant":
        raise ValueError(f"optimizer.lr_schedule={o.lr_schedule!r}: schedule_free needs 'constant'")
    profile = choose(PROFILES, "optimizer.ema_kind", o.ema_kind)
    fields = {name: o[name] for name in ("ema_decay", "ema_rel_std") if o[name] is not None}
    return call("optimizer.", profile, fields, f"optimizer.ema_kind={o.ema_kind!r}")


def moving_average(decay):
    """The exponential moving average whose decay is a function of the step.

    It moves by a share of the difference: what does not learn stays as it is to the bit, which a
    weighted sum of two equal numbers (optax.incremental_update) does not promise.
    """

    def of(average, params, opt_state, step):
        share = 1 - decay(step)
        return jax.tree.map(lambda old, new: old + share * (new - old), average, params)

    return of


def constant(ema_decay):
    """The same decay at each step, less while the average is young."""
    return moving_average(lambda step: jnp.minimum(ema_decay, (1 + step) / (10 + step)))


def power(ema_rel_std):
    """An average over the last `ema_rel_std` of the run so far, however long it is.

    (Karras et al. 2023, arXiv 2312.02696, eq. 3 and algorithm 2: ema_rel_std is sigma_rel, the
    width of the profile in units of the run.)
    """
    if not 0 < ema_rel_std < 0.28:
        raise ValueError(f"optimizer.ema_rel_std={ema_rel_std} is not between 0 and 0.28")
    roots = np.roots([1, 7, 16 - ema_rel_std**-2, 12 - ema_rel_std**-2])
    gamma = float(np.max(roots.real))
    return moving_average(lambda step: (1 - 1 / (step + 1.0)) ** (gamma + 1))


def schedule_free():
    """The optimiser's own average (Defazio et al. 2024, arXiv 2405.15682, eq. 4)."""

    def average(_, params, opt_state, step):
        own = [
            s for s in jax.tree.leaves(opt_state, is_leaf=is_schedule_free) if is_schedule_free(s)
        ]
        return optax.contrib.schedule_free_eval_params(own[0], params)

    return average


def is_schedule_free(node):
    return isinstance(node, optax.contrib.ScheduleFreeState)


PROFILES = {"constant": constant, "power": power, "schedule_free": schedule_free}
