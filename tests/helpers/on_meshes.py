"""Child of test_mesh: train one config on several meshes of 8 virtual devices, print the results.

XLA_FLAGS=--xla_force_host_platform_device_count=8 \
    python -m tests.helpers.on_meshes WORKDIR MUSIC CACHES
"""

import json
import pathlib
import sys

import jax
import numpy as np

from experiments.scaling import collectives
from specdiff_jax.conditioning.prompts import UNCONDITIONAL
from specdiff_jax.data import prepare
from specdiff_jax.runtime import mesh as meshes
from specdiff_jax.runtime.worker_pool import run_on_devices
from specdiff_jax.sampling import generator, sample
from specdiff_jax.training import checkpoints, train
from specdiff_jax.training.diffusion_job import DiffusionJob
from tests.helpers.nano import small_config

MESHES = ((1, 1), (8, 1), (4, 2), (1, 8))


def trained(config, mesh, name):
    """{train losses, x0_error} of a run on a mesh, and its last state as host arrays."""
    config.workdir, (config.mesh.data, config.mesh.fsdp) = name, mesh
    train.run(config)
    lines = list(map(json.loads, pathlib.Path(name, "metrics.jsonl").read_text().splitlines()))
    return {
        "losses": [line["loss"] for line in lines if line["kind"] == "train"],
        "valid": [line["x0_error"] for line in lines if line["kind"] == "valid"],
    }


def restored(config, name, mesh):
    """Every leaf of the newest checkpoint, restored onto a mesh; how many leaves are split."""
    (config.mesh.data, config.mesh.fsdp), config.workdir = mesh, name
    with meshes.enter(config):
        state = DiffusionJob(config).restore(checkpoints.newest_good(name))
        leaves = jax.tree.leaves(state)
        split = sum(not leaf.sharding.is_fully_replicated for leaf in leaves)
        return [np.asarray(leaf) for leaf in leaves], split


def program(config, mesh):
    """The text of the training step's program on a mesh."""
    config.mesh.data, config.mesh.fsdp = mesh
    return collectives.compile_step(config)[0].as_text()


def sampled(config, name):
    """Clips made on several devices and on one, and how many devices hold the parameters."""
    config.workdir = name
    trained, rep_out = sample.load_for_sampling(config)
    jobs = [([(UNCONDITIONAL, k)], None) for k in range(6)]
    makers = generator.make_generators(trained, rep_out, [UNCONDITIONAL], 4)
    everywhere = [waves for _, waves in run_on_devices(makers, jobs)]
    alone = [makers[0](*job) for job in jobs]
    same = all((a == b).all() for a, b in zip(everywhere, alone, strict=True))
    resident = [
        generator.sampling_program(trained, rep_out, device=d).args[0] for d in jax.devices()[:4]
    ]
    devices = {leaf.device.id for params in resident for leaf in jax.tree.leaves(params)}
    return {"same": same, "makers": len(makers), "devices": len(devices)}


def main(workdir, music, caches):
    folder = pathlib.Path(workdir)
    config = small_config(pathlib.Path(music), pathlib.Path(caches), folder)
    config.train.update(batch_size=8, num_steps=3)
    prepare.run(config)
    lines = {"x".join(map(str, m)): trained(config, m, f"{workdir}/{m}") for m in MESHES}
    one, _ = restored(config, f"{workdir}/(1, 8)", (1, 1))
    eight, split = restored(config, f"{workdir}/(1, 8)", (1, 8))
    lines["same"] = all((a == b).all() for a, b in zip(one, eight, strict=True))
    lines["split"] = split
    lines["sampled"] = sampled(config, f"{workdir}/(8, 1)")
    lines["program"] = {"data": program(config, (8, 1)), "fsdp": program(config, (1, 8))}
    config.model.attention = "blockwise"
    lines["blockwise"] = trained(config, (8, 1), f"{workdir}/blockwise")
    lines["program"]["blockwise"] = program(config, (8, 1))
    print(json.dumps(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
