"""From noise to data: `f(denoise, x_T, times, schedule, keys) -> x_0`, one `lax.scan` each.

`denoise(x_t, t [B]) -> (x_0, eps)` hides the network, the prediction kind and any guidance.
`times` falls from the time of x_T to 0; see time_grids.py.  # [S + 1]
`keys` has one key an item, so that item k is the same in any batch.  # [B]

Each step is one evaluation of the network; with `heun` two, but one in the last step.
"""

import math

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.schedules import invert_log_snr


def item_keys(seed, indices):
    """Return one key for each sample index.  # [B]"""
    return jax.vmap(lambda k: jax.random.fold_in(jax.random.key(seed), k))(jnp.asarray(indices))


def item_noise(keys, step, shape):
    """Return standard normal noise of each item's own stream at one step.  # [B, *shape]"""
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), shape)
    return jax.vmap(draw)(keys)


def step_inputs(times):
    """Return (t, the next and cleaner time s, index) of each step, to scan over.  # [S] each"""
    return times[:-1], times[1:], jnp.arange(len(times) - 1)


def batch_time(x, t):
    """Return one time for all items of x.  # [B]"""
    return jnp.full(x.shape[0], t)


def ddim(denoise, x_T, times, schedule, keys, eta=0.0):
    """Sample by DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12 and 16).

    eta = 0 is deterministic; eta = 1 is ancestral DDPM sampling (Ho et al. 2020, algorithm 2, with
    the posterior variance beta-tilde of eq. 7).
    """

    def step(x_t, inputs):
        t, s, i = inputs  # from t to the earlier, cleaner s
        x_0, eps = denoise(x_t, batch_time(x_t, t))
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        ratio = schedule.alpha(t) / alpha_s  # alpha_{t|s}
        variance = jnp.maximum(schedule.sigma(t) ** 2 - (ratio * sigma_s) ** 2, 0.0)
        noise_std = eta * sigma_s / schedule.sigma(t) * jnp.sqrt(variance)
        eps_scale = jnp.sqrt(jnp.maximum(sigma_s**2 - noise_std**2, 0.0))
        x_s = alpha_s * x_0 + eps_scale * eps
        if eta:
            x_s += noise_std * item_noise(keys, i + 1, x_t.shape[1:])
        return x_s, None

    return jax.lax.scan(step, x_T, step_inputs(times))[0]


def ddpm(denoise, x_T, times, schedule, keys):
    """Sample by DDPM's ancestral steps (Ho et al. 2020, algorithm 2), on any subset of times."""
    return ddim(denoise, x_T, times, schedule, keys, eta=1.0)


def euler(denoise, x_T, times, schedule, keys):
    """Sample by Euler's rule in t for the probability flow dx/dt = alpha' x_0 + sigma' eps.

    (Lipman et al. 2022, eq. 1.) On a rectified flow it is DDIM. The last step is DDIM on every
    schedule, because sigma may be vertical at the data. A schedule that is vertical in t at the
    noise too (sigmoid) needs a time grid in log_snr.
    """

    def step(x_t, inputs):
        t, s, _ = inputs
        x_0, eps = denoise(x_t, batch_time(x_t, t))
        slope = lambda f: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]
        return x_t + (s - t) * (slope(schedule.alpha) * x_0 + slope(schedule.sigma) * eps), None

    x_t = jax.lax.scan(step, x_T, step_inputs(times[:-1]))[0]
    return ddim(denoise, x_t, times[-2:], schedule, keys)


def heun(denoise, x_T, times, schedule, keys, churn=0.0):
    """Sample by EDM's second-order steps (Karras et al. 2022, algorithms 1 and 2), on any schedule.

    In y = x / alpha and n = sigma / alpha the flow is dy/dn = eps. `churn` is the paper's S_churn:
    noise that is added before steps, and removed by them, over the whole run.
    """
    gamma = min(churn / (len(times) - 1), math.sqrt(2) - 1)
    ratio = lambda t: schedule.sigma(t) / schedule.alpha(t)

    def add_churn(x_t, t, i):
        """Return x_t with more noise, and the time of that noise level."""
        if not gamma:
            return x_t, t
        up = invert_log_snr(schedule, schedule.log_snr(t) - 2 * math.log1p(gamma))
        alpha_up, more = schedule.alpha(up), ratio(up) ** 2 - ratio(t) ** 2
        noise = jnp.sqrt(jnp.maximum(more, 0.0)) * item_noise(keys, i + 1, x_t.shape[1:])
        return alpha_up * (x_t / schedule.alpha(t) + noise), up

    def step(x_t, inputs):
        t, s, i = inputs
        x_t, t = add_churn(x_t, t, i)
        x_0, eps = denoise(x_t, batch_time(x_t, t))
        x_s = schedule.alpha(s) * x_0 + schedule.sigma(s) * eps
        _, eps_s = denoise(x_s, batch_time(x_s, s))
        return x_s + schedule.alpha(s) * (ratio(s) - ratio(t)) / 2 * (eps_s - eps), None

    x_t = jax.lax.scan(step, x_T, step_inputs(times[:-1]))[0]
    return ddim(denoise, x_t, times[-2:], schedule, keys)  # at t = 0 there is no second slope


