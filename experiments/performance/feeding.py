"""Measure what feeding costs: seconds per step without, from the device, from the host.

    python -m experiments.performance.feeding [--size=tiny] [--dispatches=6]

Without feeding the same crops on the device are used in every step. Writes
results/performance/feeding.csv.
"""

import argparse
import time

import jax
import numpy as np

from configs import base
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.data import feeding, prepare
from specdiff_jax.training.diffusion_job import DiffusionJob


def list_dispatches(config, count):
    """Return [(first step, steps)] of `count` dispatches."""
    every = config.train.steps_per_dispatch
    return [(index * every, every) for index in range(count)]


def time_step(job, resident, batches, dispatches):
    """Return the seconds per step of the fastest dispatch, the time to fetch its batch included."""
    train_step, state = job.train_step(), job.init()
    times = []
    for first, count in dispatches:
        start = time.perf_counter()
        batch = next(batches)
        state, metrics = train_step(state, resident, np.arange(first, first + count), batch)
        jax.block_until_ready(metrics)
        times.append((time.perf_counter() - start) / count)
    return min(times[1:])  # the first compiles


def fixed_batches(job, every, size):
    """Yield the same crops on the device, without end."""
    batch = next(feeding.iterate_crops(job.songs, job.samples, 0, size, [(0, every)]))
    while True:
        yield jax.device_put(batch)


def measure(size, count, repeats):
    """Return a row for each placement of the songs."""
    config = base.get_config(size)
    prepare.run(config)
    job = DiffusionJob(config)
    job.fit_representation()
    t, best = config.train, {}
    for _ in range(repeats):  # alternating, so that a busy machine slows all of them
        for placement in ("none", "device", "host"):
            dispatches = list_dispatches(config, count)
            if placement == "none":
                resident, batches = (
                    (None, None),
                    fixed_batches(job, t.steps_per_dispatch, t.batch_size),
                )
            else:
                config.data.placement = placement
                resident, batches = job.feed(dispatches)
            seconds = time_step(job, resident, batches, dispatches)
            best[placement] = min(seconds, best.get(placement, seconds))
            print(placement, f"{seconds:.4f} s per step")
    unfed = best["none"]
    return [
        {
            "config": size,
            "placement": placement,
            "seconds_per_step": seconds,
            "over_no_feeding": seconds / unfed,
        }
        for placement, seconds in best.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--dispatches", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = measure(arguments.size, arguments.dispatches, arguments.repeats)
    write_csv(RESULTS / "performance" / "feeding.csv", rows)
    for row in rows:
        print(row)
