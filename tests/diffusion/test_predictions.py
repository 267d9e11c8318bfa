"""Prediction kinds: each is a linear form of (x_0, eps)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion.predictions import (
    PREDICTIONS,
    blend,
    network_input,
    target,
    to_x0_eps,
)
from specdiff_jax.diffusion.schedules import expand, q_sample
from tests.helpers.gaussian import MAKERS


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("schedule", MAKERS)
def test_to_x0_eps_inverts_target(kind, schedule):
    schedule = MAKERS[schedule]()
    x_0, eps = jax.random.normal(jax.random.key(0), (2, 9, 4, 3))
    t = jnp.linspace(0.05, 0.95, 9)
    x_t = q_sample(schedule, x_0, t, eps)
    alpha, sigma = schedule.alpha(expand(t, x_0)), schedule.sigma(expand(t, x_0))
    output = target(kind, x_0, eps, alpha, sigma)
    implied_x_0, implied_eps = to_x0_eps(kind, output, x_t, alpha, sigma)
    # Dividing by a small alpha or sigma magnifies float32 rounding: compare in units of it.
    np.testing.assert_allclose(implied_x_0 * alpha, x_0 * alpha, atol=3e-6)
    np.testing.assert_allclose(implied_eps * sigma, eps * sigma, atol=3e-6)


def test_blend_of_independent_errors_has_their_combined_precision():
    """Inverse-variance weighting, by simulation: 1 / error = 1 / variance + alpha^2 / sigma^2."""
    x_0, eps, mistake = jax.random.normal(jax.random.key(3), (3, 400_000))
    variance = 0.3
    for alpha, sigma in ((0.95, 0.31), (0.6, 0.8)):
        output = x_0 + np.sqrt(variance) * mistake
        blended = blend(output, alpha * x_0 + sigma * eps, alpha, sigma, variance)
        expected = 1 / (1 / variance + alpha**2 / sigma**2)
        assert float(jnp.mean((blended - x_0) ** 2)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 100.0])
def test_edm_input_and_target_have_unit_variance_at_any_noise(sigma):
    """The aim of the preconditioning (Karras et al. 2022, appendix B.6), by simulation."""
    x_0, eps = jax.random.normal(jax.random.key(4), (2, 300_000))
    alpha, sigma = jnp.float32(1.0), jnp.float32(sigma)
    x = network_input("edm", x_0 + sigma * eps, alpha, sigma)
    assert float(x.std()) == pytest.approx(1, abs=0.01)
    assert float(target("edm", x_0, eps, alpha, sigma).std()) == pytest.approx(1, abs=0.01)


def test_edm_prediction_has_c_skip_and_c_out_of_karras_et_al():
    x_t, output = jax.random.normal(jax.random.key(5), (2, 9))
    sigma, data = 3.0, 1.0
    c_skip = data**2 / (sigma**2 + data**2)
    c_out = sigma * data / np.sqrt(sigma**2 + data**2)
    x_0, _ = to_x0_eps("edm", output, x_t, jnp.float32(1.0), jnp.float32(sigma))
    np.testing.assert_allclose(x_0, c_skip * x_t + c_out * output, atol=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_to_x0_eps_of_any_output_gives_x_t(kind):
    """alpha x_0 + sigma eps = x_t, for any output of the network."""
    x_t, output = jax.random.normal(jax.random.key(1), (2, 5, 3))
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    x_0, eps = to_x0_eps(kind, output, x_t, alpha, sigma)
    np.testing.assert_allclose(alpha * x_0 + sigma * eps, x_t, atol=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_to_x0_eps_is_finite_at_the_ends_of_a_schedule(kind):
    x_t, output = jax.random.normal(jax.random.key(2), (2, 5, 3))
    for alpha, sigma in ((1.0, 0.0), (0.0, 1.0)):
        pair = to_x0_eps(kind, output, x_t, jnp.float32(alpha), jnp.float32(sigma))
        assert all(bool(jnp.isfinite(part).all()) for part in pair)
