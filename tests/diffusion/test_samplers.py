"""Samplers on the exact denoiser of a Gaussian return that Gaussian; time grids."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from specdiff_jax.diffusion import samplers, schedules, time_grids
from specdiff_jax.sampling import options
from tests.helpers.gaussian import MAKERS, MEAN, STD, exact_denoiser


def draw(name, schedule, steps, items=32, **options):
    keys = samplers.item_keys(0, range(items))
    x_T = samplers.item_noise(keys, 0, (1000,))
    times = time_grids.uniform(schedule, steps)
    sample = jax.jit(
        lambda x, k: samplers.SAMPLERS[name](
            exact_denoiser(schedule), x, times, schedule, k, **options
        )
    )
    return np.asarray(sample(x_T, keys))


STOCHASTIC = [
    ("ddim", {"eta": 0.5}),
    ("ddpm", {}),
    ("dpmpp_2m_sde", {}),
    ("heun", {"churn": 30.0}),
]
ODE = ["ddim", "euler", "heun", "dpmpp_2m", "unipc"]


@pytest.mark.parametrize("schedule", ["ddpm_linear", "cosine", "shifted"])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in ODE), *STOCHASTIC])
def test_sampler_returns_mean_and_std_of_the_gaussian(name, options, schedule):
    x_0 = draw(name, MAKERS[schedule](), 500, **options)
    assert x_0.mean() == pytest.approx(MEAN, abs=0.02)
    assert x_0.std() == pytest.approx(STD, abs=0.02)


def flow_map(schedule, x_T, t, s):
    """Return the probability flow of N(MEAN, STD^2) from x_T at t to s, in closed form."""
    alpha, sigma, alpha_s, sigma_s = (
        f(u) for u in (t, s) for f in (schedule.alpha, schedule.sigma)
    )
    shrink = jnp.sqrt((alpha_s**2 * STD**2 + sigma_s**2) / (alpha**2 * STD**2 + sigma**2))
    return alpha_s * MEAN + (x_T - alpha * MEAN) * shrink


@pytest.mark.parametrize("schedule", ["cosine", "rectified_flow", "edm"])
@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3)]
)
def test_sampler_error_falls_with_its_order(name, order, schedule):
    """Item by item against the exact flow: halving the step divides the error by 2^order."""
    schedule = {**MAKERS, "edm": schedules.edm}[schedule]()
    with jax.enable_x64(True):
        errors = []
        for steps in (64, 128):
            times = jnp.linspace(0.95, 0.05, steps + 1)

            @jax.jit
            def error(times):
                x_T = schedule.alpha(times[0]) * MEAN
                x_T += schedule.sigma(times[0]) * jnp.linspace(-2, 2, 9)[None]
                keys = samplers.item_keys(0, [0])
                x_s = samplers.SAMPLERS[name](exact_denoiser(schedule), x_T, times, schedule, keys)
                return jnp.abs(x_s - flow_map(schedule, x_T, times[0], times[-1])).max()

            errors.append(float(error(times)))
    assert 2 ** (order - 0.5) < errors[0] / errors[1] < 2 ** (order + 0.5)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in ODE), *STOCHASTIC])
def test_sampler_uses_its_keys_only_if_stochastic(name, options):
    schedule = MAKERS["cosine"]()
    times, x_T = time_grids.log_snr(schedule, 20), jnp.ones((1, 100))
    sample = jax.jit(
        lambda keys: samplers.SAMPLERS[name](
            exact_denoiser(schedule), x_T, times, schedule, keys, **options
        )
    )
    first, second = (sample(samplers.item_keys(seed, [0])) for seed in (0, 1))
    assert bool(jnp.array_equal(first, second)) == ((name, options) not in STOCHASTIC)


def test_ddpm_step_has_the_posterior_of_ho_et_al():
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
def test_sampler_item_does_not_depend_on_its_batch(name):
    schedule = MAKERS["cosine"]()
    together = draw(name, schedule, 10, items=5)
    times = time_grids.uniform(schedule, 10)
    sample = jax.jit(
        lambda x, k: samplers.SAMPLERS[name](exact_denoiser(schedule), x, times, schedule, k)
    )
    for k in range(5):
        keys = samplers.item_keys(0, [k])
        alone = sample(samplers.item_noise(keys, 0, (1000,)), keys)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-5)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_sampler_evaluates_the_network_nfe_times(name):
    schedule, evaluated = MAKERS["cosine"](), []

    def denoise(x_t, t):
        jax.debug.callback(lambda t: evaluated.append(float(t[0])), t)
        return exact_denoiser(schedule)(x_t, t)

    times = time_grids.log_snr(schedule, samplers.num_steps(name, 9))
    sample = jax.jit(lambda x, k: samplers.SAMPLERS[name](denoise, x, times, schedule, k))
    jax.block_until_ready(sample(jnp.ones((2, 3)), samplers.item_keys(0, [0, 1])))
    jax.effects_barrier()
    assert len(evaluated) == 9


def test_toy_sampler_needs_one_function_and_one_entry(monkeypatch):
    """It is chosen by sample.sampler and samples like DDIM, which it is in three lines."""

    def toy(denoise, x_T, times, schedule, keys):
        for t, s in itertools.pairwise(times):
            x_0, eps = denoise(x_T, samplers.batch_time(x_T, t))
            x_T = schedule.alpha(s) * x_0 + schedule.sigma(s) * eps
        return x_T

    monkeypatch.setitem(samplers.SAMPLERS, "toy", toy)
    config, schedule = base.get_config(), MAKERS["cosine"]()
    config.sample.update(sampler="toy", time_grid="log_snr", nfe=6)
    options.check(config, schedule)
    times, keys = options.make_time_grid(config, schedule), samplers.item_keys(0, range(3))
    assert len(times) == samplers.count_nfe("toy", 6) + 1
    x_T = samplers.item_noise(keys, 0, (50,))
    x_0 = options.make_sampler(config, schedule)(exact_denoiser(schedule), x_T, times, keys)
    expected = samplers.ddim(exact_denoiser(schedule), x_T, times, schedule, keys)
    np.testing.assert_allclose(x_0, expected, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("grid", time_grids.TIME_GRIDS)
@pytest.mark.parametrize("start", [1.0, 0.6])
def test_time_grid_falls_from_the_start_to_the_data(grid, name, start):
    schedule = MAKERS[name]()
    curve = {"levels": [0.2, 0.8], "errors": [0.1, 0.6]} if grid == "aligned" else {}
    for steps in (1, 2, 13):
        times = np.asarray(time_grids.TIME_GRIDS[grid](schedule, steps, start=start, **curve))
        assert times.shape == (steps + 1,) and (np.diff(times) < 0).all()
        pure_noise = float(schedule.log_snr(times[0])) == pytest.approx(-13, abs=0.2)
        assert times[-1] == 0 and (pure_noise or times[0] == pytest.approx(start, abs=1e-3))


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
@pytest.mark.parametrize("schedule", ["zero_terminal", "sigmoid", "cosine"])
def test_sampler_is_right_at_the_ends_of_a_schedule(name, grid, schedule):
    """The Gaussian is returned with pure noise at t = 1 and no noise at t = 0."""
    if (name, grid, schedule) == ("euler", "uniform", "sigmoid"):
        pytest.skip("Euler's rule in t cannot follow the vertical ends of this schedule")
    schedule = MAKERS[schedule]()
    times = time_grids.TIME_GRIDS[grid](schedule, samplers.num_steps(name, 150))
    keys = samplers.item_keys(0, range(64))
    x_T = schedule.sigma(times[0]) * samplers.item_noise(keys, 0, (1000,))
    sample = jax.jit(
        lambda x, k: samplers.SAMPLERS[name](exact_denoiser(schedule), x, times, schedule, k)
    )
    x_0 = np.asarray(sample(x_T, keys))
    assert x_0.mean() == pytest.approx(MEAN, abs=0.04)
    assert x_0.std() == pytest.approx(STD, abs=0.04)


def test_sampler_on_edm_leaves_no_noise():
    """A distribution narrower than EDM's smallest sigma comes out without the noise."""
    schedule = schedules.edm()

    def constant(x_t, t):
        return jnp.full_like(x_t, 0.25), (x_t - 0.25) / schedule.sigma(t)[:, None]

    for name in samplers.SAMPLERS:
        times, keys = time_grids.karras(schedule, 20), samplers.item_keys(0, [0])
        x_T = schedule.sigma(times[0]) * samplers.item_noise(keys, 0, (500,))
        sample = jax.jit(samplers.SAMPLERS[name], static_argnums=(0, 3))
        x_0 = sample(constant, x_T, times, schedule, keys)
        np.testing.assert_allclose(x_0, 0.25, atol=1e-4)


