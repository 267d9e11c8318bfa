"""Can one see where the windows of a long clip meet? Change from frame to frame, there or not.

    python -m experiments.seams runs/tiny [--seconds 60] [--clips 4]

Clips are made of windows that do not overlap, overlap by half, and by three quarters; the waves are
encoded again and |x_0[t + 1] - x_0[t]|^2 averaged at the frames where a window begins or ends, and
at all others. A ratio of one is no seam. Writes results/seams.csv.
"""

import argparse
import pathlib

import jax
import numpy as np

from experiments.ablations import interval
from experiments.tables import RESULTS, write_csv
from specdiff_jax import sample, sampling
from specdiff_jax.diffusion.editing import window_starts

OVERLAPS = (0.0, 0.5, 0.75)


def changes(rep, wave):
    """Mean squared change of x_0 from each frame to the next.  # [B, N] -> [B, T - 1]"""
    x_0 = np.asarray(jax.jit(rep.encode)(wave))
    return np.mean(np.diff(x_0, axis=2) ** 2, axis=(1, 3))


def ratios(change, starts, frames):
    """Each clip's mean change at borders over that elsewhere.  # [B]"""
    borders = {edge - 1 for start in starts for edge in (start, start + frames)}
    at = np.zeros(change.shape[1], bool)
    at[[b for b in borders if 0 <= b < change.shape[1]]] = True
    return change[:, at].mean(axis=1) / change[:, ~at].mean(axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--evaluations", type=int, default=50)
    args = parser.parse_args()
    trained = sample.load(args.workdir)
    config, rep = trained.config, trained.rep
    config.sample.update(seconds=args.seconds, batch_size=args.clips, extend="windows")
    config.sample.steps = args.evaluations
    rep_out, rows = sample.longer(trained), []
    for overlap in OVERLAPS:
        config.sample.overlap = overlap
        waves = sample.generator(trained, rep_out)([(sample.NOTHING, k) for k in range(args.clips)])
        starts = window_starts(rep_out.frames, rep.frames, sampling.window_hop(config))
        mean, half = interval(ratios(changes(rep_out, pad(waves, rep_out)), starts, rep.frames))
        rows.append({"overlap": overlap, "windows": len(starts), "clips": args.clips})
        rows[-1] |= {"border_over_inside": round(mean, 4), "half": round(half, 4)}
        print(rows[-1], flush=True)
    write_csv(RESULTS / "seams.csv", rows)


def pad(waves, rep):
    """As long as the representation's clips.  # [B, N]"""
    return np.pad(waves, ((0, 0), (0, rep.samples - waves.shape[1])))


if __name__ == "__main__":
    main()