def dpmpp_2m(denoise, x_T, times, schedule, keys, stochastic=False):
    """Sample by DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    The first and the last step are of first order. With `stochastic` it is the SDE form (the same
    paper, eq. 18, with the two-step difference).
    """

    def step(carry, inputs):
        x_t, x_0_before, h_before = carry
        t, s, i = inputs
        x_0, _ = denoise(x_t, batch_time(x_t, t))
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2  # infinite where s is the data
        first_order = (i == 0) | ~jnp.isfinite(h)
        weight = jnp.where(first_order, 0.0, h / h_before / 2)
        ahead = (1 + weight) * x_0 - weight * x_0_before
        shrink = jnp.exp(-h) if stochastic else 1.0
        x_s = schedule.sigma(s) / schedule.sigma(t) * shrink * x_t
        x_s -= schedule.alpha(s) * jnp.expm1(-h * (2 if stochastic else 1)) * ahead
        if stochastic:
            noise_std = schedule.sigma(s) * jnp.sqrt(-jnp.expm1(-2 * h))
            x_s += noise_std * item_noise(keys, i + 1, x_t.shape[1:])
        return (x_s, x_0, h), None

    start = (x_T, jnp.zeros_like(x_T), jnp.ones(()))
    return jax.lax.scan(step, start, step_inputs(times))[0][0]


def dpmpp_2m_sde(denoise, x_T, times, schedule, keys):
    """Sample by the stochastic form of `dpmpp_2m`."""
    return dpmpp_2m(denoise, x_T, times, schedule, keys, stochastic=True)


def unipc(denoise, x_T, times, schedule, keys):
    """Sample by UniPC of order two with B(h) = e^h - 1 (Zhao et al. 2023, arXiv 2302.04867).

    Each evaluation of the network first corrects x_t, where it is evaluated, then predicts x_s.
    """

    def transfer(x, x_0, ahead, t, s, h):
        """Return x_s from x_t, with the data prediction x_0 + ahead."""
        ratio = schedule.sigma(s) / schedule.sigma(t)
        return ratio * x - schedule.alpha(s) * jnp.expm1(-h) * (x_0 + ahead)

    def correct(x_before, predictions, t_before, t, h, h_before, i):
        """Return x_t from the point before it and the last three x_0, the newest at t."""
        x_0, x_0_before, x_0_earlier = predictions
        phi = jnp.expm1(-h)
        b_1 = (phi / -h - 1) / phi  # the paper's eq. 9
        b_2 = 2 * ((phi / -h - 1) / -h - 0.5) / phi
        r_1 = -h_before / h
        weight_old = jnp.where(i > 1, (b_1 - b_2) / (1 - r_1), 0.0)
        weight_new = jnp.where(i > 1, b_1 - weight_old, 0.5)
        slope = jnp.where(i > 1, 1 / r_1, 0.0) * (x_0_earlier - x_0_before)
        ahead = weight_old * slope + weight_new * (x_0 - x_0_before)
        return transfer(x_before, x_0_before, ahead, t_before, t, h)

    def step(carry, inputs):
        x_t, x_before, x_0_before, x_0_earlier, t_before, h, h_before = carry
        t, s, i = inputs
        x_0, _ = denoise(x_t, batch_time(x_t, t))
        predictions = x_0, x_0_before, x_0_earlier
        corrected = correct(x_before, predictions, t_before, t, h, h_before, i)
        x_t = jnp.where(i > 0, corrected, x_t)
        h_next = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        first_order = (i == 0) | ~jnp.isfinite(h_next)
        ahead = jnp.where(first_order, 0.0, h_next / h / 2) * (x_0 - x_0_before)
        x_s = transfer(x_t, x_0, ahead, t, s, h_next)
        return (x_s, x_t, x_0, x_0_before, t, h_next, h), None

    zeros, one = jnp.zeros_like(x_T), jnp.ones(())
    start = (x_T, zeros, zeros, zeros, times[0], one, one)
    return jax.lax.scan(step, start, step_inputs(times))[0][0]


SAMPLERS = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
}


def num_steps(name, nfe):
    """Return the steps of a sampler within `nfe` evaluations of the network."""
    return (nfe + 1) // 2 if name == "heun" else nfe


def count_nfe(name, nfe):
    """Return the evaluations of the network of a sampler with at most `nfe` of them."""
    return 2 * num_steps(name, nfe) - 1 if name == "heun" else nfe
