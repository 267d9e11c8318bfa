"""The loss of a known denoiser is its analytic loss; so are the linear baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_samplers import MEAN, STD, exact_denoiser
from test_schedules import MAKERS

from specdiff_jax.diffusion import linear, losses
from specdiff_jax.diffusion.predictions import PREDICTIONS, target
from specdiff_jax.diffusion.schedules import expand


def gaussian_data(count, shape=(64,)):
    return MEAN + STD * jax.random.normal(jax.random.key(7), (count, *shape))


def analytic_x0_error(schedule, t):
    alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


@pytest.mark.parametrize("name", ["cosine", "ddpm_linear"])
def test_the_oracle_s_x0_error_is_the_posterior_variance_at_each_level(name):
    schedule, levels = MAKERS[name](), jnp.array([0.1, 0.4, 0.7, 0.95])
    found = losses.x0_error_by_level(
        exact_denoiser(schedule), gaussian_data(3000), levels, schedule, jax.random.key(0)
    )
    np.testing.assert_allclose(found, analytic_x0_error(schedule, levels), rtol=0.01)


@pytest.mark.parametrize("times", ["uniform", "stratified", "discrete"])
def test_the_oracle_s_loss_is_the_mean_of_the_posterior_variance(times):
    schedule = MAKERS["ddpm_linear"]()
    oracle = lambda x_t, t: exact_denoiser(schedule)(x_t, t)[0]
    loss, extra = losses.diffusion_loss(
        oracle, gaussian_data(20_000, (8,)), jax.random.key(1), schedule, "x0", times
    )
    expected = analytic_x0_error(schedule, jnp.arange(1, 1001) / 1000).mean()
    assert float(loss) == pytest.approx(expected, rel=0.02)
    assert float(extra["x0_error"]) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_network_that_says_the_target_has_no_loss(kind):
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(16)

    def all_knowing(x_t, t):
        alpha, sigma = schedule.alpha(expand(t, x_0)), schedule.sigma(expand(t, x_0))
        eps = (x_t - alpha * x_0) / jnp.maximum(sigma, 1e-6)
        return target(kind, x_0, eps, alpha, sigma)

    loss, _ = losses.diffusion_loss(
        all_knowing, x_0, jax.random.key(2), schedule, kind, "stratified"
    )
    assert float(loss) < 1e-6


def test_stratified_times_fill_every_cell():
    t = losses.stratified_times(jax.random.key(3), 64, None)
    assert (np.bincount((np.asarray(t) * 64).astype(int), minlength=64) == 1).all()


def test_discrete_times_are_the_schedule_s_own_and_all_of_them():
    t = losses.discrete_times(jax.random.key(4), 50_000, MAKERS["ddpm_linear"]()) * 1000
    assert set(np.rint(np.asarray(t)).astype(int)) == set(range(1, 1001))
    with pytest.raises(ValueError, match="discrete"):
        losses.discrete_times(jax.random.key(4), 2, MAKERS["cosine"]())


@pytest.mark.parametrize("name", linear.CUTS)
def test_linear_baselines_equal_their_own_simulation(name):
    """The closed form against drawing noise and applying the filter, on held-out data."""
    rng, patch = np.random.default_rng(0), (4, 2)
    mixing = rng.normal(size=(8, 8)) / 2
    make = lambda count: (rng.normal(size=(count, 6, 8)) @ mixing).transpose(0, 2, 1)[..., None] + 1
    train, held_out = make(400), make(100)
    cut = linear.CUTS[name]
    fitted = linear.fit([train[:150], train[150:]], patch)
    moments = linear.held_out_moments(fitted, [held_out], patch)[name]
    mean, vectors, values = fitted[name]
    alpha, sigma = 0.8, 0.6
    closed = linear.x0_error(values, moments, alpha, sigma)
    x_0 = cut(held_out, patch)  # [G, n, d]
    errors = []
    for _ in range(60):
        x_t = alpha * x_0 + sigma * rng.normal(size=x_0.shape)
        gain = (alpha * values / (alpha**2 * values + sigma**2))[:, None]
        found = (((x_t - alpha * mean[:, None]) @ vectors) * gain) @ vectors.transpose(0, 2, 1)
        errors.append(np.mean((found + mean[:, None] - x_0) ** 2))
    assert closed == pytest.approx(np.mean(errors), rel=0.02)


def test_more_covariance_is_never_worse_on_its_own_data():
    rng = np.random.default_rng(1)
    x_0 = np.cumsum(rng.normal(size=(300, 8, 6, 1)), axis=1)
    fitted = linear.fit([x_0], (8, 2))
    moments = linear.held_out_moments(fitted, [x_0], (8, 2))
    error = {name: linear.x0_error(fitted[name][2], moments[name], 0.7, 0.7) for name in fitted}
    assert error["linear_patch"] <= error["linear_frame"] < error["band_wiener"]
