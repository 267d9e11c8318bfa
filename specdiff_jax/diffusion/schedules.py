"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 data and t = 1 noise.

A schedule is a pair of functions of continuous t; every maker below states its source.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Times of the table that inverts log_snr: close at both ends, where it runs away. 1 - 2^-24 is the
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


def with_eps(x_0, x_t, t, schedule):
    """Return x_0 and the eps with which it gives x_t.  # [B, F, T, C] each"""
    alpha, sigma = alpha_sigma(schedule, t, x_t)
    return x_0, (x_t - alpha * x_0) / jnp.maximum(sigma, 1e-8)


def invert_log_snr(schedule, log_snr):
    """The t at which `schedule` has this log_snr, the nearest end where it has none.  # any shape

    By a table of log_snr over t, straight between its knots.
    """
    # At t = 1 alpha may round to just below zero.
    known = jnp.nan_to_num(schedule.log_snr(KNOTS), nan=-60.0, posinf=60.0, neginf=-60.0)
    return jnp.interp(-log_snr, -known, KNOTS)


def ddpm_linear(steps=1000, beta_min=1e-4, beta_max=0.02, zero_terminal_snr=False):
    """Linear betas (Ho et al. 2020, section 4); exact at t = i / steps, log-linear between.

    The first of `steps` betas takes x_0 to x at t = 1 / steps; alpha_bar(0) = 1. With
    `zero_terminal_snr` alpha is moved and scaled so that nothing of x_0 is left at t = 1 (Lin et
    al. 2023, algorithm 1).
    """
    betas = np.linspace(beta_min, beta_max, steps, dtype=np.float64)
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    if zero_terminal_snr:
        alpha = np.exp(log_alpha_bar / 2)
        alpha = (alpha - alpha[-1]) / (1 - alpha[-1])
        log_alpha_bar = 2 * np.log(np.maximum(alpha, 1e-6))  # e^-27 of x_0's power: nothing
    log_alpha_bar = log_alpha_bar.astype(np.float32)

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


def sigmoid(start=-3.0, end=3.0):
    """alpha_bar falls as a logistic curve from `start` to `end` (Jabri et al. 2022, appendix B)."""
    check_order("start", start, "end", end)
    first, last = (1 / (1 + math.exp(-x)) for x in (start, end))

    def spent(t):  # 1 - alpha_bar
        return (jax.nn.sigmoid(start + t * (end - start)) - first) / (last - first)

    return Schedule(
        lambda t: jnp.sqrt(jnp.maximum(1 - spent(t), 0.0)),
        lambda t: jnp.sqrt(jnp.maximum(spent(t), 0.0)),
    )


def edm(sigma_min=0.004, sigma_max=160.0, rho=7.0):
    """Noise is added, the data never scaled: alpha = 1 (Karras et al. 2022, eq. 5).

    sigma is in units of the data's standard deviation, which is one here: the paper's 0.002 and
    80 are of data with sigma_data = 0.5. At t = 0 there is none, as after the paper's last step.
    """
    check_order("sigma_min", sigma_min, "sigma_max", sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigma = lambda t: jnp.where(t > 0, (low + t * (high - low)) ** rho, 0.0)
    return Schedule(lambda t: jnp.ones_like(t), sigma)


def check_order(low_name, low, high_name, high):
    """Raises ValueError unless noise grows from `low` to `high`."""
    if not low < high:
        raise ValueError(f"{low_name}={low} is not below {high_name}={high}")


def shift_log_snr(schedule, log_snr_shift):
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


SCHEDULES = {
    "ddpm_linear": ddpm_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "rectified_flow": rectified_flow,
    "edm": edm,
}
