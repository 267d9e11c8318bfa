"""Schedules: the closed form is the iterated chain; every schedule runs from data to noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import schedules
from tests.helpers.gaussian import MAKERS


def test_closed_form_equals_the_iterated_step_in_mean_and_variance():
    """Ho et al. 2020, eq. 2 applied T times, tracked exactly, against eq. 4."""
    steps = 1000
    schedule = schedules.ddpm_linear(steps)
    betas = np.linspace(1e-4, 0.02, steps)
    mean, variance = 1.0, 0.0
    for i, beta in enumerate(betas, start=1):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        if i in (1, 2, 10, 250, 500, 999, 1000):
            t = jnp.float32(i / steps)
            assert float(schedule.alpha(t)) == pytest.approx(mean, rel=2e-4)
            assert float(schedule.sigma(t)) ** 2 == pytest.approx(variance, rel=2e-4)


def test_q_sample_has_the_distribution_of_the_iterated_chain():
    """The same by drawing: 200,000 chains of 20 steps against one jump."""
    steps, count = 20, 200_000
    schedule = schedules.ddpm_linear(steps, 0.01, 0.2)
    rng = np.random.default_rng(0)
    x = np.full(count, 1.5)
    for beta in np.linspace(0.01, 0.2, steps):
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.normal(size=count)
    eps = jnp.asarray(rng.normal(size=count), jnp.float32)
    jump = schedules.q_sample(schedule, jnp.full(count, 1.5), jnp.ones(count), eps)
    assert float(jump.mean()) == pytest.approx(x.mean(), abs=0.01)
    assert float(jump.std()) == pytest.approx(x.std(), abs=0.01)


@pytest.mark.parametrize("name", MAKERS)
def test_log_snr_falls_from_data_to_noise(name):
    schedule = MAKERS[name]()
    t = jnp.linspace(0.001, 0.999, 500)
    assert (np.diff(np.asarray(schedule.log_snr(t))) < 0).all()
    assert float(schedule.alpha(jnp.float32(0))) == pytest.approx(1, abs=1e-3)
    assert float(schedule.sigma(jnp.float32(0))) == pytest.approx(0, abs=1e-3)
    assert float(schedule.alpha(jnp.float32(1))) < 0.01
    assert float(schedule.sigma(jnp.float32(1))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"rectified_flow"}))
def test_schedule_preserves_variance(name):
    schedule, t = MAKERS[name](), jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-5)


def test_shift_log_snr_adds_the_shift():
    plain, t = schedules.cosine(), jnp.linspace(0.05, 0.95, 50)
    shift = schedules.shift_log_snr(plain, -3.0).log_snr(t) - plain.log_snr(t)
    np.testing.assert_allclose(shift, -3.0, atol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_invert_log_snr_is_the_inverse(name):
    schedule, t = MAKERS[name](), jnp.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(
        schedules.invert_log_snr(schedule, schedule.log_snr(t)), t, atol=1e-3
    )
    expected = jnp.array([-6.0, 0.0, 6.0, 9.0])
    log_snr = schedule.log_snr(schedules.invert_log_snr(schedule, expected))
    np.testing.assert_allclose(log_snr, expected, atol=0.02)


def test_zero_terminal_snr_has_no_signal_at_the_end_and_an_equal_start():
    """Lin et al. 2023, algorithm 1: alpha_T = 0, alpha_1 unchanged, a straight line between."""
    plain, shifted = schedules.ddpm_linear(), schedules.ddpm_linear(zero_terminal_snr=True)
    assert float(shifted.alpha(jnp.float32(1.0))) < 1e-5
    t = jnp.arange(1, 1000) / 1000
    old, new = plain.alpha(t), shifted.alpha(t)
    last = float(plain.alpha(jnp.float32(1.0)))
    np.testing.assert_allclose(new, (old - last) / (1 - last), atol=1e-5)


def test_edm_sigma_equals_karras_et_al():
    """Karras et al. 2022, eq. 5 with sigma_data = 0.5, in units of it."""
    schedule, count = schedules.edm(), 18
    i = np.arange(count)
    sigma = (80 ** (1 / 7) + i / (count - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = 1 - jnp.arange(count) / (count - 1)
    np.testing.assert_allclose(schedule.sigma(t)[:-1] / 2, sigma[:-1], rtol=1e-4)
    assert float(schedule.sigma(t)[-1]) == 0
    assert float(schedule.sigma(jnp.float32(1e-6))) / 2 == pytest.approx(0.002, rel=1e-3)
    assert (np.asarray(schedule.alpha(t)) == 1).all()


def test_q_sample_takes_one_time_an_item():
    schedule, key = schedules.cosine(), jax.random.key(0)
    x_0 = jax.random.normal(key, (3, 4, 5, 2))
    t = jnp.array([0.0, 0.5, 1.0])
    x_t = schedules.q_sample(schedule, x_0, t, jnp.ones_like(x_0))
    np.testing.assert_allclose(x_t[0], x_0[0], atol=1e-6)
    np.testing.assert_allclose(x_t[1], (x_0[1] + 1) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(x_t[2], 1, atol=1e-6)


def test_schedule_whose_noise_does_not_grow_is_refused():
    with pytest.raises(ValueError, match=r"sigma_min=2.0 is not below sigma_max=1.0"):
        schedules.edm(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match=r"start=1.0 is not below end=1.0"):
        schedules.sigmoid(1.0, 1.0)