@pytest.mark.parametrize("sigma_min", [0.02, 0.2])
@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_time_grid_stays_above_the_least_noise_of_a_schedule(grid, sigma_min):
    """EDM's sigma_min may be above the last noise of other schedules: no step is empty.

    The last step, to the data, returns the posterior mean.
    """
    schedule = schedules.edm(sigma_min=sigma_min)
    times = time_grids.TIME_GRIDS[grid](schedule, 100)
    assert float(schedule.sigma(times[-2])) == pytest.approx(sigma_min, rel=1e-3)
    keys = samplers.item_keys(0, range(8))
    x_T = schedule.sigma(times[0]) * samplers.item_noise(keys, 0, (1000,))
    for name in ("dpmpp_2m", "dpmpp_2m_sde", "unipc"):
        sample = jax.jit(samplers.SAMPLERS[name], static_argnums=(0, 3))
        x_0 = np.asarray(sample(exact_denoiser(schedule), x_T, times, schedule, keys))
        assert x_0.mean() == pytest.approx(MEAN, abs=0.03)
        expected = STD**2 / np.sqrt(STD**2 + sigma_min**2)
        assert x_0.std() == pytest.approx(expected, abs=0.02)


def test_time_grid_too_fine_for_float32_is_refused():
    for schedule, steps, start in ((MAKERS["sigmoid"](), 1000, 1.0), (schedules.edm(), 200, 1e-6)):
        for grid in (time_grids.log_snr, time_grids.karras):
            with pytest.raises(ValueError, match=f"steps={steps} from t={start:.3g} are too"):
                grid(schedule, steps, start=start)
    with pytest.raises(ValueError, match="are too close together"):
        time_grids.uniform(schedules.edm(), 200, start=1e-6)


