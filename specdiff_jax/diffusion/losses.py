"""From clean x_0 to a number to descend: draw t and eps, corrupt, ask the network, compare."""

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.predictions import target, to_x0_eps
from specdiff_jax.diffusion.schedules import alpha_sigma, q_sample


def discrete_times(key, batch, schedule):
    """t uniform over the schedule's own T times, 1/T ... T/T (Ho et al. 2020, algorithm 1)."""
    if schedule.steps is None:
        raise ValueError("times='discrete' needs a schedule with T steps, such as ddpm_linear")
    return jax.random.randint(key, (batch,), 1, schedule.steps + 1) / schedule.steps


def uniform_times(key, batch, schedule):
    """t uniform in [0, 1)."""
    return jax.random.uniform(key, (batch,))


def stratified_times(key, batch, schedule):
    """t uniform in [0, 1), one in each of `batch` equal cells (Kingma et al. 2021, appendix I)."""
    jitter = jax.random.uniform(key, ())
    return (jnp.arange(batch) / batch + jitter) % 1.0


def diffusion_loss(model, x_0, key, schedule, prediction, times):
    """Mean-square error of the network's prediction (Ho et al. 2020, eq. 14, for any kind).

    Args:
      model: function (x_t [B, F, T, C], t [B]) -> output [B, F, T, C].
      x_0: [B, F, T, C] clean data.
      key: one JAX key; all randomness of the step comes from it.
      prediction: "x0", "eps", "v" or "velocity".
      times: a key of TIMES.

    Returns:
      loss, a scalar, and {"x0_error": mean-square error of the implied x_0}.
    """
    time_key, noise_key = jax.random.split(key)
    t = TIMES[times](time_key, x_0.shape[0], schedule)  # [B]
    eps = jax.random.normal(noise_key, x_0.shape)
    x_t = q_sample(schedule, x_0, t, eps)
    output = model(x_t, t)
    alpha, sigma = alpha_sigma(schedule, t, x_0)
    loss = jnp.mean((output - target(prediction, x_0, eps, alpha, sigma)) ** 2)
    implied, _ = to_x0_eps(prediction, output, x_t, alpha, sigma)
    return loss, {"x0_error": jnp.mean((implied - x_0) ** 2)}


def x0_error_by_level(denoise, x_0, levels, schedule, key):
    """Mean-square x_0 error at fixed noise levels, the noise a function of the key alone.

    Args:
      denoise: (x_t, t [B]) -> (x_0, eps).
      x_0: [B, ...]; levels: [K] times t.

    Returns:
      [K].
    """

    def at_level(level):
        index, t = level
        eps = jax.random.normal(jax.random.fold_in(key, index), x_0.shape)
        t = jnp.full(x_0.shape[0], t)
        found, _ = denoise(q_sample(schedule, x_0, t, eps), t)
        return jnp.mean((found - x_0) ** 2)

    return jax.lax.map(at_level, (jnp.arange(len(levels)), jnp.asarray(levels)))


TIMES = {"discrete": discrete_times, "uniform": uniform_times, "stratified": stratified_times}
