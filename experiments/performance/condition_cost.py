"""Measure what conditioning adds to a training step, and the time of encoding a prompt.

    python -m experiments.performance.condition_cost [--sizes tiny base]

Steps with and without conditions on the same songs alternate, so that a busy machine slows both.
Writes medians of the timed dispatches to results/performance/condition_cost.csv.
"""

import argparse
import statistics
import time

import jax
import numpy as np

from configs import base, conditional
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.conditioning import text_encoders
from specdiff_jax.data import prepare
from specdiff_jax.training.diffusion_job import DiffusionJob

PROMPT = "a slow chorale in A minor, played by a church organ and take {}"
BATCHES = {"tiny": 16, "base": 1}


class Arm:
    """One compiled train step and its state."""

    def __init__(self, config, rounds):
        prepare.run(config)
        self.job = DiffusionJob(config)
        self.job.fit_representation()
        every = config.train.steps_per_dispatch
        self.resident, self.batches = self.job.feed([(k * every, every) for k in range(rounds + 1)])
        self.step, self.state, self.first = self.job.train_step(), self.job.init(), 0
        self.every, self.seconds = every, []
        self.run()  # compiles
        self.seconds.clear()

    def run(self):
        """Time one dispatch."""
        steps = np.arange(self.first, self.first + self.every, dtype=np.int32)
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.resident, steps, next(self.batches))
        jax.block_until_ready(metrics)
        self.seconds.append((time.perf_counter() - start) / self.every)
        self.first += self.every


def time_steps(size, rounds):
    """Return a row of a step without conditions, and one with all of them."""
    arms = {}
    for name, module in (("none", base), ("labels, text, scalars", conditional)):
        config = module.get_config(size)
        config.data.source = "songbook:900"
        config.train.update(
            batch_size=BATCHES[size], steps_per_dispatch=10 if size == "tiny" else 1
        )
        arms[name] = Arm(config, rounds)
    for _ in range(rounds):
        for arm in arms.values():
            arm.run()
    none = statistics.median(arms["none"].seconds)
    return [
        {
            "what": f"step of {size}, batch {BATCHES[size]}",
            "conditioning": name,
            "seconds": round(statistics.median(arm.seconds), 4),
            "over_unconditional": round(statistics.median(arm.seconds) / none, 4),
        }
        for name, arm in arms.items()
    ]


def time_prompts(count=64):
    """Return a row of the seconds that the text encoder takes for one of many prompts."""
    encoder, times = text_encoders.load("minilm"), []
    encoder.encode([PROMPT.format("")] * count, 32)  # compiles
    for take in range(5):
        start = time.perf_counter()
        encoder.encode([PROMPT.format(100 * take + k) for k in range(count)], 32)
        times.append((time.perf_counter() - start) / count)
    return [
        {
            "what": f"one of {count} prompts",
            "conditioning": "minilm",
            "seconds": round(min(times), 5),
        }
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"], choices=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    rows = time_prompts()
    for size in args.sizes:
        rows += time_steps(size, args.rounds if size == "tiny" else max(3, args.rounds // 3))
    write_csv(RESULTS / "performance" / "condition_cost.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
