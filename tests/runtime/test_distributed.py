"""Two processes over localhost are one job: the numbers, checkpoints and songs of one process."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from configs import base
from specdiff_jax.runtime import distributed
from specdiff_jax.training import preflight, train

ROOT = pathlib.Path(__file__).parents[2]
CHILD = ("-m", "tests.helpers.one_of_two")


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def started(port, process, workdir, music, caches, devices, steps=3):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, *CHILD, *map(str, (port, process, workdir, music, caches, steps))],
        env=os.environ | flags | {"JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(children):
    """What each printed last."""
    lines = [child.communicate(timeout=600) for child in children]
    for child, (_, errors) in zip(children, lines, strict=True):
        assert child.returncode == 0, errors[-2000:]
    return [out.split()[-1] for out, _ in lines], [errors for _, errors in lines]


def logged(workdir, kind, name):
    lines = map(json.loads, (workdir / "metrics.jsonl").open())
    return [line[name] for line in lines if line["kind"] == kind]


@pytest.mark.slow
def test_two_processes_are_one_job(music, caches, tmp_path):
    where = (music, caches)
    alone = finished([started("none", 0, tmp_path / "one", *where, devices=4)])
    port = free_port()
    both = [started(port, p, tmp_path / "two", *where, devices=2) for p in (0, 1)]
    digests, printed = finished(both)
    for kind, name in (("train", "loss"), ("valid", "x0_error")):
        result = logged(tmp_path / "two", kind, name)
        assert len(result)
        np.testing.assert_allclose(result, logged(tmp_path / "one", kind, name), rtol=2e-5)
    assert digests[0] == digests[1]
    assert "2 processes, 4 devices" in printed[0] and "processes" not in printed[1]

    # What two processes wrote is the same to the bit on one, and back.
    for output, of_one in (("two", digests[0]), ("one", alone[0][0])):
        shutil.copytree(tmp_path / output, tmp_path / f"{output} copied")
        one = finished([started("none", 0, tmp_path / f"{output} copied", *where, devices=4)])
        port = free_port()
        pair = [started(port, p, tmp_path / output, *where, devices=2) for p in (0, 1)]
        assert one[0] == [of_one] and finished(pair)[0] == [of_one] * 2


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_the_next_start_goes_on(music, caches, tmp_path):
    where = (tmp_path / "run", music, caches)
    port = free_port()
    first, second = (started(port, p, *where, devices=2, steps=3000) for p in (0, 1))
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("checkpoints/*/sha256.json")):
        assert time.monotonic() < deadline and first.poll() is None, "no checkpoint came"
        time.sleep(0.5)
    second.send_signal(signal.SIGKILL)
    _, errors = first.communicate(timeout=200)
    assert first.returncode != 0 and errors
    kept = max(int(p.parent.name) for p in (tmp_path / "run").glob("checkpoints/*/sha256.json"))
    port = free_port()
    both = [started(port, p, *where, devices=2, steps=kept + 3) for p in (0, 1)]
    assert f"resumed from the checkpoint of step {kept}" in finished(both)[1][0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "16"}, True),
        ({"SLURM_STEP_NODELIST": "a1", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "16"}, False),  # in a batch script, outside srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
    ],
)
def test_is_launched_reads_the_environment_of_launchers(environ, expected):
    assert distributed.is_launched(environ) is expected


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("host:1", None, 0), "--processes"),
        ((None, 2, None), "--coordinator"),
        (("host:1", 2, 2), "--process=2"),
    ],
)
def test_join_job_refuses_incomplete_flags(flags, field):
    with pytest.raises(ValueError, match=field):
        distributed.join_job(*flags)


@pytest.mark.parametrize("slow_somewhere", [False, True])
def test_all_processes_time_as_many_dispatches(monkeypatch, slow_somewhere):
    """One that ran a dispatch less would sum its gradients with those of other steps, for ever."""
    runs, requested = [], []
    program = types.SimpleNamespace(lower=lambda *given: program, compile=lambda: run)
    job = types.SimpleNamespace(
        config=base.get_config("tiny"),
        num_steps=40,
        train_step=lambda: program,
        model=types.SimpleNamespace(dtype="float32"),
    )

    def run(state, resident, steps, batch):
        runs.append(steps[0])
        return state, {}

    measures = dict.fromkeys(
        ("measure_matmul_rate", "peak_bytes", "count_bytes"), lambda given: 1.0
    )
    monkeypatch.setattr(preflight, "roofline", types.SimpleNamespace(**measures))
    given = lambda job, count: (None, None, np.arange(count), None)
    monkeypatch.setattr(preflight, "first_dispatch", given)
    monkeypatch.setattr(
        preflight, "MAX_TIMED_SECONDS", 0.0
    )  # this process finds every dispatch slow
    agree = lambda slow: requested.append(slow) or slow_somewhere
    monkeypatch.setattr(distributed, "max_over_processes", agree)
    preflight.timing(job)
    assert runs == ([0] if slow_somewhere else [0, 20]) and requested[0]


def test_processes_agree_on_a_signal_when_nothing_is_under_way(monkeypatch):
    order = []
    under_way = types.SimpleNamespace(block_until_ready=lambda: order.append("waited"))
    monkeypatch.setattr(distributed, "is_single_process", lambda: False)
    monkeypatch.setattr(
        distributed, "max_over_processes", lambda caught: order.append("agreed") or 15
    )
    assert train.Interrupts().at(7, 5, under_way) == 0 and not order
    assert train.Interrupts().at(10, 5, under_way) == 15 and order == ["waited", "agreed"]