def test_time_grid_of_a_late_start_has_fewer_times_of_a_discrete_schedule():
    schedule = MAKERS["ddpm_linear"]()
    assert (np.diff(np.asarray(time_grids.uniform(schedule, 100, start=0.1))) < 0).all()
    with pytest.raises(ValueError, match="steps=101 is more than the times of the schedule"):
        time_grids.uniform(schedule, 101, start=0.1)
    with pytest.raises(ValueError, match="steps=257 is more than the places"):
        time_grids.aligned(schedule, 257, [0.5], [0.3])
    late = np.asarray(time_grids.log_snr(MAKERS["cosine"](), 10, start=0.005))
    assert (np.diff(late) < 0).all()


def test_time_grid_has_equal_steps_in_its_variable():
    schedule = MAKERS["cosine"]()
    by_snr = np.diff(schedule.log_snr(time_grids.log_snr(schedule, 12)[:-1]))
    np.testing.assert_allclose(by_snr, by_snr.mean(), rtol=2e-2)
    times = time_grids.karras(schedule, 12)[:-1]
    roots = np.diff((schedule.sigma(times) / schedule.alpha(times)) ** (1 / 7))
    np.testing.assert_allclose(roots, roots.mean(), rtol=2e-2)


VARIANCES = np.geomspace(1e-3, 10, 64) / np.geomspace(1e-3, 10, 64).mean()


