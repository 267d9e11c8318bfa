"""Errors and reconstructions of a denoiser on held-out data.

Noise depends on (key of the item, level) alone, so a result is the same for any size of batch.
"""

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.samplers import batch_time, item_noise
from specdiff_jax.diffusion.schedules import q_sample


def add_noise(x_0, t, keys, level, schedule):
    """Return x_t of each item, and the eps in it.  # [B, ...] each"""
    eps = item_noise(keys, level, x_0.shape[1:])
    return q_sample(schedule, x_0, batch_time(x_0, t), eps), eps


def errors_by_item(denoise, x_0, keys, levels, schedule):
    """Return mean-square errors of x_0 and of eps, item by item, on fixed noise.

    Because eps = (x_t - alpha x_0) / sigma, the second is SNR times the first (Kingma et al. 2021,
    arXiv 2107.00630, eq. 15). Where they differ, a prediction is converted wrongly.

    Args:
      denoise: (x_t, t [B]) -> (x_0, eps).
      x_0: [B, F, T, C]; keys: one an item; levels: [K] times t.

    Returns:
      [K, B], [K, B].
    """
    axes = tuple(range(1, x_0.ndim))

    def at_level(inputs):
        index, t = inputs
        x_t, eps = add_noise(x_0, t, keys, index, schedule)
        denoised, denoised_eps = denoise(x_t, batch_time(x_0, t))
        return jnp.mean((denoised - x_0) ** 2, axes), jnp.mean((denoised_eps - eps) ** 2, axes)

    return jax.lax.map(at_level, (jnp.arange(len(levels)), jnp.asarray(levels)))


def reconstruct(denoise, sampler, x_0, keys, times, level, schedule):
    """Return three estimates of x_0 from x_t at t = times[0].

    Returns:
      x_t itself; x_0 of one denoising step; x_0 of the sampler along `times`.  # [B, F, T, C] each
    """
    x_t, _ = add_noise(x_0, times[0], keys, level, schedule)
    x_0_denoised, _ = denoise(x_t, batch_time(x_t, times[0]))
    return x_t, x_0_denoised, sampler(denoise, x_t, times, keys)
