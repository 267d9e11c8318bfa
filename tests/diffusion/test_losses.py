"""The loss of a known denoiser is its analytic loss; so are the linear baselines."""

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
def test_the_oracle_s_x0_error_is_the_posterior_variance_at_each_level(name):
    schedule, levels = MAKERS[name](), jnp.array([0.1, 0.4, 0.7, 0.95])
    error = lambda x_0: losses.x0_error_by_level(
        exact_denoiser(schedule), x_0, levels, schedule, jax.random.key(0)
    )
    found = jax.jit(error)(gaussian_data(3000))
    np.testing.assert_allclose(found, analytic_x0_error(schedule, levels), rtol=0.01)


@pytest.mark.parametrize("times", ["uniform", "stratified", "discrete"])
def test_the_oracle_s_loss_is_the_mean_of_the_posterior_variance(times):
    schedule = MAKERS["ddpm_linear"]()
    oracle = lambda x_t, t: exact_denoiser(schedule)(x_t, t)[0]
    ask = lambda x_0: losses.diffusion_loss(
        oracle, x_0, jax.random.key(1), schedule, objective("x0", times)
    )
    loss, extra = jax.jit(ask)(gaussian_data(20_000, (8,)))
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

    ask = lambda x_0: losses.diffusion_loss(
        all_knowing, x_0, jax.random.key(2), schedule, objective(kind, "stratified")
    )
    loss, _ = jax.jit(ask)(x_0)
    assert float(loss) < 1e-6


@pytest.mark.parametrize(
    ("kind", "weight"), [("eps", "snr"), ("v", "v"), ("velocity", "velocity"), ("edm", "edm")]
)
def test_a_weighted_x0_error_is_the_loss_of_another_prediction(kind, weight):
    """x-prediction with v-loss is v-prediction's loss, and so on: sigma above the clamp."""
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(64)
    times = lambda key, batch, schedule: jax.random.uniform(key, (batch,), minval=0.1, maxval=0.95)
    guess = lambda x_t, t: (0.7 * x_t, x_t)  # some (x_0, eps) pair that explains nothing yet

    def says(prediction):
        def model(x_t, t):
            alpha, sigma = schedule.alpha(expand(t, x_t)), schedule.sigma(expand(t, x_t))
            x_0 = guess(x_t, t)[0]
            return target(prediction, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)

        return model

    key = jax.random.key(5)
    own = objectives.Objective(kind, times)
    weighted = objectives.Objective("x0", times, objectives.LOSS_WEIGHTING[weight])
    expected, found = (
        jax.jit(lambda x_0, p=p, o=o: losses.diffusion_loss(says(p), x_0, key, schedule, o)[0])(x_0)
        for p, o in ((kind, own), ("x0", weighted))
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_weights_are_the_papers():
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    snr = (0.8 / 0.6) ** 2
    assert float(objectives.min_snr(alpha, sigma, 1.5)) == pytest.approx(1.5)
    assert float(objectives.min_snr(alpha, sigma, 5.0)) == pytest.approx(snr)
    by_paper = snr / (1 + np.exp(np.log(snr) - 2.0))  # SNR * sigmoid(bias - log_snr)
    assert float(objectives.sigmoid(alpha, sigma, 2.0)) == pytest.approx(by_paper, rel=1e-5)


def test_huber_is_square_near_and_straight_far_and_smooth_between():
    delta = 0.7
    value, slope = jax.vmap(jax.value_and_grad(lambda e: objectives.huber(e, delta)))(
        jnp.array([0.3, delta - 1e-4, delta + 1e-4, 5.0])
    )
    np.testing.assert_allclose(value[0], 0.09, rtol=1e-5)
    np.testing.assert_allclose(slope[1], slope[2], rtol=1e-3)
    np.testing.assert_allclose(slope[3], 2 * delta, rtol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "edm"])
def test_log_normal_times_have_karras_s_noise(name):
    schedule = {**MAKERS, "edm": schedules.edm}[name]()
    t = objectives.log_normal_times(jax.random.key(6), 20_000, schedule)
    log_sigma = -np.asarray(schedule.log_snr(t)) / 2
    assert log_sigma.mean() == pytest.approx(-0.5, abs=0.03)
    assert log_sigma.std() == pytest.approx(1.2, abs=0.03)


