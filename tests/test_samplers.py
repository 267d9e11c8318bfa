"""Samplers, on the exact denoiser of a Gaussian, must give that Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_schedules import MAKERS

from specdiff_jax.diffusion import samplers

MEAN, STD = 1.5, 0.5


def exact_denoiser(schedule):
    """The posterior mean of x_0 ~ N(MEAN, STD^2), scalar by scalar."""

    def denoise(x_t, t):
        t = t.reshape(-1, *[1] * (x_t.ndim - 1))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x_0 = MEAN + gain * (x_t - alpha * MEAN)
        return x_0, (x_t - alpha * x_0) / sigma

    return denoise


def draw(name, schedule, steps, items=64, **options):
    keys = samplers.item_keys(0, range(items))
    x_T = samplers.item_noise(keys, 0, (1000,))
    times = samplers.uniform_grid(schedule, steps)
    sample = jax.jit(
        lambda x, k: samplers.SAMPLERS[name](
            exact_denoiser(schedule), x, times, schedule, k, **options
        )
    )
    return np.asarray(sample(x_T, keys))


@pytest.mark.parametrize("schedule", ["ddpm_linear", "cosine", "shifted"])
@pytest.mark.parametrize(("name", "options"), [("ddim", {}), ("ddim", {"eta": 0.5}), ("ddpm", {})])
def test_mean_and_std_of_the_gaussian(name, options, schedule):
    x_0 = draw(name, MAKERS[schedule](), 500, **options)
    assert x_0.mean() == pytest.approx(MEAN, abs=0.02)
    assert x_0.std() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("schedule", ["cosine", "ddpm_linear"])
def test_ddim_is_of_first_order(schedule):
    """Halving the step halves the error of the standard deviation."""
    errors = [abs(draw("ddim", MAKERS[schedule](), s).std() - STD) for s in (25, 50, 100)]
    exact = abs(draw("ddim", MAKERS[schedule](), 1000).std() - STD)  # the draw's own deviation
    first, second, third = (abs(error - exact) for error in errors)
    assert 1.5 < first / second < 2.6 and 1.4 < second / third < 3.0


def test_ddim_is_deterministic_and_ddpm_is_not():
    schedule, times = MAKERS["cosine"](), None
    times = samplers.uniform_grid(schedule, 20)
    x_T = jnp.ones((1, 100))
    for name, same in (("ddim", True), ("ddpm", False)):
        first, second = (
            samplers.SAMPLERS[name](
                exact_denoiser(schedule), x_T, times, schedule, samplers.item_keys(seed, [0])
            )
            for seed in (0, 1)
        )
        assert bool(jnp.array_equal(first, second)) == same


def test_an_ancestral_step_has_the_posterior_of_ho_et_al():
    """One step t -> s given a known x_0: mean and variance of eq. 6 and 7."""
    schedule = MAKERS["ddpm_linear"]()
    t, s, x_0, x_t = 0.6, 0.4, 0.7, -0.2
    alpha_bar = lambda u: float(schedule.alpha(jnp.float32(u))) ** 2
    ratio = alpha_bar(t) / alpha_bar(s)
    beta = 1 - ratio
    mean = (np.sqrt(alpha_bar(s)) * beta * x_0 + np.sqrt(ratio) * (1 - alpha_bar(s)) * x_t) / (
        1 - alpha_bar(t)
    )
    variance = (1 - alpha_bar(s)) / (1 - alpha_bar(t)) * beta

    def denoise(x, time):
        alpha, sigma = schedule.alpha(time[0]), schedule.sigma(time[0])
        return jnp.full_like(x, x_0), (x - alpha * x_0) / sigma

    keys = samplers.item_keys(3, range(200))
    times = jnp.array([t, s])
    x_s = samplers.ddpm(denoise, jnp.full((200, 1000), x_t), times, schedule, keys)
    assert float(x_s.mean()) == pytest.approx(mean, abs=0.005)
    assert float(x_s.var()) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_item_k_does_not_depend_on_its_batch(name):
    schedule = MAKERS["cosine"]()
    together = draw(name, schedule, 10, items=5)
    times = samplers.uniform_grid(schedule, 10)
    for k in range(5):
        keys = samplers.item_keys(0, [k])
        x_T = samplers.item_noise(keys, 0, (1000,))
        alone = samplers.SAMPLERS[name](exact_denoiser(schedule), x_T, times, schedule, keys)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-5)


def test_grids_end_at_data_and_bad_ones_are_refused():
    ddpm, cosine = MAKERS["ddpm_linear"](), MAKERS["cosine"]()
    grid = np.asarray(samplers.uniform_grid(ddpm, 30))
    assert grid[0] == 1 and grid[-1] == 0 and (np.diff(grid) < 0).all()
    np.testing.assert_allclose(grid * 1000, np.rint(grid * 1000), atol=1e-3)
    assert samplers.uniform_grid(cosine, 1).shape == (2,)
    for schedule, steps in ((ddpm, 0), (ddpm, 1001)):
        with pytest.raises(ValueError, match="steps"):
            samplers.uniform_grid(schedule, steps)
