"""Several processes as one job, by JAX's own runtime: each feeds its share, the first one speaks.

Under Slurm, Open MPI and Kubernetes (an indexed Job, with the package `kubernetes`) a job is found
by JAX; elsewhere --coordinator, --processes and --process tell.
"""

import os
import sys

import jax

from specdiff_jax.runtime import logs

PATIENCE = 24 * 3600  # seconds that the others wait for the first to prepare the songs
LOST = (
    "another process of this job ended or cannot be reached; see what it said, and start the same "
    "command again: it goes on from the last checkpoint"
)
HEARTBEAT = 30  # seconds of silence after which a process counts as dead


def is_launched(environ=os.environ):
    """Whether a launcher started this process as one of several."""
    many = lambda name: int(environ.get(name, 1)) > 1
    slurm = "SLURM_STEP_NODELIST" in environ and many("SLURM_NTASKS")
    kubernetes = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    return slurm or many("OMPI_COMM_WORLD_SIZE") or kubernetes


def join_job(coordinator=None, processes=None, process=None):
    """Joins the job that this process is one of, if any. Call it before any other JAX call.

    Args:
      coordinator: HOST:PORT of the first process; processes: how many; process: which, from 0.

    Raises:
      ValueError: only some of the three are given.
    """
    given = (coordinator, processes, process)
    if all(value is None for value in given) and not is_launched():
        return
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ValueError("--coordinator, --processes and --process go together; give all three")
    if process is not None and not 0 <= process < processes:
        raise ValueError(f"--process={process} is not below --processes={processes}")
    jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
    if jax.process_index():
        logs.mute()
    logs.log(f"job: {jax.process_count()} processes, {jax.device_count()} devices")


def is_single_process():
    """Whether the job is this process."""
    return jax.process_count() == 1


def exit_process(code):
    """Exits; a process of a job at once, or JAX would wait for others that wait for this one."""
    if not is_single_process():
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def sync_processes(name):
    """Waits until every process of the job is here."""
    if not is_single_process():
        import orbax.checkpoint as ocp  # seconds that one process need not wait for

        ocp.multihost.sync_global_processes(name, timeout=PATIENCE)


def is_first_process():
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def run_in_first_process(work):
    """Runs `work` in the first process, then in all others, which find it done."""
    if not is_first_process():
        sync_processes("first")
    work()
    if is_first_process():
        sync_processes("first")


def max_over_processes(number):
    """The largest number that any process holds."""
    if is_single_process():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(number).max())