def test_step_costs_bound_the_change_of_the_final_x_0():
    """A denoiser constant from a to b, then the exact flow: within the bound, not far below."""
    places = np.linspace(-8, 8, 33)
    error = (VARIANCES / (1 + np.exp(places)[:, None] * VARIANCES)).mean(axis=1)
    cost = time_grids.step_costs(places, error)
    y = lambda n: np.sqrt(VARIANCES + n**2)  # x / alpha of the flow, deviation by deviation
    shares = []
    for a, b in itertools.combinations(range(33), 2):
        n_a, n_b = np.exp(-places[a] / 2), np.exp(-places[b] / 2)
        constant = y(n_a) * VARIANCES / (VARIANCES + n_a**2)
        y_b = y(n_a) + (n_b - n_a) * (y(n_a) - constant) / n_a
        change = (y_b / y(n_b) - 1) * np.sqrt(VARIANCES)
        shares.append(np.mean(change**2) / cost[a, b])
    assert 0.05 < max(shares) <= 1
    assert np.isinf(cost[np.tril_indices(33)]).all()


def test_aligned_grid_is_the_cheapest_of_all(monkeypatch):
    monkeypatch.setattr(time_grids, "NUM_PLACES", 11)
    schedule, levels, errors = MAKERS["cosine"](), [0.1, 0.4, 0.8], [0.02, 0.1, 0.5]
    costs, step_costs = [], time_grids.step_costs
    monkeypatch.setattr(
        time_grids, "step_costs", lambda *args: costs.append(step_costs(*args)) or costs[0]
    )
    times = np.asarray(time_grids.aligned(schedule, 5, levels, errors))
    total = lambda path: sum(costs[0][a, b] for a, b in itertools.pairwise(path))
    all_paths = [(0, *between, 10) for between in itertools.combinations(range(1, 10), 3)]
    places = np.linspace(time_grids.MIN_LOG_SNR, time_grids.MAX_LOG_SNR, 11)
    best = places[list(min(all_paths, key=total))]
    np.testing.assert_allclose(schedule.log_snr(times[:-1]), best, atol=0.1)


@pytest.mark.parametrize("steps", [10, 20])
def test_aligned_grid_ends_nearest_to_the_flow(steps):
    """DDIM on a Gaussian of many deviations, against grids that ignore them."""
    schedule, levels = MAKERS["cosine"](), jnp.linspace(0.01, 0.99, 99)
    snr = np.exp(schedule.log_snr(levels))[:, None]
    curve = {"levels": levels, "errors": (VARIANCES / (1 + snr * VARIANCES)).mean(axis=1)}

    def denoise(x_t, t):
        alpha, sigma, v = schedule.alpha(t[:, None]), schedule.sigma(t[:, None]), VARIANCES[None]
        x_0 = alpha * v / (alpha**2 * v + sigma**2) * x_t
        return x_0, (x_t - alpha * x_0) / sigma

    def distance(grid, **options):
        times = time_grids.TIME_GRIDS[grid](schedule, steps, **options)
        alpha, sigma = float(schedule.alpha(times[0])), float(schedule.sigma(times[0]))
        x_T = jnp.asarray(np.sqrt(alpha**2 * VARIANCES + sigma**2))[None]
        x_0 = samplers.ddim(denoise, x_T, times, schedule, samplers.item_keys(0, [0]))
        return float(np.mean((np.asarray(x_0) - np.sqrt(VARIANCES)) ** 2))

    assert distance("aligned", **curve) < 0.5 * min(map(distance, ("log_snr", "karras")))


def test_uniform_grid_ends_at_the_data_and_refuses_wrong_steps():
    ddpm, cosine = MAKERS["ddpm_linear"](), MAKERS["cosine"]()
    grid = np.asarray(time_grids.uniform(ddpm, 30))
    assert grid[0] == 1 and grid[-1] == 0 and (np.diff(grid) < 0).all()
    np.testing.assert_allclose(grid * 1000, np.rint(grid * 1000), atol=1e-3)
    assert time_grids.uniform(cosine, 1).shape == (2,)
    for schedule, steps in ((ddpm, 0), (ddpm, 1001)):
        with pytest.raises(ValueError, match="steps"):
            time_grids.uniform(schedule, steps)
