"""Guidance against the closed form: denoisers of Gaussians, whose mixtures are Gaussian again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import guidance, samplers, schedules, time_grids

SHAPE = (4, 3, 1)
SCHEDULE = schedules.cosine()
SPREAD = 0.5  # of the data around the mean that a condition gives


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
def test_guide_of_weight_one_is_conditional_and_of_zero_unconditional_bit_for_bit(weights, mean):
    x_t, t = inputs()
    guided = wrapped((-1.0, 2.0), weights)(x_t, t)
    expected = denoise(x_t, t, jnp.full(5, mean))
    jax.tree.map(np.testing.assert_array_equal, guided, tuple(expected))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("strengths", [[], [1.0], [1.0, -0.5, 2.0]])
def test_cfg_weights_equal_the_formula(strengths, scale):
    """x_0 = x_0(none) + w sum_k s_k (x_0(c_k) - x_0(none)); plain weights are those at w = 1."""
    none, *each = np.random.default_rng(0).normal(size=1 + len(strengths))
    weights, plain = guidance.cfg_weights(strengths, scale)
    for w, row in ((scale, weights), (1.0, plain)):
        expected = none + w * sum(s * (x - none) for s, x in zip(strengths, each, strict=True))
        np.testing.assert_allclose(np.dot(row, [none, *each]), expected, rtol=1e-12)
        np.testing.assert_allclose(sum(row), 1.0, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.5, 2.0, 5.0])
def test_guide_of_gaussians_samples_the_gaussian_of_the_extrapolated_mean(weight):
    """With equal spreads a mixture of scores is the score at the mixture of the means."""
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


def test_guide_of_three_conditions_is_the_sum_of_its_terms():
    x_t, t = inputs()
    guided, _ = wrapped((0.0, 1.0, 3.0), (1 - 2.0 + 0.5, 2.0, -0.5))(x_t, t)
    expected, _ = denoise(x_t, t, jnp.full(5, 2.0 * 1.0 - 0.5 * 3.0))
    np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_guide_takes_weights_item_by_item():
    x_t, t = inputs()
    weights = jnp.stack([jnp.linspace(1.0, 0.0, 5), jnp.linspace(0.0, 1.0, 5)])
    guided, _ = guidance.guide(denoise, SCHEDULE, rows(-1.0, 2.0), weights, weights)(x_t, t)
    expected, _ = denoise(x_t, t, jnp.linspace(-1.0, 2.0, 5))
    np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_guide_outside_the_interval_is_plain():
    x_t, _ = inputs()
    t = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9])
    guided, _ = wrapped((0.0, 1.0), (-2.0, 3.0), (0.0, 1.0), interval=(0.3, 0.7))(x_t, t)
    expected, _ = denoise(x_t, t, jnp.array([1.0, 1.0, 3.0, 3.0, 1.0]))
    np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_guide_rescale_moves_the_deviation_by_phi():
    x_t, t = inputs()
    std = lambda x: np.std(np.asarray(x), axis=(1, 2, 3))
    scale = jnp.linspace(1.0, 3.0, 12).reshape(SHAPE)[None]
    tilted = lambda x_t, t, mean: (scale * schedules.expand(mean, x_t) + x_t, x_t)
    rescaled = lambda phi: guidance.guide(
        tilted, SCHEDULE, rows(0.0, 1.0), rows(-3.0, 4.0), rows(0.0, 1.0), rescale=phi
    )(x_t, t)[0]
    plain, free = std(tilted(x_t, t, jnp.ones(5))[0]), std(rescaled(0.0))
    np.testing.assert_allclose(std(rescaled(1.0)), plain, rtol=1e-5)
    np.testing.assert_allclose(std(rescaled(0.5)), (plain + free) / 2, rtol=1e-5)


def test_autoguide_extrapolates_from_the_worse_past_the_better():
    x_t, t = inputs()
    worse = lambda x_t, t: denoise(x_t, t, jnp.zeros(5))
    better = lambda x_t, t: denoise(x_t, t, jnp.ones(5))
    guided, _ = guidance.autoguide(better, worse, 2.5)(x_t, t)
    np.testing.assert_allclose(guided, denoise(x_t, t, jnp.full(5, 2.5))[0], atol=1e-5)
    same = guidance.autoguide(better, worse, 1.0)(x_t, t)
    jax.tree.map(np.testing.assert_array_equal, same, tuple(better(x_t, t)))
