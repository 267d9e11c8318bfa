"""The train step: what accumulation, EMA and a broken step do, against hand-written ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from specdiff_jax.training import optimizers
from specdiff_jax.training.train_state import init_state, make_train_step

TX = optax.adam(0.1)
AVERAGE = optimizers.constant(0.9)


def loss_fn(params, batch, key):
    return jnp.mean((batch @ params["w"] - 1.0) ** 2), {}


def start():
    return init_state({"w": jnp.array([[0.5], [-0.5], [2.0]])}, TX)


def batch(seed=0, size=8):
    return jax.random.normal(jax.random.key(seed), (size, 3))


def test_train_step_equals_optax():
    state, metrics = make_train_step(loss_fn, TX, AVERAGE)(start(), 0, batch(), jax.random.key(0))
    params, grads = start().params, jax.grad(lambda p: loss_fn(p, batch(), None)[0])(start().params)
    updates, _ = TX.update(grads, TX.init(params), params)
    np.testing.assert_allclose(state.params["w"], optax.apply_updates(params, updates)["w"])
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_equal_the_whole_batch(accumulate):
    key = jax.random.key(0)
    whole, expected = make_train_step(loss_fn, TX, AVERAGE)(start(), 0, batch(), key)
    parts, result = make_train_step(loss_fn, TX, AVERAGE, accumulate)(start(), 0, batch(), key)
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], atol=1e-6)
    assert float(result["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)


def test_train_step_ema_follows_its_recurrence():
    step, state = make_train_step(loss_fn, TX, AVERAGE), start()
    ema = state.params["w"]
    for i in range(30):
        state, _ = step(state, i, batch(i), jax.random.key(i))
        decay = min(0.9, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * state.params["w"]
    np.testing.assert_allclose(state.ema_params["w"], ema, atol=1e-5)
    assert not np.allclose(state.ema_params["w"], state.params["w"])


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf, 1e30])
def test_non_finite_step_leaves_the_state_and_halts(poison, backend, monkeypatch):
    """1e30 has a finite loss in no float32: its square overflows."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # branches, or chooses
    step, state = make_train_step(loss_fn, TX, AVERAGE), start()
    broken, metrics = step(state, 0, batch().at[3].set(poison), jax.random.key(0))
    assert float(metrics["finite"]) == 0
    jax.tree.map(np.testing.assert_array_equal, broken, state)
    after, metrics = step(broken, 1, batch(), jax.random.key(1))
    assert float(metrics["finite"]) == 0 and np.isfinite(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_update_if_branch_equals_select(monkeypatch):
    taken = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        step = jax.jit(make_train_step(loss_fn, TX, AVERAGE))
        taken.append(step(start(), 0, batch(), jax.random.key(0))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *taken)
    assert not np.allclose(taken[0].params["w"], start().params["w"])


def test_init_state_shares_no_buffer():
    state = start()
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)
