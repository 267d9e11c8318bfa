"""Measure the peak memory of the training step of base by remat, scan and gradient accumulation.

    python -m experiments.scaling.peak_memory [--batch 8] [--source songbook:60] [--rounds 0]
        [--at-once 1]
        [--unrolled] [--chip H200]

Compiles the step of configs/base.py and reads XLA's account of its memory; all rows compute the
same update. --rounds also times that many steps of each; a CPU takes a minute a round. --at-once:
programs that are compiled in parallel. --unrolled omits scans over blocks. --chip compiles for a
GPU without one (compile_for_gpu.py). Writes the rows of the device to
results/scaling/peak_memory.csv.
"""

import argparse
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax

from configs import base
from experiments.lib.stopwatch import time_fastest
from experiments.lib.tables import RESULTS, write_device_rows
from experiments.scaling import collectives, compile_for_gpu
from specdiff_jax.data import prepare
from specdiff_jax.models.blocks import REMATS
from specdiff_jax.runtime import roofline

ACCUMULATIONS = (1, 2, 8)  # micro-batches of the batch


def make_config(args, scan=False, remat="none", grad_accum_steps=1):
    """Return the config of one row."""
    config = base.get_config()
    config.data.source = args.source
    config.train.batch_size = args.batch
    config.model.update(scan=scan, remat=remat)
    config.optimizer.grad_accum_steps = grad_accum_steps
    return config


def compile_step(config, chip):
    """Return the step, and its arguments where it can be run."""
    if chip:
        return compile_for_gpu.compile_step(config, chip), None
    return collectives.compile_step(config)


def time_step(step, arguments, rounds):
    """Return the seconds of the fastest of some consecutive steps."""
    state, *others = arguments

    def run():
        nonlocal state
        state, metrics = step(state, *others)
        jax.block_until_ready(metrics)

    return round(time_fastest(run, rounds), 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--source", default="songbook:60", help="songs on the device")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--unrolled", action="store_true")
    parser.add_argument(
        "--chip", choices=compile_for_gpu.CHIPS, help="compile for this GPU and run nothing"
    )
    args = parser.parse_args()
    if args.chip and (args.rounds or args.at_once > 1):
        parser.error(
            "--chip runs nothing and compiles one at a time: remove --rounds and --at-once"
        )
    accumulations = [count for count in ACCUMULATIONS if args.batch % count == 0]
    prepare.run(make_config(args))
    kind = f"{args.chip}, compiled for" if args.chip else jax.devices()[0].device_kind
    scans = (False,) if args.unrolled else (False, True)
    combinations, rows = list(itertools.product(scans, REMATS, accumulations)), []
    with ThreadPoolExecutor(args.at_once) as pool:
        programs = pool.map(
            lambda one: compile_step(make_config(args, *one), args.chip), combinations
        )
        for (scan, remat, count), (step, arguments) in zip(combinations, programs, strict=True):
            row = {"device": kind, "batch": args.batch}
            row |= {"scan": scan, "remat": remat, "grad_accum_steps": count}
            row |= {"peak_gb": round(roofline.peak_bytes(step) / 1e9, 2)}
            if not args.chip:  # XLA counts no bytes for it
                row["moved_gb"] = round(roofline.count_bytes(step) / 1e9, 1)
            if args.rounds:
                row["seconds"] = time_step(step, arguments, args.rounds)
            rows.append(row)
            print(row, flush=True)
    write_device_rows(RESULTS / "scaling" / "peak_memory.csv", rows)


if __name__ == "__main__":
    main()
