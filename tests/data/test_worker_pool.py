"""Workers that hang, die or fill the memory cost their own job and nothing else."""

import os
import time

import numpy as np
import pytest

from specdiff_jax.runtime import worker_pool


def work(job):
    """What a test's job does in a worker: a number is squared, a word is misbehaviour."""
    if job == "die":
        os._exit(3)
    if job == "hang":
        time.sleep(600)
    if job == "fill":
        return np.ones(1 << 33).sum()
    if job == "refuse":
        raise ValueError("not this one")
    if job == "surprise":
        raise KeyError("two\nlines")
    if job == "threads":
        import scipy.linalg  # noqa: F401, brings a second library of threads
        import threadpoolctl

        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    if job == "full":
        raise worker_pool.Stop("no space left")
    return job * job


def test_in_order_yields_a_result_or_a_reason_for_every_job():
    jobs = [1, "die", 2, "hang", 3, "refuse", "surprise", "fill", *range(4, 20)]
    done = list(worker_pool.in_order(work, iter(jobs), seconds=5.0, count=2))
    assert [job for job, _, _ in done] == jobs
    reasons = {job: reason for job, _, reason in done if isinstance(job, str)}
    assert "crashed" in reasons["die"] and "longer than 5 s" in reasons["hang"]
    assert reasons["refuse"] == "not this one" and "memory" in reasons["fill"]
    assert reasons["surprise"] == "KeyError: 'two\\nlines'"
    assert [r for job, r, _ in done if not isinstance(job, str)] == [
        job * job for job in jobs if not isinstance(job, str)
    ]


def test_in_order_raises_stop():
    done = worker_pool.in_order(work, [1, "full", 2], 60.0, count=2)
    assert next(done) == (1, 1, None)
    with pytest.raises(worker_pool.Stop, match="no space left"):
        next(done)


def test_worker_libraries_use_one_thread():
    """A library loaded later neither: its buffers count in the memory that a worker may have."""
    ((_, threads, reason),) = worker_pool.in_order(work, ["threads"], 60.0, count=1)
    assert reason is None and len(threads) >= 2 and set(threads) == {1}


def test_in_order_draws_few_jobs_ahead():
    drawn = []
    results = worker_pool.in_order(work, (drawn.append(k) or k for k in range(100)), 60.0, count=2)
    next(results)
    assert len(drawn) <= 6
    results.close()
