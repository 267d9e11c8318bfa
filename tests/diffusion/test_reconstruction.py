"""Errors and reconstructions of the exact denoiser of a Gaussian equal the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import reconstruction, samplers, schedules, time_grids
from tests.helpers.gaussian import MEAN, STD, exact_denoiser

LEVELS = (np.arange(20) + 0.5) / 20
SCHEDULE = schedules.cosine()


def gaussian(count, shape=(16, 32, 1)):
    """Return data with exactly the Gaussian's mean and deviation: only the noise is random."""
    x = jax.random.normal(jax.random.key(3), (count, *shape))
    return MEAN + STD * (x - x.mean()) / x.std()


@pytest.fixture(scope="module")
def errors():
    keys = samplers.item_keys(0, np.arange(256))
    return reconstruction.errors_by_item(
        exact_denoiser(SCHEDULE), gaussian(256), keys, LEVELS, SCHEDULE
    )


def test_errors_by_item_of_the_exact_denoiser_are_the_posterior_variance_within_a_percent(errors):
    alpha, sigma = SCHEDULE.alpha(LEVELS), SCHEDULE.sigma(LEVELS)
    variance = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)
    np.testing.assert_allclose(errors[0].mean(axis=1), variance, rtol=0.01)


def test_errors_by_item_of_eps_are_snr_times_those_of_x_0(errors):
    snr = np.exp(SCHEDULE.log_snr(jnp.asarray(LEVELS)))
    np.testing.assert_allclose(errors[1], snr[:, None] * errors[0], rtol=2e-3)


def test_errors_by_item_are_the_same_in_any_batch(errors):
    keys = samplers.item_keys(0, np.arange(10, 13))
    few = reconstruction.errors_by_item(
        exact_denoiser(SCHEDULE), gaussian(256)[10:13], keys, LEVELS, SCHEDULE
    )
    np.testing.assert_allclose(few[0], errors[0][:, 10:13], rtol=1e-4)


def test_reconstruct_from_pure_noise_is_the_mean_in_one_step_and_a_sample_in_many():
    x_0, keys = gaussian(64), samplers.item_keys(0, np.arange(64))
    times = time_grids.uniform(SCHEDULE, 100)
    x_t, one_step, sample = reconstruction.reconstruct(
        exact_denoiser(SCHEDULE),
        lambda denoise, x, times, keys: samplers.ddim(denoise, x, times, SCHEDULE, keys),
        x_0,
        keys,
        times,
        level=0,
        schedule=SCHEDULE,
    )
    assert np.std(x_t) == pytest.approx(1, rel=0.02)
    assert np.std(one_step) < 0.1 * STD and np.mean(one_step) == pytest.approx(MEAN, rel=0.02)
    assert np.std(sample) == pytest.approx(STD, rel=0.03)
    assert np.mean((sample - x_0) ** 2) == pytest.approx(2 * STD**2, rel=0.05)  # another sample


def test_reconstruct_from_weak_noise_is_nearer_to_x_0_than_x_t_is():
    x_0, keys = gaussian(64), samplers.item_keys(0, np.arange(64))
    times = time_grids.uniform(SCHEDULE, 20, start=0.3)
    estimates = reconstruction.reconstruct(
        exact_denoiser(SCHEDULE),
        lambda denoise, x, times, keys: samplers.ddim(denoise, x, times, SCHEDULE, keys),
        x_0,
        keys,
        times,
        level=0,
        schedule=SCHEDULE,
    )
    noisy, one_step, sample = (float(np.mean((x - x_0) ** 2)) for x in estimates)
    alpha, sigma = float(SCHEDULE.alpha(0.3)), float(SCHEDULE.sigma(0.3))
    assert one_step == pytest.approx(STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2), rel=0.03)
    assert one_step < sample < noisy