def test_logit_normal_times_are_logistic_of_a_normal():
    t = objectives.logit_normal_times(jax.random.key(7), 20_000, None, mean=0.4, std=0.6)
    logit = np.log(np.asarray(t) / (1 - np.asarray(t)))
    assert logit.mean() == pytest.approx(0.4, abs=0.02)
    assert logit.std() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("name", ["cosine", "ddpm_linear", "edm"])
def test_the_bound_of_the_exact_denoiser_is_the_entropy_of_its_gaussian(name):
    """-log p of x_0 ~ N(MEAN, STD^2) in nats a dimension: the bound is tight for the optimum."""
    schedule = {**MAKERS, "edm": schedules.edm}[name]()
    ask = lambda x_0: losses.variational_bound(
        exact_denoiser(schedule), x_0, schedule, jax.random.key(8), points=256
    )
    bound = jax.jit(ask)(gaussian_data(400))
    entropy = 0.5 * np.log(2 * np.pi * np.e * STD**2)
    assert float(bound) == pytest.approx(entropy, abs=0.02)


def test_the_bound_of_a_worse_denoiser_is_higher():
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(100)

    def blurred(x_t, t):
        x_0, _ = exact_denoiser(schedule)(x_t, t)
        x_0 = x_0 + 0.2
        return x_0, (x_t - schedule.alpha(expand(t, x_t)) * x_0) / schedule.sigma(expand(t, x_t))

    exact, worse = (
        jax.jit(lambda x_0, d=d: losses.variational_bound(d, x_0, schedule, jax.random.key(9)))(x_0)
        for d in (exact_denoiser(schedule), blurred)
    )
    assert float(worse) > float(exact) + 0.1


def test_the_perceptual_part_fades_with_the_noise():
    schedule, x_0 = MAKERS["cosine"](), gaussian_data(8)
    heard = lambda found, real: jnp.ones(len(real))
    for t, weight in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        times = lambda key, batch, schedule, t=t: jnp.full(batch, t)
        silent, loud = (
            losses.diffusion_loss(
                lambda x_t, t: x_t,
                x_0,
                jax.random.key(0),
                schedule,
                objectives.Objective("x0", times, perceptual=perceptual),
            )[0]
            for perceptual in (None, heard)
        )
        assert float(loud - silent) == pytest.approx(weight, abs=1e-5)


def test_stratified_times_fill_every_cell():
    t = objectives.stratified_times(jax.random.key(3), 64, None)
    assert (np.bincount((np.asarray(t) * 64).astype(int), minlength=64) == 1).all()


def test_discrete_times_are_the_schedule_s_own_and_all_of_them():
    t = objectives.discrete_times(jax.random.key(4), 50_000, MAKERS["ddpm_linear"]()) * 1000
    assert set(np.rint(np.asarray(t)).astype(int)) == set(range(1, 1001))
    with pytest.raises(ValueError, match="discrete"):
        objectives.discrete_times(jax.random.key(4), 2, MAKERS["cosine"]())


@pytest.mark.parametrize("name", linear_denoisers.GROUPINGS)
def test_linear_baselines_equal_their_own_simulation(name):
    """The closed form against drawing noise and applying the filter, on held-out data."""
    rng, patch = np.random.default_rng(0), (4, 2)
    mixing = rng.normal(size=(8, 8)) / 2
    make = lambda count: (rng.normal(size=(count, 6, 8)) @ mixing).transpose(0, 2, 1)[..., None] + 1
    train, held_out = make(400), make(100)
    cut = linear_denoisers.GROUPINGS[name]
    fitted = linear_denoisers.fit([train[:150], train[150:]], patch)
    moments = linear_denoisers.measure_moments(fitted, [held_out], patch)[name]
    mean, vectors, values = fitted[name]
    alpha, sigma = 0.8, 0.6
    closed = linear_denoisers.x0_error(values, moments, alpha, sigma)
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
    fitted = linear_denoisers.fit([x_0], (8, 2))
    moments = linear_denoisers.measure_moments(fitted, [x_0], (8, 2))
    error = {
        name: linear_denoisers.x0_error(fitted[name][2], moments[name], 0.7, 0.7) for name in fitted
    }
    assert error["linear_patch"] <= error["linear_frame"] < error["band_wiener"]
