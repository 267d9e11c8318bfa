"""The train state and the one train step that every job shares."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from specdiff_jax.runtime import mesh


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step; `step` counts applied updates."""

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any


def init_state(params, tx):
    """A state at step 0. `ema_params` is a copy: donated buffers must not be shared."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
    )


def make_train_step(loss_fn, tx, average, accumulate=1):
    """Returns `train_step(state, step, batch, key) -> (state, metrics)`, jitted by the caller.

    Args:
      loss_fn: (params, batch, key) -> (loss, {name: scalar}).
      tx: an optax transformation.
      average: (ema_params, params, opt_state, step) -> ema_params; see optimizers.averaging.
      accumulate: micro-batches a step; the batch's leading axis must be a multiple of it.

    A non-finite loss or gradient leaves the state exactly as it was, its step included, and
    metrics["finite"] is 0. So is every later step then: `step` no longer is the state's.
    """

    def gradients(params, batch, key):
        if accumulate == 1:
            return jax.value_and_grad(loss_fn, has_aux=True)(params, batch, key)

        def add(total, inputs):
            part = jax.value_and_grad(loss_fn, has_aux=True)(params, *inputs)
            return jax.tree.map(jnp.add, total, part), None

        # Every so-many-th example, so that a batch split over devices stays where it is.
        apart = lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)
        split = jax.tree.map(apart, batch)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(jax.value_and_grad(loss_fn, has_aux=True), params, first, key)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (split, jax.random.split(key, accumulate)))
        return jax.tree.map(lambda x: x / accumulate, total)

    def updated(state, grads):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = average(state.ema_params, params, opt_state, state.step)
        return TrainState(state.step + 1, params, ema_params, opt_state)

    def train_step(state, step, batch, key):
        (loss, extra), grads = gradients(state.params, batch, key)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (state.step == step)
        state = mesh.held(only_if(finite, updated, state, grads))
        metrics = {"loss": loss, "grad_norm": grad_norm, "finite": finite.astype(jnp.float32)}
        return state, metrics | extra

    return train_step


def only_if(finite, updated, state, grads):
    """`updated(state, grads)`, or the state exactly as it was.

    A branch writes over a donated state, where XLA's CPU backend copies all of it to choose between
    two; a GPU chooses for little, and would wait for the host at a branch.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(finite, updated, lambda state, grads: state, state, grads)
    new = updated(state, grads)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
