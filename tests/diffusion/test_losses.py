"""Losses and linear denoisers against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import linear_denoisers, losses, objectives, schedules
from specdiff_jax.diffusion.predictions import PREDICTIONS, target
from specdiff_jax.diffusion.schedules import expand
from tests.helpers.gaussian import MAKERS, MEAN, STD, exact_denoiser


def objective(prediction, times, **more):
    return objectives.Objective(prediction, objectives.TIMESTEP_SAMPLING[times], **more)


def gaussian_data(count, shape=(64,)):
    return MEAN + STD * jax.random.normal(jax.random.key(7), (count, *shape))


def analytic_x0_error(schedule, t):
    alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


@pytest.mark.parametrize("name", ["cosine", "ddpm_linear"])
def test_x0_error_of_the_exact_denoiser_is_the_posterior_variance_at_each_level(name):
    schedule, levels = MAKERS[name](), jnp.array([0.1, 0.4, 0.7, 0.95])
    error = lambda x_0: losses.x0_error_by_level(
        exact_denoiser(schedule), x_0, levels, schedule, jax.random.key(0)
    )
    errors = jax.jit(error)(gaussian_data(3000))
    np.testing.assert_allclose(errors, analytic_x0_error(schedule, levels), rtol=0.01)


@pytest.mark.parametrize("times", ["uniform", "stratified", "discrete"])
def test_loss_of_the_exact_denoiser_is_the_mean_posterior_variance(times):
    schedule = MAKERS["ddpm_linear"]()
    exact = lambda x_t, t: exact_denoiser(schedule)(x_t, t)[0]
    loss_of = lambda x_0: losses.diffusion_loss(
        exact, x_0, jax.random.key(1), schedule, objective("x0", times)
    )
    loss, extra = jax.jit(loss_of)(gaussian_data(20_000, (8,)))
    expected = analytic_x0_error(schedule, jnp.arange(1, 1001) / 1000).mean()
    assert float(loss) == pytest.approx(expected, rel=0.02)
    assert float(extra["x0_error"]) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_loss_of_a_network_that_outputs_the_target_is_zero(kind):
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(16)

    def output_target(x_t, t):
        alpha, sigma = schedule.alpha(expand(t, x_0)), schedule.sigma(expand(t, x_0))
        eps = (x_t - alpha * x_0) / jnp.maximum(sigma, 1e-6)
        return target(kind, x_0, eps, alpha, sigma)

    loss_of = lambda x_0: losses.diffusion_loss(
        output_target, x_0, jax.random.key(2), schedule, objective(kind, "stratified")
    )
    loss, _ = jax.jit(loss_of)(x_0)
    assert float(loss) < 1e-6


@pytest.mark.parametrize(
    ("kind", "weight"), [("eps", "snr"), ("v", "v"), ("velocity", "velocity"), ("edm", "edm")]
)
def test_weighted_x0_error_equals_the_loss_of_another_prediction(kind, weight):
    """x-prediction with v-loss is v-prediction's loss, and so on: sigma above the clamp."""
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(64)
    times = lambda key, batch, schedule: jax.random.uniform(key, (batch,), minval=0.1, maxval=0.95)

    def make_model(prediction):
        def model(x_t, t):
            alpha, sigma = schedule.alpha(expand(t, x_t)), schedule.sigma(expand(t, x_t))
            x_0 = 0.7 * x_t  # any estimate
            return target(prediction, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)

        return model

    key = jax.random.key(5)
    own = objectives.Objective(kind, times)
    weighted = objectives.Objective("x0", times, objectives.LOSS_WEIGHTING[weight])
    expected, actual = (
        jax.jit(
            lambda x_0, p=p, o=o: losses.diffusion_loss(make_model(p), x_0, key, schedule, o)[0]
        )(x_0)
        for p, o in ((kind, own), ("x0", weighted))
    )
    assert float(actual) == pytest.approx(float(expected), rel=1e-4)


def test_loss_weighting_equals_the_papers():
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    snr = (0.8 / 0.6) ** 2
    assert float(objectives.min_snr(alpha, sigma, 1.5)) == pytest.approx(1.5)
    assert float(objectives.min_snr(alpha, sigma, 5.0)) == pytest.approx(snr)
    by_paper = snr / (1 + np.exp(np.log(snr) - 2.0))  # SNR * sigmoid(bias - log_snr)
    assert float(objectives.sigmoid(alpha, sigma, 2.0)) == pytest.approx(by_paper, rel=1e-5)


def test_huber_is_square_near_zero_linear_far_and_smooth_between():
    delta = 0.7
    value, slope = jax.vmap(jax.value_and_grad(lambda e: objectives.huber(e, delta)))(
        jnp.array([0.3, delta - 1e-4, delta + 1e-4, 5.0])
    )
    np.testing.assert_allclose(value[0], 0.09, rtol=1e-5)
    np.testing.assert_allclose(slope[1], slope[2], rtol=1e-3)
    np.testing.assert_allclose(slope[3], 2 * delta, rtol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "edm"])
