"""A training step compiled for an NVIDIA GPU that is not there, for XLA's account of its memory.

Needs JAX's CUDA plugin (pip install -e '.[cuda12]') and no GPU: JAX_PLATFORMS=cpu. Nothing is run
or timed, and kernels are chosen without being tried. LOG.md has such accounts beside what a GPU
took.
"""

import contextlib
import os
from unittest import mock

import jax

from specdiff_jax.training import preflight
from specdiff_jax.training.diffusion_job import DiffusionJob

# What XLA asks of a chip (GpuTargetConfigProto), from the vendor's tables.
CHIPS = {
    "H200": """
        platform_name: "CUDA"
        device_description_str: "NVIDIA H200"
        dnn_version_info { major: 9 minor: 10 patch: 0 }
        gpu_device_info {
          cuda_compute_capability { major: 9 minor: 0 }
          device_memory_size: 150000000000
          memory_bandwidth: 4800000000000
          l2_cache_size: 52428800
          clock_rate_ghz: 1.98
          core_count: 132
          fpus_per_core: 128
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
        }
    """
}


def device(chip):
    """The chip as a device that programs can be compiled for."""
    from jax.experimental import topologies

    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of a driver that is not there either
    about = {"target_config": CHIPS[chip], "topology": "1x1x1"}
    return topologies.get_topology_desc(platform="cuda", **about).devices[0]


@contextlib.contextmanager
def pretended():
    """Inside, the library makes its choices as on a GPU with a cuDNN of the day."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    with (
        mock.patch.object(jax, "default_backend", lambda: "gpu"),
        mock.patch.object(cudnn, "check_cudnn_version", lambda: 91000),
        mock.patch.object(cudnn, "check_compute_capability", lambda *_, **__: True),
    ):
        yield


def compiled(config, chip):
    """The training step of a config, compiled for one such chip."""
    job = DiffusionJob(config)
    arguments = preflight.first_dispatch(job, 1)
    there = jax.sharding.SingleDeviceSharding(device(chip))
    abstract = lambda x: jax.ShapeDtypeStruct(jax.numpy.shape(x), x.dtype, sharding=there)
    with pretended():
        job.know(job.vocabulary)  # a model that takes what the chip is fast in
        traced = job.train_step().trace(*jax.tree.map(abstract, arguments))
        return traced.lower(lowering_platforms=("cuda",)).compile()
