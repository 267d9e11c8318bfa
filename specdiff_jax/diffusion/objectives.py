"""The training objective: how t is sampled, the weight of the error at t, and its distance."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.schedules import invert_log_snr

MIN_SIGMA = 0.05  # least sigma in a weight: at less, one example would outweigh a batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """A training objective. The base's is the mean-square error of the prediction at uniform t."""

    prediction: str  # a key of predictions.PREDICTIONS
    times: Callable  # (key, batch, schedule) -> t [B]
    weight: Callable | None = None  # (alpha, sigma) -> weight of the squared x_0 error; None: the
    # error is that of the prediction's own target
    distance: Callable = jnp.square  # of each element of the error
    perceptual: Callable | None = None  # (denoised x_0, x_0) -> [B], added; fades with the noise


def discrete_times(key, batch, schedule):
    """Sample t uniformly of the schedule's own 1/T ... T/T (Ho et al. 2020, algorithm 1)."""
    if schedule.steps is None:
        raise ValueError(
            "timestep_sampling='discrete' needs a schedule with T steps, such as ddpm_linear"
        )
    return jax.random.randint(key, (batch,), 1, schedule.steps + 1) / schedule.steps


def uniform_times(key, batch, schedule):
    """Sample t uniformly in [0, 1)."""
    return jax.random.uniform(key, (batch,))


def stratified_times(key, batch, schedule):
    """Sample t in [0, 1), one in each of `batch` equal cells (Kingma et al. 2021, appendix I)."""
    jitter = jax.random.uniform(key, ())
    return (jnp.arange(batch) / batch + jitter) % 1.0


def logit_normal_times(key, batch, schedule, mean=0.0, std=1.0):
    """Sample t with normal logit, most in the middle (Esser et al. 2024, eq. 19)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, (batch,)))


def log_normal_times(key, batch, schedule, mean=-0.5, std=1.2):
    """Sample t with normal log(sigma / alpha) (Karras et al. 2022, table 1).

    `mean` is for data of unit deviation: the paper's -1.2 at sigma_data = 0.5 is -0.5 here.
    """
    log_sigma = mean + std * jax.random.normal(key, (batch,))
    return invert_log_snr(schedule, -2 * log_sigma)


# Weights of the squared x_0 error. With weight "v" any prediction has the loss of v-prediction,
# down to sigma = MIN_SIGMA. "velocity" on a rectified flow with prediction "x0" is Li & He 2025's.


def snr(alpha, sigma):
    """Return alpha^2 / sigma^2: the loss of eps-prediction (Ho et al. 2020, eq. 14)."""
    return (alpha / jnp.maximum(sigma, MIN_SIGMA)) ** 2


def min_snr(alpha, sigma, gamma=5.0):
    """Return min(SNR, gamma) (Hang et al. 2023, eq. 9)."""
    return jnp.minimum(snr(alpha, sigma), gamma)


def sigmoid(alpha, sigma, bias=0.0):
    """Return SNR * sigmoid(bias - log_snr) (Kingma & Gao 2023), not divided by a density.

    The paper divides by the density of log_snr, so that the schedule does not matter. Here the
    schedule and the sampling of t are options that weigh as well.
    """
    ratio = snr(alpha, sigma)
    return ratio / (1 + ratio * jnp.exp(-bias))


def v(alpha, sigma):
    """Return (alpha^2 + sigma^2)^2 / sigma^2: the loss of v-prediction."""
    return ((alpha**2 + sigma**2) / jnp.maximum(sigma, MIN_SIGMA)) ** 2


def velocity(alpha, sigma):
    """Return (alpha + sigma)^2 / sigma^2: the loss of a rectified flow's velocity."""
    return ((alpha + sigma) / jnp.maximum(sigma, MIN_SIGMA)) ** 2


def edm(alpha, sigma):
    """Return 1 + SNR: EDM's (sigma^2 + 1) / sigma^2 at unit deviation (Karras et al. 2022)."""
    return 1 + snr(alpha, sigma)


def squared(error):
    """Return error^2."""
    return jnp.square(error)


def huber(error, delta=1.0):
    """Return error^2 up to delta, linear beyond with equal slope (Huber 1964, times two)."""
    size = jnp.abs(error)
    return jnp.where(size <= delta, size**2, delta * (2 * size - delta))


TIMESTEP_SAMPLING = {
    "discrete": discrete_times,
    "uniform": uniform_times,
    "stratified": stratified_times,
    "logit_normal": logit_normal_times,
    "log_normal": log_normal_times,
}
LOSS_WEIGHTING = {
    "target": None,
    "snr": snr,
    "min_snr": min_snr,
    "sigmoid": sigmoid,
    "v": v,
    "velocity": velocity,
    "edm": edm,
}
LOSSES = {"mse": squared, "huber": huber}