def test_log_normal_times_have_the_noise_of_karras_et_al(name):
    schedule = {**MAKERS, "edm": schedules.edm}[name]()
    t = objectives.log_normal_times(jax.random.key(6), 20_000, schedule)
    log_sigma = -np.asarray(schedule.log_snr(t)) / 2
    assert log_sigma.mean() == pytest.approx(-0.5, abs=0.03)
    assert log_sigma.std() == pytest.approx(1.2, abs=0.03)


def test_logit_normal_times_have_a_normal_logit():
    t = objectives.logit_normal_times(jax.random.key(7), 20_000, None, mean=0.4, std=0.6)
    logit = np.log(np.asarray(t) / (1 - np.asarray(t)))
    assert logit.mean() == pytest.approx(0.4, abs=0.02)
    assert logit.std() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("name", ["cosine", "ddpm_linear", "edm"])
def test_variational_bound_of_the_exact_denoiser_is_the_entropy_of_its_gaussian(name):
    """-log p of x_0 ~ N(MEAN, STD^2) in nats a dimension: the bound is tight for the optimum."""
    schedule = {**MAKERS, "edm": schedules.edm}[name]()
    bound_of = lambda x_0: losses.variational_bound(
        exact_denoiser(schedule), x_0, schedule, jax.random.key(8), points=256
    )
    bound = jax.jit(bound_of)(gaussian_data(400))
    entropy = 0.5 * np.log(2 * np.pi * np.e * STD**2)
    assert float(bound) == pytest.approx(entropy, abs=0.02)


def test_variational_bound_of_a_worse_denoiser_is_higher():
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(100)

    def biased(x_t, t):
        x_0, _ = exact_denoiser(schedule)(x_t, t)
        x_0 = x_0 + 0.2
        return x_0, (x_t - schedule.alpha(expand(t, x_t)) * x_0) / schedule.sigma(expand(t, x_t))

    exact, worse = (
        jax.jit(lambda x_0, d=d: losses.variational_bound(d, x_0, schedule, jax.random.key(9)))(x_0)
        for d in (exact_denoiser(schedule), biased)
    )
    assert float(worse) > float(exact) + 0.1


def test_perceptual_loss_is_weighted_by_the_signal_s_power():
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(8)
    distance = lambda denoised, x_0: jnp.ones(len(x_0))
    for t, weight in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        times = lambda key, batch, schedule, t=t: jnp.full(batch, t)
        without, with_perceptual = (
            losses.diffusion_loss(
                lambda x_t, t: x_t,
                x_0,
                jax.random.key(0),
                schedule,
                objectives.Objective("x0", times, perceptual=perceptual),
            )[0]
            for perceptual in (None, distance)
        )
        assert float(with_perceptual - without) == pytest.approx(weight, abs=1e-5)


def test_stratified_times_fill_every_cell():
    t = objectives.stratified_times(jax.random.key(3), 64, None)
    assert (np.bincount((np.asarray(t) * 64).astype(int), minlength=64) == 1).all()


def test_discrete_times_are_all_times_of_the_schedule():
    t = objectives.discrete_times(jax.random.key(4), 50_000, MAKERS["ddpm_linear"]()) * 1000
    assert set(np.rint(np.asarray(t)).astype(int)) == set(range(1, 1001))
    with pytest.raises(ValueError, match="discrete"):
        objectives.discrete_times(jax.random.key(4), 2, MAKERS["cosine"]())


@pytest.mark.parametrize("name", linear_denoisers.GROUPINGS)
def test_linear_denoiser_error_equals_its_simulation(name):
    """The closed form against applying the filter to noisy held-out data."""
    rng, patch = np.random.default_rng(0), (4, 2)
    mixing = rng.normal(size=(8, 8)) / 2
    make = lambda count: (rng.normal(size=(count, 6, 8)) @ mixing).transpose(0, 2, 1)[..., None] + 1
    train, held_out = make(400), make(100)
    group = linear_denoisers.GROUPINGS[name]
    fitted = linear_denoisers.fit([train[:150], train[150:]], patch)
    moments = linear_denoisers.measure_moments(fitted, [held_out], patch)[name]
    mean, vectors, values = fitted[name]
    alpha, sigma = 0.8, 0.6
    closed = linear_denoisers.x0_error(values, moments, alpha, sigma)
    x_0 = group(held_out, patch)  # [G, n, d]
    errors = []
    for _ in range(60):
        x_t = alpha * x_0 + sigma * rng.normal(size=x_0.shape)
        gain = (alpha * values / (alpha**2 * values + sigma**2))[:, None]
        centered = (((x_t - alpha * mean[:, None]) @ vectors) * gain) @ vectors.transpose(0, 2, 1)
        errors.append(np.mean((centered + mean[:, None] - x_0) ** 2))
    assert closed == pytest.approx(np.mean(errors), rel=0.02)


def test_linear_denoiser_with_more_covariance_is_not_worse_on_its_own_data():
    rng = np.random.default_rng(1)
    x_0 = np.cumsum(rng.normal(size=(300, 8, 6, 1)), axis=1)
    fitted = linear_denoisers.fit([x_0], (8, 2))
    moments = linear_denoisers.measure_moments(fitted, [x_0], (8, 2))
    error = {
        name: linear_denoisers.x0_error(fitted[name][2], moments[name], 0.7, 0.7) for name in fitted
    }
    assert error["linear_patch"] <= error["linear_frame"] < error["band_wiener"]
