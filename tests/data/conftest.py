"""Preparation without what takes longer than the songs of most tests: workers and pictures."""

import concurrent.futures

import pytest

from specdiff_jax.data import prepare
from specdiff_jax.runtime import worker_pool


def run_in_order(function, jobs, seconds, count=None):
    """Run each job in this process, with the results and reasons of `worker_pool.in_order`."""
    for job in jobs:
        future = concurrent.futures.Future()
        try:
            future.set_result(function(job))
        except Exception as error:
            future.set_exception(error)
        yield worker_pool.collect_result(job, future, seconds)


@pytest.fixture
def quick_prepare(monkeypatch):
    """Prepare songs in this process, with one spectrogram in the report."""
    monkeypatch.setattr(prepare, "NUM_SPECTROGRAMS", 1)
    monkeypatch.setattr(worker_pool, "in_order", run_in_order)
