"""Errors and reconstructions of the exact denoiser of a Gaussian are the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import reconstruction, samplers, schedules, time_grids
from tests.helpers.gaussian import MEAN, STD, exact_denoiser

LEVELS = (np.arange(20) + 0.5) / 20
SCHEDULE = schedules.cosine()


def gaussian(count, shape=(16, 32, 1)):
    """Data whose own mean and deviation are the Gaussian's, so that only the noise is chance."""
    x = jax.random.normal(jax.random.key(3), (count, *shape))
    return MEAN + STD * (x - x.mean()) / x.std()


@pytest.fixture(scope="module")
def found():
    keys = samplers.item_keys(0, np.arange(256))
    return reconstruction.errors_by_item(
        exact_denoiser(SCHEDULE), gaussian(256), keys, LEVELS, SCHEDULE
    )


def test_the_error_of_the_exact_denoiser_is_the_posterior_variance_within_a_percent(found):
    alpha, sigma = SCHEDULE.alpha(LEVELS), SCHEDULE.sigma(LEVELS)
    variance = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)
    np.testing.assert_allclose(found[0].mean(axis=1), variance, rtol=0.01)


def test_the_error_of_eps_is_snr_times_that_of_x_0(found):
    snr = np.exp(SCHEDULE.log_snr(jnp.asarray(LEVELS)))
    np.testing.assert_allclose(found[1], snr[:, None] * found[0], rtol=2e-3)


def test_an_item_has_the_same_error_in_any_batch(found):
    keys = samplers.item_keys(0, np.arange(10, 13))
    few = reconstruction.errors_by_item(
        exact_denoiser(SCHEDULE), gaussian(256)[10:13], keys, LEVELS, SCHEDULE
    )
    np.testing.assert_allclose(few[0], found[0][:, 10:13], rtol=1e-4)


def test_from_pure_noise_a_glance_is_the_mean_and_a_sampler_is_a_sample():
    x_0, keys = gaussian(64), samplers.item_keys(0, np.arange(64))
    times = time_grids.uniform(SCHEDULE, 100)
    x_t, glance, made = reconstruction.reconstruct(
        exact_denoiser(SCHEDULE),
        lambda denoise, x, times, keys: samplers.ddim(denoise, x, times, SCHEDULE, keys),
        x_0,
        keys,
        times,
        level=0,
        schedule=SCHEDULE,
    )
    assert np.std(x_t) == pytest.approx(1, rel=0.02)
    assert np.std(glance) < 0.1 * STD and np.mean(glance) == pytest.approx(MEAN, rel=0.02)
    assert np.std(made) == pytest.approx(STD, rel=0.03)
    assert np.mean((made - x_0) ** 2) == pytest.approx(2 * STD**2, rel=0.05)  # another sample


def test_from_little_noise_all_three_answers_are_near_x_0_and_the_untouched_one_the_farthest():
    x_0, keys = gaussian(64), samplers.item_keys(0, np.arange(64))
    times = time_grids.uniform(SCHEDULE, 20, start=0.3)
    answers = reconstruction.reconstruct(
        exact_denoiser(SCHEDULE),
        lambda denoise, x, times, keys: samplers.ddim(denoise, x, times, SCHEDULE, keys),
        x_0,
        keys,
        times,
        level=0,
        schedule=SCHEDULE,
    )
    untouched, glance, made = (float(np.mean((x - x_0) ** 2)) for x in answers)
    alpha, sigma = float(SCHEDULE.alpha(0.3)), float(SCHEDULE.sigma(0.3))
    assert glance == pytest.approx(STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2), rel=0.03)
    assert glance < made < untouched
