"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 data and t = 1 noise.

A schedule is a pair of functions of continuous t; every maker below states its source.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Schedule:
    """alpha(t) scales the data, sigma(t) the noise; t in [0, 1], any shape."""

    alpha: Callable
    sigma: Callable
    steps: int | None = None  # T of a discrete schedule, whose own times are 1/T ... T/T

    def log_snr(self, t):
        """log(alpha^2 / sigma^2), falling in t."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))


def alpha_sigma(schedule, t, x):
    """alpha and sigma of one time an item, [B, 1, ..., 1] each, ready to scale `x`."""
    t = expand(t, x)
    return schedule.alpha(t), schedule.sigma(t)


def expand(t, x):
    """[B] -> [B, 1, ..., 1] with the rank of `x`, for an explicit broadcast."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def q_sample(schedule, x_0, t, eps):
    """The closed form of the forward process (Ho et al. 2020, arXiv 2006.11239, eq. 4).

    Args:
      x_0, eps: [B, ...]; t: [B].

    Returns:
      x_t [B, ...].
    """
    alpha, sigma = alpha_sigma(schedule, t, x_0)
    return alpha * x_0 + sigma * eps


def ddpm_linear(steps=1000, beta_min=1e-4, beta_max=0.02):
    """Linear betas (Ho et al. 2020, section 4); exact at t = i / steps, log-linear between.

    The first of `steps` betas takes x_0 to x at t = 1 / steps; alpha_bar(0) = 1.
    """
    betas = np.linspace(beta_min, beta_max, steps, dtype=np.float64)
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))]).astype(np.float32)

    def interpolated(t):
        return jnp.interp(t * steps, jnp.arange(steps + 1, dtype=jnp.float32), log_alpha_bar)

    def alpha(t):
        return jnp.exp(0.5 * interpolated(t))

    def sigma(t):
        return jnp.sqrt(-jnp.expm1(interpolated(t)))

    return Schedule(alpha, sigma, steps)


def cosine():
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol & Dhariwal 2021, eq. 17, offset 0)."""
    return Schedule(lambda t: jnp.cos(jnp.pi / 2 * t), lambda t: jnp.sin(jnp.pi / 2 * t))


def rectified_flow():
    """alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""
    return Schedule(lambda t: 1.0 - t, lambda t: 1.0 * t)


def shifted(schedule, log_snr_shift):
    """The variance-preserving schedule whose log_snr is `schedule`'s plus `log_snr_shift`.

    Negative shifts put more noise at every t, for larger tensors (Hoogeboom et al. 2023, eq. 10).
    """

    scale = math.exp(log_snr_shift / 2)  # of alpha over sigma

    def norm(t):
        return jnp.sqrt((scale * schedule.alpha(t)) ** 2 + schedule.sigma(t) ** 2)

    return Schedule(
        lambda t: scale * schedule.alpha(t) / norm(t),
        lambda t: schedule.sigma(t) / norm(t),
        schedule.steps,
    )


SCHEDULES = {"ddpm_linear": ddpm_linear, "cosine": cosine, "rectified_flow": rectified_flow}
