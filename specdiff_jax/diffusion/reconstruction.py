"""What a denoiser makes of data that it never saw: its error at every level, and what it rebuilds.

Noise depends on (key of the item, level) alone, so a figure is the same for any size of batch.
"""

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.samplers import batch_time, item_noise
from specdiff_jax.diffusion.schedules import q_sample


def add_noise(x_0, t, keys, level, schedule):
    """x_t of each item, and the eps in it.  # [B, ...], as it"""
    eps = item_noise(keys, level, x_0.shape[1:])
    return q_sample(schedule, x_0, batch_time(x_0, t), eps), eps


def errors_by_item(denoise, x_0, keys, levels, schedule):
    """Mean-square errors of x_0 and of eps, item by item, on fixed noise.

    Two ways to say one thing: eps = (x_t - alpha x_0) / sigma, so the second is SNR times the first
    (Kingma et al. 2021, arXiv 2107.00630, eq. 15). Where they differ, a prediction is converted
    wrongly.

    Args:
      denoise: (x_t, t [B]) -> (x_0, eps).
      x_0: [B, F, T, C]; keys: one an item; levels: [K] times t.

    Returns:
      [K, B], [K, B].
    """
    axes = tuple(range(1, x_0.ndim))

    def of_level(inputs):
        index, t = inputs
        x_t, eps = add_noise(x_0, t, keys, index, schedule)
        found, found_eps = denoise(x_t, batch_time(x_0, t))
        return jnp.mean((found - x_0) ** 2, axes), jnp.mean((found_eps - eps) ** 2, axes)

    return jax.lax.map(of_level, (jnp.arange(len(levels)), jnp.asarray(levels)))


def reconstruct(denoise, sampler, x_0, keys, times, level, schedule):
    """Three answers to what x_0 was, given x_t at t = times[0].

    Returns:
      x_t itself, untouched; x_0 at one glance; x_0 by the sampler along `times`.  # as x_0, each
    """
    x_t, _ = add_noise(x_0, times[0], keys, level, schedule)
    return x_t, denoise(x_t, batch_time(x_t, times[0]))[0], sampler(denoise, x_t, times, keys)
