"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 data and t = 1 noise.

A schedule is a pair of functions of continuous t.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Times of the table that inverts log_snr: dense at both ends, where it diverges. 1 - 2^-24 is the
# last float32 before 1.
DISTANCES = np.geomspace(2.0**-24, 0.5, 2000)
KNOTS = np.concatenate([[0, 1e-12, 1e-9], DISTANCES, 1 - DISTANCES[-2::-1], [1]]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """alpha(t) scales the data, sigma(t) the noise; t in [0, 1], any shape."""

    alpha: Callable
    sigma: Callable
    steps: int | None = None  # T of a discrete schedule, whose own times are 1/T ... T/T

    def log_snr(self, t):
        """Return log(alpha^2 / sigma^2), which falls with t."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))


def alpha_sigma(schedule, t, x):
    """Return alpha and sigma of t [B], as [B, 1, ..., 1] with the rank of `x`."""
    t = expand(t, x)
    return schedule.alpha(t), schedule.sigma(t)


def expand(t, x):
    """Return t with the rank of `x`, for an explicit broadcast.  # [B] -> [B, 1, ..., 1]"""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def q_sample(schedule, x_0, t, eps):
    """Return x_t [B, ...] of the forward process (Ho et al. 2020, arXiv 2006.11239, eq. 4).

    Args:
      x_0, eps: [B, ...]; t: [B].
    """
    alpha, sigma = alpha_sigma(schedule, t, x_0)
    return alpha * x_0 + sigma * eps


def with_eps(x_0, x_t, t, schedule):
    """Return x_0 and the eps with which it gives x_t.  # [B, F, T, C] each"""
    alpha, sigma = alpha_sigma(schedule, t, x_t)
    return x_0, (x_t - alpha * x_0) / jnp.maximum(sigma, 1e-8)


def invert_log_snr(schedule, log_snr):
    """Return the t at which `schedule` has this log_snr, else the nearest end.  # any shape

    A table of log_snr over t is interpolated linearly.
    """
    # At t = 1 alpha may round to just below zero.
    table = jnp.nan_to_num(schedule.log_snr(KNOTS), nan=-60.0, posinf=60.0, neginf=-60.0)
    return jnp.interp(-log_snr, -table, KNOTS)


def ddpm_linear(steps=1000, beta_min=1e-4, beta_max=0.02, zero_terminal_snr=False):
    """Return the schedule of linear betas (Ho et al. 2020, section 4); log-linear between steps.

    The first of `steps` betas takes x_0 to x at t = 1 / steps; alpha_bar(0) = 1. With
    `zero_terminal_snr` alpha is shifted and scaled to zero at t = 1 (Lin et al. 2023, algorithm 1).
    """
    betas = np.linspace(beta_min, beta_max, steps, dtype=np.float64)
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    if zero_terminal_snr:
        alpha = np.exp(log_alpha_bar / 2)
        alpha = (alpha - alpha[-1]) / (1 - alpha[-1])
        log_alpha_bar = 2 * np.log(np.maximum(alpha, 1e-6))  # e^-27 of x_0's power
    log_alpha_bar = log_alpha_bar.astype(np.float32)

    def interpolate(t):
        return jnp.interp(t * steps, jnp.arange(steps + 1, dtype=jnp.float32), log_alpha_bar)

    def alpha(t):
        return jnp.exp(0.5 * interpolate(t))

    def sigma(t):
        return jnp.sqrt(-jnp.expm1(interpolate(t)))

    return Schedule(alpha, sigma, steps)


def cosine():
    """Return alpha = cos(pi t / 2) (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17, offset 0)."""
    return Schedule(lambda t: jnp.cos(jnp.pi / 2 * t), lambda t: jnp.sin(jnp.pi / 2 * t))


def rectified_flow():
    """Return alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""
    return Schedule(lambda t: 1.0 - t, lambda t: 1.0 * t)


def sigmoid(start=-3.0, end=3.0):
    """Return alpha_bar as a logistic curve from `start` to `end` (Jabri et al. 2022, app. B)."""
    check_order("start", start, "end", end)
    first, last = (1 / (1 + math.exp(-x)) for x in (start, end))

    def noise_power(t):  # 1 - alpha_bar
        return (jax.nn.sigmoid(start + t * (end - start)) - first) / (last - first)

    return Schedule(
        lambda t: jnp.sqrt(jnp.maximum(1 - noise_power(t), 0.0)),
        lambda t: jnp.sqrt(jnp.maximum(noise_power(t), 0.0)),
    )


def edm(sigma_min=0.004, sigma_max=160.0, rho=7.0):
    """Return alpha = 1 and sigma of Karras et al. 2022, eq. 5: the data is not scaled.

    sigma is in units of the data's standard deviation, which is one here: the paper's 0.002 and
    80 are for sigma_data = 0.5. At t = 0 sigma is zero, as after the paper's last step.
    """
    check_order("sigma_min", sigma_min, "sigma_max", sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigma = lambda t: jnp.where(t > 0, (low + t * (high - low)) ** rho, 0.0)
    return Schedule(lambda t: jnp.ones_like(t), sigma)


def check_order(low_name, low, high_name, high):
    """Raise ValueError unless `low` is below `high`."""
    if not low < high:
        raise ValueError(f"{low_name}={low} is not below {high_name}={high}")


def shift_log_snr(schedule, log_snr_shift):
    """Return the variance-preserving schedule of log_snr `schedule`'s plus `log_snr_shift`.

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


SCHEDULES = {
    "ddpm_linear": ddpm_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "rectified_flow": rectified_flow,
    "edm": edm,
}
