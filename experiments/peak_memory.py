"""What base's training step takes at its peak, by what is kept for the backward pass and at once.

    python -m experiments.peak_memory [--batch 8]

Compiles the step of configs/base.py and reads XLA's own account of it; nothing is run. All rows
compute the same update. Writes results/peak_memory.csv.
"""

import argparse
import itertools

import jax

from configs import base
from experiments.collectives import compiled
from experiments.tables import RESULTS, write_csv
from specdiff_jax import prepare, roofline
from specdiff_jax.models.blocks import REMATS

CUTS = (1, 2, 8)  # micro-batches of the batch


def songs_config():
    config = base.get_config()
    config.data.source = "songbook:60"
    return config


def row_of(batch, scan, remat, accumulate):
    """One row, the songs on the device included: 60 of them."""
    config = songs_config()
    config.train.batch_size = batch
    config.model.update(scan=scan, remat=remat)
    config.optimizer.accumulate = accumulate
    step, _ = compiled(config)
    return {
        "device": jax.devices()[0].device_kind,
        "batch": batch,
        "scan": scan,
        "remat": remat,
        "accumulate": accumulate,
        "peak_gb": round(roofline.peak_bytes(step) / 1e9, 2),
        "moved_gb": round(roofline.bytes_moved(step) / 1e9, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    prepare.run(songs_config())
    rows = []
    for scan, remat, cuts in itertools.product((False, True), REMATS, CUTS):
        if args.batch % cuts == 0:
            rows.append(row_of(args.batch, scan, remat, cuts))
            print(rows[-1], flush=True)
    write_csv(RESULTS / "peak_memory.csv", rows)


if __name__ == "__main__":
    main()
