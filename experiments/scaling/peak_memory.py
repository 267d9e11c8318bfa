"""What base's training step takes at its peak, by what is kept for the backward pass and at once.

    python -m experiments.scaling.peak_memory [--batch 8] [--source songbook:60] [--rounds 0]
        [--at-once 1]
        [--unrolled] [--chip H200]

Compiles the step of configs/base.py and reads XLA's own account of it; all rows compute the same
update. --rounds also runs each so often, for its seconds: a CPU takes a minute a round. --at-once:
programs compiled side by side. --unrolled leaves out scans over blocks. --chip compiles for a GPU
that need not be there (absent_gpu.py). Writes the rows of the device to results/peak_memory.csv.
"""

import argparse
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax

from configs import base
from experiments.lib.stopwatch import fastest
from experiments.lib.tables import RESULTS, write_of_device
from experiments.scaling import collectives, compile_for_gpu
from specdiff_jax.data import prepare
from specdiff_jax.models.blocks import REMATS
from specdiff_jax.runtime import roofline

CUTS = (1, 2, 8)  # micro-batches of the batch


def config_of(args, scan=False, remat="none", cuts=1):
    config = base.get_config()
    config.data.source = args.source
    config.train.batch_size = args.batch
    config.model.update(scan=scan, remat=remat)
    config.optimizer.grad_accum_steps = cuts
    return config


def compiled(config, chip):
    """The step, and the arguments it takes where it can be run."""
    return (compile_for_gpu.compiled(config, chip), None) if chip else collectives.compiled(config)


def seconds_of(step, arguments, rounds):
    """The fastest of some steps, each from the state that the last one left."""
    state, *others = arguments

    def run():
        nonlocal state
        state, metrics = step(state, *others)
        jax.block_until_ready(metrics)

    return round(fastest(run, rounds), 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--source", default="songbook:60", help="songs that the step draws from")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--unrolled", action="store_true")
    parser.add_argument("--chip", choices=compile_for_gpu.CHIPS, help="compile for it, run nothing")
    args = parser.parse_args()
    if args.chip and (args.rounds or args.at_once > 1):
        parser.error(
            "--chip runs nothing, and compiles one at a time: leave out --rounds, --at-once"
        )
    cuts = [count for count in CUTS if args.batch % count == 0]
    prepare.run(config_of(args))
    kind = f"{args.chip}, compiled for" if args.chip else jax.devices()[0].device_kind
    scans = (False,) if args.unrolled else (False, True)
    asked, rows = list(itertools.product(scans, REMATS, cuts)), []
    with ThreadPoolExecutor(args.at_once) as pool:
        made = pool.map(lambda one: compiled(config_of(args, *one), args.chip), asked)
        for (scan, remat, count), (step, arguments) in zip(asked, made, strict=True):
            row = {"device": kind, "batch": args.batch}
            row |= {"scan": scan, "remat": remat, "accumulate": count}
            row |= {"peak_gb": round(roofline.peak_bytes(step) / 1e9, 2)}
            if not args.chip:  # of which XLA counts no bytes
                row["moved_gb"] = round(roofline.bytes_moved(step) / 1e9, 1)
            if args.rounds:
                row["seconds"] = seconds_of(step, arguments, args.rounds)
            rows.append(row)
            print(row, flush=True)
    write_of_device(RESULTS / "scaling" / "peak_memory.csv", rows)


if __name__ == "__main__":
    main()
