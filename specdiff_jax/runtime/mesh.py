"""The devices as one mesh: who holds which part of a batch and of a train state.

Two axes, `data` and `fsdp`. A batch is split over both. Parameters, their average and the
optimizer's state are whole on every device along `data`, and split along `fsdp` as RULES say
(ZeRO, Rajbhandari et al. 2020, stage 3: XLA gathers a parameter where it is used). Where no mesh
is entered, or one of one device, every function here is the identity.
"""

import contextlib
import functools
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)
WHOLE = PartitionSpec()
# The first expression that finds a leaf's name says which of its axes is split: the largest that
# `fsdp` divides, or none. Vectors and scalars are left whole: gathering them costs more than they
# weigh.
RULES = (
    (r"(kernel|embedding|table)", "largest"),
    (r"", None),
)


def make_mesh(config):
    """The configured Mesh, over all devices of all processes where mesh.data is unset.

    Raises:
      ValueError: there are too few devices, a process would have none, or they do not divide the
        batch.
    """
    there, fsdp = jax.device_count(), config.mesh.fsdp
    data = config.mesh.data or max(there // fsdp, 1)
    count = data * fsdp
    if count > there or (count < there and jax.process_count() > 1):
        raise ValueError(
            f"mesh.data={data} x mesh.fsdp={fsdp} does not fit the {there} devices there are; "
            f"leave mesh.data unset and set mesh.fsdp to a divisor of {there}"
        )
    accumulate = config.optimizer.grad_accum_steps
    if config.train.batch_size % (count * accumulate):
        raise ValueError(
            f"train.batch_size={config.train.batch_size} in {accumulate} micro-batches cannot be "
            f"split over {count} devices; make it a multiple of {count * accumulate}"
        )
    devices = jax.devices()[:count]
    return jax.make_mesh((data, fsdp), AXES, (AxisType.Auto,) * 2, devices=devices)


@contextlib.contextmanager
def enter(config):
    """Inside, what is traced is split over the configured mesh. One device needs none."""
    mesh = make_mesh(config)
    with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
        yield


def is_sharded():
    """Whether a mesh of several devices is entered."""
    return jax.sharding.get_abstract_mesh().size > 1


def spec(path, leaf, fsdp):
    """The PartitionSpec that RULES give a leaf of a train state."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    axis = next(axis for pattern, axis in RULES if re.search(pattern, name))
    fits = [size if size % fsdp == 0 else 0 for size in leaf.shape]
    if axis is None or len(fits) < 2 or not any(fits):
        return WHOLE
    split = int(np.argmax(fits))
    return PartitionSpec(*("fsdp" if i == split else None for i in range(len(fits))))


def specs(state):
    """The PartitionSpec of every leaf of a train state."""
    fsdp = jax.sharding.get_abstract_mesh().shape["fsdp"]
    return jax.tree_util.tree_map_with_path(lambda path, leaf: spec(path, leaf, fsdp), state)


def constrain_state(state):
    """Inside jit: a train state, held where the rules say."""
    return jax.lax.with_sharding_constraint(state, specs(state)) if is_sharded() else state


def with_shardings(state):
    """Abstract leaves of a train state with the sharding that `held` gives them."""
    if not is_sharded():
        home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda leaf: home, state)
    else:
        mesh = jax.sharding.get_mesh()
        places = jax.tree.map(lambda one: NamedSharding(mesh, one), specs(state))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        places,
    )


def shard_over_batch(function):
    """Arrays [B, ...] -> [B, ...] run by each device on its own part of the batch.

    XLA splits neither an FFT nor a loop along the batch: it gathers all of it on every device.
    """

    @functools.wraps(function)
    def split(*arrays):
        if not is_sharded() or len(arrays[0]) % jax.sharding.get_abstract_mesh().size:
            return function(*arrays)
        # Unchecked: a loop may begin with a constant, which is the same on all devices.
        apart = jax.shard_map(function, in_specs=BATCH, out_specs=BATCH, check_vma=False)
        return apart(*arrays)

    return split


def process_rows(batch_size):
    """The rows of a batch that this process feeds, as a slice: devices are in process order."""
    own = batch_size // jax.process_count() if is_sharded() else batch_size
    first = jax.process_index() * own if is_sharded() else 0
    return slice(first, first + own)


def shard_batch(batch):
    """A dispatch's Batch [K, this process's share of B, ...] on the devices, B split."""
    if not is_sharded():
        return batch
    place = NamedSharding(jax.sharding.get_mesh(), PartitionSpec(None, AXES))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), batch)


def replicate(tree):
    """Host arrays, the same on every process, whole on every device."""
    if not is_sharded():
        return jax.device_put(tree)
    place = NamedSharding(jax.sharding.get_mesh(), WHOLE)
    whole = lambda x: jax.make_array_from_process_local_data(place, np.asarray(x), np.shape(x))
    return jax.tree.map(whole, tree)
