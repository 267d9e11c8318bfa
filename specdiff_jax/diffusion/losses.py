"""The training loss of a diffusion model, and its errors at chosen noise levels."""

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.diffusion.predictions import target, to_x0_eps
from specdiff_jax.diffusion.schedules import alpha_sigma, invert_log_snr, q_sample


def diffusion_loss(model, x_0, key, schedule, objective):
    """Return the mean error of the network's prediction for any Objective.

    Equations are of Ho et al. 2020 (arXiv 2006.11239) and Salimans & Ho 2022 (arXiv 2202.00512).

    Args:
      model: function (x_t [B, F, T, C], t [B]) -> output [B, F, T, C].
      x_0: [B, F, T, C] clean data.
      key: one JAX key; all randomness of the step comes from it.
      objective: an `objectives.Objective`.

    Returns:
      loss, a scalar, and {"x0_error": mean-square error of the implied x_0}.
    """
    time_key, noise_key = jax.random.split(key)
    t = objective.times(time_key, x_0.shape[0], schedule)  # [B]
    eps = jax.random.normal(noise_key, x_0.shape)  # [B, F, T, C]
    x_t = q_sample(schedule, x_0, t, eps)  # Ho eq. 4
    output = model(x_t, t)
    alpha, sigma = alpha_sigma(schedule, t, x_0)  # [B, 1, 1, 1]
    denoised, _ = to_x0_eps(objective.prediction, output, x_t, alpha, sigma)  # Ho eq. 15
    if objective.weight is None:
        error = output - target(objective.prediction, x_0, eps, alpha, sigma)  # Ho eq. 14
    else:
        error = jnp.sqrt(objective.weight(alpha, sigma)) * (denoised - x_0)  # Salimans sec. 4
    loss = jnp.mean(objective.distance(error))
    if objective.perceptual is not None:
        clean = (alpha**2 / (alpha**2 + sigma**2)).reshape(-1)  # [B], zero at pure noise
        loss += jnp.mean(clean * objective.perceptual(denoised, x_0))
    return loss, {"x0_error": jnp.mean((denoised - x_0) ** 2)}


def errors_by_level(denoise, x_0, levels, schedule, key):
    """Return mean-square errors of x_0 and of eps at fixed times, on noise of the key alone.

    Args:
      denoise: (x_t, t [B]) -> (x_0, eps).
      x_0: [B, ...]; levels: [K] times t.

    Returns:
      [K], [K].
    """

    def at_level(level):
        index, t = level
        eps = jax.random.normal(jax.random.fold_in(key, index), x_0.shape)
        t = jnp.full(x_0.shape[0], t)
        denoised, denoised_eps = denoise(q_sample(schedule, x_0, t, eps), t)
        return jnp.mean((denoised - x_0) ** 2), jnp.mean((denoised_eps - eps) ** 2)

    return jax.lax.map(at_level, (jnp.arange(len(levels)), jnp.asarray(levels)))


def x0_error_by_level(denoise, x_0, levels, schedule, key):
    """Return the x_0 errors of `errors_by_level`.  # [K]"""
    return errors_by_level(denoise, x_0, levels, schedule, key)[0]


def variational_bound(denoise, x_0, schedule, key, points=64, max_log_snr=10.0):
    """Return the VDM bound on -log p(x_0) in nats a dimension (Kingma et al. 2021, eq. 17, 18).

        1/2 log(2 pi e) - max_log_snr / 2  +  SNR(1) x_0^2 / 2  +  1/2 int |eps - eps'|^2 d log_snr

    eps' is the denoiser's. The density is that of x_0 with noise of e^(-max_log_snr / 2) added,
    which the first term decodes; the second is the prior's. The integral is over `points`
    stratified log_snr.

    Args:
      denoise: (x_t, t [B]) -> (x_0, eps); x_0: [B, ...].

    Returns:
      A scalar.
    """
    # Where a schedule ends in pure noise, log_snr below -20 adds nothing to the integral.
    last = jnp.nan_to_num(schedule.log_snr(jnp.ones(())), nan=-20.0, neginf=-20.0)
    low, high = jnp.maximum(last, -20.0), max_log_snr
    jitter_key, noise_key = jax.random.split(key)
    cells = (jnp.arange(points) + jax.random.uniform(jitter_key, (points,))) / points
    times = invert_log_snr(schedule, low + (high - low) * cells)
    _, errors = errors_by_level(denoise, x_0, times, schedule, noise_key)
    decoded = (np.log(2 * np.pi * np.e) - high) / 2
    return decoded + jnp.exp(low) * jnp.mean(x_0**2) / 2 + (high - low) / 2 * jnp.mean(errors)
