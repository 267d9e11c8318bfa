"""The train state, the one train step that every job shares, and the scan of steps around it."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from specdiff_jax.conditioning.conditioners import null_condition
from specdiff_jax.data.crops import pcm_to_wave
from specdiff_jax.data.feeding import slice_crops
from specdiff_jax.runtime import mesh, random_streams, xla_options


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step; `step` counts applied updates."""

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any


def init_params(model, seed):
    """Return a model's parameters before any training, a function of the seed alone."""
    condition = null_condition(model.conditioners, 1)
    example = jnp.zeros((1, *model.shape)), jnp.zeros(1), condition
    return jax.jit(model.init)(jax.random.key(seed), *example)["params"]


def init_state(params, tx):
    """Return a state at step 0. `ema_params` is a copy: donated buffers must not be shared."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
    )


def make_train_step(loss_fn, tx, ema_update, grad_accum_steps=1):
    """Return a function (state, step, batch, key) -> (state, metrics).

    A step whose loss or gradient is not finite leaves the state untouched. So does every later one,
    whose `step` is no longer the state's: a run that broke does not drift on.

    Args:
      loss_fn: (params, batch, key) -> (loss, {name: scalar}).
      tx: the optax transformation.
      ema_update: (ema_params, params, opt_state, step) -> the next ema_params.
      grad_accum_steps: micro-batches that one update sums over.
    """

    def gradients(params, batch, key):
        if grad_accum_steps == 1:
            return jax.value_and_grad(loss_fn, has_aux=True)(params, batch, key)

        def add(total, inputs):
            part = jax.value_and_grad(loss_fn, has_aux=True)(params, *inputs)
            return jax.tree.map(jnp.add, total, part), None

        # Every so-many-th example, so that a batch split over devices stays where it is.
        micro_batches = lambda x: x.reshape(-1, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1)
        split = jax.tree.map(micro_batches, batch)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(jax.value_and_grad(loss_fn, has_aux=True), params, first, key)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (split, jax.random.split(key, grad_accum_steps)))
        return jax.tree.map(lambda x: x / grad_accum_steps, total)

    def update(state, grads):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = ema_update(state.ema_params, params, opt_state, state.step)
        return TrainState(state.step + 1, params, ema_params, opt_state)

    def train_step(state, step, batch, key):
        (loss, extra), grads = gradients(state.params, batch, key)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (state.step == step)
        state = mesh.constrain_state(update_if(finite, update, state, grads))
        metrics = {"loss": loss, "grad_norm": grad_norm, "finite": finite.astype(jnp.float32)}
        return state, metrics | extra

    return train_step


def update_if(finite, update, state, grads):
    """Return `update(state, grads)`, or the state exactly as it was.

    On a CPU `cond` updates the donated state in place; `where` would copy it. On a GPU `where`
    is cheap and needs no synchronization with the host.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(finite, update, lambda state, grads: state, state, grads)
    new = update(state, grads)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)


def make_dispatch(config, samples, draw, loss_fn, tx, ema_update):
    """Return the jitted (state, resident, steps [K], Batch [K, B]) -> (state, metrics of [K]).

    Args:
      samples: of a crop.
      draw: (tables, Batch, key) -> the loss's input beside the waves: a Condition, or targets.
      loss_fn: (params, (wave, those), key) -> (loss, {name: scalar}).
      tx, ema_update: as `make_train_step` takes them.
    """
    step_fn = make_train_step(loss_fn, tx, ema_update, config.optimizer.grad_accum_steps)

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=xla_options.compiler_options())
    def dispatch(state, resident, steps, batches):
        pcm, tables = resident

        def scan_step(state, inputs):
            step, batch = inputs
            sound = batch.sound
            crops = sound if pcm is None else slice_crops(pcm, sound, samples)
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            caption_key = jax.random.fold_in(key, random_streams.CAPTION)
            return step_fn(state, step, (pcm_to_wave(crops), draw(tables, batch, caption_key)), key)

        return jax.lax.scan(scan_step, state, (steps, batches))

    return dispatch
