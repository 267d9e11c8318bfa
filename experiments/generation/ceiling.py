"""Measure the ceiling of every representation: round trips of held-out music without a model.

    python -m experiments.generation.ceiling [--clips 30]

Writes results/generation/ceiling.csv: signal-to-noise ratio and log-spectral distance with a 95 %
interval over clips. No model on top of a representation can score better.
"""

import argparse

import numpy as np

from configs import base
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.audio import representation as representations
from specdiff_jax.config import build
from specdiff_jax.data import prepare, songs
from specdiff_jax.data.crops import read_fixed_waves
from specdiff_jax.evaluation import ceiling

LOG = {"power": None, "floor_db": -80.0}
KINDS = {
    "complex": {},
    "polar": LOG | {"griffin_lim_iters": 8},
    "log_magnitude": LOG | {"griffin_lim_iters": 60},
    "log_mel": LOG | {"griffin_lim_iters": 60, "n_mels": 128},
}


def measure(kind, clips):
    """Return a row: mean and half-width of the 95 % interval of both distances, for one kind."""
    config = base.get_config()
    config.representation.frames = 256
    config.representation.update(kind=kind, **KINDS[kind])
    prepare.run(config)
    rep, cache = build.representation(config), prepare.locate_cache(config)
    train = songs.load_songs(cache, "train", rep.samples)
    rep = representations.fit(rep, read_fixed_waves(train, rep.samples, 128))
    held_out = songs.load_songs(cache, "valid", rep.samples)
    _, waves = ceiling.read_held_out_clips(held_out, rep.samples, clips)
    _, snr, distance = ceiling.measure_round_trip(rep, waves)
    row = {"representation": kind, "clips": len(waves)}
    for name, values in (("snr_db", snr), ("log_spectral_distance_db", distance)):
        row[name] = round(float(np.mean(values)), 3)
        row[name + "_ci95"] = round(1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5, 3)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=30, help="held-out songs, one clip each")
    clips = parser.parse_args().clips
    rows = []
    for kind in KINDS:
        rows.append(measure(kind, clips))
        print(rows[-1], flush=True)
    write_csv(RESULTS / "generation" / "ceiling.csv", rows)


if __name__ == "__main__":
    main()
