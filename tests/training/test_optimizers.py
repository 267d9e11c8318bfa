"""Averages of the parameters are those of their papers; schedules begin and end where they say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from specdiff_jax.training import optimizers


def averaged(average, values):
    """The average after a scalar has taken `values`, one a step."""
    result = jnp.float32(values[0])
    for step, value in enumerate(values):
        result = average(result, jnp.float32(value), None, jnp.int32(step))
    return float(result)


def test_constant_ema_is_warmed_up_then_geometric():
    values = np.sin(np.arange(50.0))
    expected = values[0]
    for step, value in enumerate(values):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert averaged(optimizers.constant(0.8), values) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_power_ema_has_its_weights_and_width(length):
    """Karras et al. 2023, eq. 2: weight (step / last)^gamma; sigma_rel is its deviation."""
    steps, average = 400, optimizers.power(length)
    weights = np.array([averaged(average, np.eye(steps)[k]) for k in range(0, steps, 20)])
    places = np.arange(0, steps, 20) / steps
    weights = weights / weights.sum()
    width = np.sqrt((weights * places**2).sum() - (weights * places).sum() ** 2)
    assert width == pytest.approx(length, rel=0.1)
    assert averaged(average, np.ones(20)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("average", [optimizers.constant(0.999), optimizers.power(0.1)])
def test_ema_of_a_frozen_parameter_is_that_parameter(average):
    frozen = jax.random.normal(jax.random.key(0), (10_000,))
    mean, one = frozen, jax.jit(lambda mean, step: average(mean, frozen, None, step))
    for step in range(20):
        mean = one(mean, step)
    np.testing.assert_array_equal(mean, frozen)


def test_power_ema_refuses_an_impossible_width():
    with pytest.raises(ValueError, match=r"optimizer.ema_rel_std=0.5"):
        optimizers.power(0.5)


def test_schedule_free_average_minimizes():
    config = base.get_config("tiny")
    config.optimizer.update(kind="schedule_free", lr_schedule="constant", clip_norm=1.0)
    config.optimizer.update(ema_kind="schedule_free", ema_decay=None, learning_rate=0.1)
    tx, average = optimizers.optimizer(config, 100), optimizers.ema_update(config)
    params = {"w": jnp.array([3.0, -2.0])}
    state, mean = tx.init(params), params
    for step in range(300):
        gradient = {"w": 2 * params["w"]}
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        mean = average(mean, params, state, step)
    assert float(jnp.abs(mean["w"]).max()) < 0.05
    assert not np.allclose(mean["w"], params["w"])


@pytest.mark.parametrize("shape", [(32, 64), (32, 128), (128, 32)])
def test_muon_updates_are_orthogonal_of_equal_rms(shape):
    config = base.get_config("tiny")
    config.optimizer.update(kind="muon", clip_norm=None, warmup_steps=0, lr_schedule="constant")
    config.optimizer.update(weight_decay=0.0, learning_rate=0.5)
    tx, params = optimizers.optimizer(config, 10), {"w": jnp.zeros(shape)}
    gradient = {"w": jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)}
    update = np.asarray(tx.update(gradient, tx.init(params), params)[0]["w"])
    values = np.linalg.svd(update, compute_uv=False) / (0.5 * 0.2 * np.sqrt(max(shape)))
    assert (values > 0.65).all() and (values < 1.25).all()  # Jordan's polynomial ends in 0.7 to 1.2
    assert np.vdot(update, gradient["w"]) < 0


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_learning_rate_warms_up_and_ends_as_scheduled(decay):
    config = base.get_config("tiny")
    config.optimizer.update(lr_schedule=decay, warmup_steps=10, learning_rate=0.5)
    rate = optimizers.learning_rate(config, 100)
    assert float(rate(0)) == 0 and float(rate(10)) == pytest.approx(0.5)
    assert float(rate(100)) == pytest.approx(0.5 if decay == "constant" else 0.0, abs=1e-6)
    assert (np.diff([float(rate(s)) for s in range(10)]) > 0).all()


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_learning_rates_equal_the_schedule_at_each_step(decay):
    config = base.get_config("tiny")
    config.optimizer.update(lr_schedule=decay, warmup_steps=0 if decay == "constant" else 10)
    rate, rates = optimizers.learning_rate(config, 50), optimizers.learning_rates(config, 50)
    np.testing.assert_allclose(rates, [float(rate(step)) for step in range(50)], rtol=1e-6)
    assert not isinstance(rates, jax.Array)
