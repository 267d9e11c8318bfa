"""Measure the share of crop, STFT and noise in a training step; the target is at most 5 %.

    python -m experiments.performance.front_end [--config base tiny] [--batch 1]

Compares the jitted front end (int16 songs -> x_t) with the whole step, in measured seconds and in
counted FLOPs, and writes results/performance/front_end.csv.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from experiments.lib.stopwatch import time_fastest
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data import feeding, prepare
from specdiff_jax.diffusion.schedules import q_sample
from specdiff_jax.models.dit import count_flops
from specdiff_jax.training.diffusion_job import DiffusionJob


def make_front_end(job, pcm):
    """Return the jitted offsets -> x_t of one batch."""

    @jax.jit
    def run(offsets):
        crops = crops_module.pcm_to_wave(feeding.slice_crops(pcm, offsets, job.rep.samples))
        x_0 = job.rep.encode(crops)
        eps = jax.random.normal(jax.random.key(0), x_0.shape)
        t = jnp.linspace(0.1, 0.9, len(offsets))
        return q_sample(job.schedule, x_0, t, eps)

    return run


def stft_flops(rep):
    """Return the FLOPs of one STFT: 2.5 n log2 n a real transform, and the window."""
    return rep.frames * (2.5 * rep.n_fft * math.log2(rep.n_fft) + rep.n_fft)


def measure(size, batch, repeats):
    """Return the row of one config."""
    config = base.get_config(size)
    config.train.update(batch_size=batch, steps_per_dispatch=1)
    prepare.run(config)
    job = DiffusionJob(config)
    job.fit_representation()
    resident, batches = job.feed([(0, 1)])
    batch = next(batches)
    front = make_front_end(job, resident[0])
    part = time_fastest(lambda: jax.block_until_ready(front(batch.sound[0])), 1 + 5)
    train_step, holder = job.train_step(), [job.init()]

    def step():
        steps = np.array([int(holder[0].step)], np.int32)
        holder[0], metrics = train_step(holder[0], resident, steps, batch)
        jax.block_until_ready(metrics)

    whole = time_fastest(step, 1 + repeats)
    m = job.model
    flops = 3 * sum(count_flops(m))
    return {
        "config": size,
        "batch": batch,
        "front_end_s": round(part, 4),
        "step_s": round(whole, 4),
        "measured_share": round(part / whole, 4),
        "stft_gflop": round(stft_flops(job.rep) / 1e9, 4),
        "training_gflop": round(flops / 1e9, 2),
        "counted_share": round(stft_flops(job.rep) / flops, 6),
        "device": jax.devices()[0].device_kind,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["tiny", "base"], help="base and tiny")
    parser.add_argument("--batch", type=int, help="1 for base and 16 for tiny where unset")
    args = parser.parse_args()
    rows = []
    for size in args.config:
        rows.append(measure(size, args.batch or (16 if size == "tiny" else 1), 2))
        print(rows[-1], flush=True)
    write_csv(RESULTS / "performance" / "front_end.csv", rows)


if __name__ == "__main__":
    main()
