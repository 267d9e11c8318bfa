"""From noise to data: `f(denoise, x_T, times, schedule, keys) -> x_0`, one `lax.scan` each.

`denoise(x_t, t [B]) -> (x_0, eps)` hides the network, the prediction kind and any guidance.
`times` falls from 1 (or near) to 0.  # [S + 1]
`keys` is one key an item, so that item k is the same whatever else is in the batch.  # [B]
"""

import jax
import jax.numpy as jnp


def item_keys(seed, indices):
    """One key for each sample index.  # [B]"""
    return jax.vmap(lambda k: jax.random.fold_in(jax.random.key(seed), k))(jnp.asarray(indices))


def item_noise(keys, step, shape):
    """Standard normal noise of each item's own stream at one step.  # [B, *shape]"""
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), shape)
    return jax.vmap(draw)(keys)


def uniform_grid(schedule, steps):
    """`steps` equal strides from t = 1 to t = 0; on the grid of T where the schedule has one."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    times = jnp.linspace(1.0, 0.0, steps + 1)
    if schedule.steps is None:
        return jnp.clip(times, 0.0, 1.0 - 1e-3)  # x_0 cannot be read off pure noise
    if steps > schedule.steps:
        raise ValueError(f"steps={steps} is more than the schedule's T={schedule.steps}")
    return jnp.round(times * schedule.steps) / schedule.steps


def ddim(denoise, x_T, times, schedule, keys, eta=0.0):
    """DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12), with its `eta`.

    eta = 0 is deterministic; eta = 1 is ancestral DDPM sampling (Ho et al. 2020, algorithm 2, with
    the posterior variance beta-tilde of eq. 7).
    """

    def step(x_t, inputs):
        t, s, i = inputs  # from t to the earlier, cleaner s
        x_0, eps = denoise(x_t, jnp.full(x_t.shape[0], t))
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        ratio = schedule.alpha(t) / alpha_s  # alpha_{t|s}
        variance = jnp.maximum(schedule.sigma(t) ** 2 - (ratio * sigma_s) ** 2, 0.0)
        noise_std = eta * sigma_s / schedule.sigma(t) * jnp.sqrt(variance)
        eps_scale = jnp.sqrt(jnp.maximum(sigma_s**2 - noise_std**2, 0.0))
        x_s = alpha_s * x_0 + eps_scale * eps
        if eta:
            x_s += noise_std * item_noise(keys, i + 1, x_t.shape[1:])
        return x_s, None

    inputs = (times[:-1], times[1:], jnp.arange(len(times) - 1))
    return jax.lax.scan(step, x_T, inputs)[0]


def ddpm(denoise, x_T, times, schedule, keys):
    """DDPM ancestral sampling (Ho et al. 2020, algorithm 2), on any subset of the times."""
    return ddim(denoise, x_T, times, schedule, keys, eta=1.0)


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}
