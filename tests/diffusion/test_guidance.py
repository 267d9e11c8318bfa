"""Guidance against the closed form: denoisers of Gaussians, whose mixtures are Gaussians again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import guidance, samplers, schedules, time_grids

SHAPE = (4, 3, 1)
SCHEDULE = schedules.cosine()
SPREAD = 0.5  # of the data around the mean that a condition names


def denoise(x_t, t, mean):
    """The exact denoiser of N(mean, SPREAD^2), the mean of each item its condition.  # mean [B]"""
    alpha, sigma = schedules.alpha_sigma(SCHEDULE, t, x_t)
    mean = schedules.expand(mean, x_t)
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    x_0 = mean + gain * (x_t - alpha * mean)
    return x_0, (x_t - alpha * x_0) / jnp.maximum(sigma, 1e-8)


def inputs(batch=5, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return jax.random.normal(keys[0], (batch, *SHAPE)), jax.random.uniform(keys[1], (batch,))


def rows(*values, batch=5):
    return jnp.broadcast_to(jnp.array(values, jnp.float32)[:, None], (len(values), batch))


def wrapped(means, weights, plain=None, **fields):
    plain = weights if plain is None else plain
    return guidance.guide(denoise, SCHEDULE, rows(*means), rows(*weights), rows(*plain), **fields)


@pytest.mark.parametrize(("weights", "mean"), [((0.0, 1.0), 2.0), ((1.0, 0.0), -1.0)])
def test_weight_one_is_the_conditional_and_zero_the_unconditional_bit_for_bit(weights, mean):
    x_t, t = inputs()
    found = wrapped((-1.0, 2.0), weights)(x_t, t)
    wanted = denoise(x_t, t, jnp.full(5, mean))
    jax.tree.map(np.testing.assert_array_equal, found, tuple(wanted))


@pytest.mark.parametrize("weight", [0.5, 2.0, 5.0])
def test_a_guided_gaussian_is_the_gaussian_of_the_exaggerated_mean(weight):
    """All spreads alike, the mixture of scores is that of the mixture of means: sampled so."""
    count = 2000
    guided = guidance.guide(
        denoise,
        SCHEDULE,
        rows(0.0, 1.0, batch=count),
        rows(1 - weight, weight, batch=count),
        rows(0.0, 1.0, batch=count),
    )
    keys = samplers.item_keys(0, np.arange(count))
    times = time_grids.log_snr(SCHEDULE, 60)
    x_T = samplers.item_noise(keys, 0, SHAPE)
    x_0 = jax.jit(lambda x: samplers.dpmpp_2m(guided, x, times, SCHEDULE, keys))(x_T)
    error = SPREAD / np.sqrt(x_0.size)
    np.testing.assert_allclose(x_0.mean(), weight, atol=5 * error + 0.01)
    np.testing.assert_allclose(x_0.std(), SPREAD, rtol=0.02)


def test_the_algebra_of_three_is_the_sum_of_its_terms():
    x_t, t = inputs()
    found, _ = wrapped((0.0, 1.0, 3.0), (1 - 2.0 + 0.5, 2.0, -0.5))(x_t, t)
    wanted, _ = denoise(x_t, t, jnp.full(5, 2.0 * 1.0 - 0.5 * 3.0))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_each_item_has_weights_of_its_own():
    x_t, t = inputs()
    weights = jnp.stack([jnp.linspace(1.0, 0.0, 5), jnp.linspace(0.0, 1.0, 5)])
    found, _ = guidance.guide(denoise, SCHEDULE, rows(-1.0, 2.0), weights, weights)(x_t, t)
    wanted, _ = denoise(x_t, t, jnp.linspace(-1.0, 2.0, 5))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_outside_the_interval_nothing_is_guided():
    x_t, _ = inputs()
    t = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9])
    found, _ = wrapped((0.0, 1.0), (-2.0, 3.0), (0.0, 1.0), interval=(0.3, 0.7))(x_t, t)
    wanted, _ = denoise(x_t, t, jnp.array([1.0, 1.0, 3.0, 3.0, 1.0]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_rescale_brings_back_the_deviation_by_as_much_as_it_says():
    x_t, t = inputs()
    std = lambda x: np.std(np.asarray(x), axis=(1, 2, 3))
    scale = jnp.linspace(1.0, 3.0, 12).reshape(SHAPE)[None]
    tilted = lambda x_t, t, mean: (scale * schedules.expand(mean, x_t) + x_t, x_t)
    of = lambda phi: guidance.guide(
        tilted, SCHEDULE, rows(0.0, 1.0), rows(-3.0, 4.0), rows(0.0, 1.0), rescale=phi
    )(x_t, t)[0]
    wanted, free = std(tilted(x_t, t, jnp.ones(5))[0]), std(of(0.0))
    np.testing.assert_allclose(std(of(1.0)), wanted, rtol=1e-5)
    np.testing.assert_allclose(std(of(0.5)), (wanted + free) / 2, rtol=1e-5)


def test_autoguidance_goes_on_from_the_worse_past_the_better():
    x_t, t = inputs()
    worse = lambda x_t, t: denoise(x_t, t, jnp.zeros(5))
    better = lambda x_t, t: denoise(x_t, t, jnp.ones(5))
    found, _ = guidance.autoguide(better, worse, 2.5)(x_t, t)
    np.testing.assert_allclose(found, denoise(x_t, t, jnp.full(5, 2.5))[0], atol=1e-5)
    same = guidance.autoguide(better, worse, 1.0)(x_t, t)
    jax.tree.map(np.testing.assert_array_equal, same, tuple(better(x_t, t)))
