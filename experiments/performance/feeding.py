"""What feeding costs: seconds a step of tiny with no feeding, from the device, from the host.

    python -m experiments.performance.feeding [--size=tiny] [--dispatches=6]

No feeding: the same crops again and again, on the device already. Writes results/feeding.csv.
"""

import argparse
import time

import jax
import numpy as np

from configs import base
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.data import feeding, prepare
from specdiff_jax.training.diffusion_job import DiffusionJob


def dispatches_of(config, count):
    every = config.train.steps_per_dispatch
    return [(index * every, every) for index in range(count)]


def seconds_a_step(job, held, batches, dispatches):
    """The fastest dispatch, its batch fetched within the time as in training."""
    train_step, state = job.train_step(), job.init()
    times = []
    for first, count in dispatches:
        start = time.perf_counter()
        batch = next(batches)
        state, metrics = train_step(state, held, np.arange(first, first + count), batch)
        jax.block_until_ready(metrics)
        times.append((time.perf_counter() - start) / count)
    return min(times[1:])  # the first compiles


def fixed_batches(job, every, size):
    """The same crops for ever, on the device."""
    batch = next(feeding.iterate_crops(job.songs, job.samples, 0, size, [(0, every)]))
    while True:
        yield jax.device_put(batch)


def measure(size, count, repeats):
    config = base.get_config(size)
    prepare.run(config)
    job = DiffusionJob(config)
    job.fit_representation()
    t, best = config.train, {}
    for _ in range(repeats):  # in turn, so that a busy machine slows all of them
        for feed in ("none", "device", "host"):
            dispatches = dispatches_of(config, count)
            if feed == "none":
                held, batches = (None, None), fixed_batches(job, t.steps_per_dispatch, t.batch_size)
            else:
                config.data.placement = feed
                held, batches = job.feed(dispatches)
            seconds = seconds_a_step(job, held, batches, dispatches)
            best[feed] = min(seconds, best.get(feed, seconds))
            print(feed, f"{seconds:.4f} s a step")
    free = best["none"]
    return [
        {"config": size, "feed": feed, "seconds_a_step": seconds, "over_none": seconds / free}
        for feed, seconds in best.items()
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
