"""Compile a training step for an NVIDIA GPU without one, for XLA's account of its memory.

Needs the CUDA plugin of JAX (pip install -e '.[cuda12]') and JAX_PLATFORMS=cpu. Nothing is run or
timed, and kernels are chosen without autotuning. LOG.md compares such accounts with measurements.
"""

import contextlib
import os
from unittest import mock

import jax

from specdiff_jax.training import preflight
from specdiff_jax.training.diffusion_job import DiffusionJob

# GpuTargetConfigProto of XLA, from the vendor's tables.
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


def describe_device(chip):
    """Return the chip as a device that programs can be compiled for."""
    from jax.experimental import topologies

    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver
    target = {"target_config": CHIPS[chip], "topology": "1x1x1"}
    return topologies.get_topology_desc(platform="cuda", **target).devices[0]


@contextlib.contextmanager
def pretend_gpu():
    """Make JAX and this package choose as on a GPU with a current cuDNN, inside the block."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    with (
        mock.patch.object(jax, "default_backend", lambda: "gpu"),
        mock.patch.object(cudnn, "check_cudnn_version", lambda: 91000),
        mock.patch.object(cudnn, "check_compute_capability", lambda *_, **__: True),
    ):
        yield


def compile_step(config, chip):
    """Return the training step of a config, compiled for one such chip."""
    job = DiffusionJob(config)
    arguments = preflight.first_dispatch(job, 1)
    on_chip = jax.sharding.SingleDeviceSharding(describe_device(chip))
    abstract = lambda x: jax.ShapeDtypeStruct(jax.numpy.shape(x), x.dtype, sharding=on_chip)
    with pretend_gpu():
        job.set_vocabulary(job.vocabulary)  # builds the model with the dtype of the chip
        traced = job.train_step().trace(*jax.tree.map(abstract, arguments))
        return traced.lower(lowering_platforms=("cuda",)).compile()
