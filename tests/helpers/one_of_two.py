"""Child of test_processes: one of two processes of two virtual devices each.

    python -m tests.helpers.one_of_two PORT PROCESS WORKDIR MUSIC CACHES [STEPS]

Trains, then prints the digest of the newest checkpoint as this job restores it.
"""

import hashlib
import pathlib
import sys

import jax

from specdiff_jax.data import prepare
from specdiff_jax.runtime import distributed, mesh
from specdiff_jax.training import checkpoints, train
from specdiff_jax.training.diffusion_job import DiffusionJob
from tests.helpers.nano import small_config


def digest(config):
    """sha256 of all leaves of the newest checkpoint, gathered from wherever they are held."""
    with mesh.enter(config):
        state = DiffusionJob(config).restore(checkpoints.newest_good(config.workdir))
        gather = jax.experimental.multihost_utils.process_allgather
        whole = [gather(leaf, tiled=True) for leaf in jax.tree.leaves(state)]
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in whole)).hexdigest()


def main(port, process, workdir, music, caches, steps=3):
    if port != "none":
        distributed.join_job(f"localhost:{port}", 2, int(process))
    config = small_config(pathlib.Path(music), pathlib.Path(caches), pathlib.Path(workdir))
    config.workdir = workdir
    config.mesh.fsdp = 2
    config.train.update(batch_size=8, num_steps=int(steps))
    prepare.run(config)
    train.run(config)
    print(digest(config))


if __name__ == "__main__":
    main(*sys.argv[1:])
