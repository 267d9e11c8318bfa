"""Can one see or hear where the windows of a long clip meet?

    python -m experiments.generation.seams runs/tiny [--seconds 60] [--clips 4] [--evaluations N]

Windows that do not overlap, overlap by half, by three quarters. Two ratios, each of the frames
where a window begins or ends over all others; one is no seam:

change   |x_0[t + 1] - x_0[t]|^2 of clips made from noise, their waves encoded again;
error    |x_0 - D(x_t)|^2 of held-out songs of 24 s under noise, at t = 0.2, 0.5 and 0.8.

Writes results/seams.csv.
"""

import argparse
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.ablations.__main__ import interval
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.conditioning import prompts
from specdiff_jax.config import build
from specdiff_jax.data import crops
from specdiff_jax.diffusion.editing import denoise_windows, window_starts
from specdiff_jax.diffusion.schedules import q_sample
from specdiff_jax.sampling import generator, options
from specdiff_jax.training import diffusion_job, trained_model

OVERLAPS, LEVELS, SONG_SECONDS, SONGS = (0.0, 0.5, 0.75), (0.2, 0.5, 0.8), 24.0, 32


def borders(length, frames, hop):
    """Frames before which a window of a long clip begins or ends, its own ends aside."""
    starts = window_starts(length, frames, hop)
    edges = {edge for start in starts for edge in (start, start + frames)}
    return np.array(sorted(edges - {0, length}))


def ratios(by_frame, there):
    """Each clip's mean at the frames `there` over its mean at all others.  # [B, T] -> [B]"""
    at = np.zeros(by_frame.shape[1], bool)
    at[there] = True
    return by_frame[:, at].mean(axis=1) / by_frame[:, ~at].mean(axis=1)


def changes(rep, waves):
    """Mean squared change of x_0 to each frame from the one before.  # [B, N] -> [B, T]"""
    padded = np.pad(waves, ((0, 0), (0, rep.samples - waves.shape[1])))
    x_0 = np.asarray(jax.jit(rep.encode)(padded))
    change = np.mean(np.diff(x_0, axis=2) ** 2, axis=(1, 3))  # [B, T - 1], to frame 1, 2, ...
    return np.concatenate([change[:, :1], change], axis=1)


def errors(config, rep, params, x_0, hop):
    """Mean squared error of the windowed denoiser over LEVELS.  # [B, F, T, C] -> [B, T]"""
    schedule, model = build.schedule(config), build.model(config, rep.shape)
    eps = jax.random.normal(jax.random.key(0), x_0.shape)

    @jax.jit
    def of_level(t):
        t = jnp.full(len(x_0), t)
        denoise = build.denoiser(config, model, params, schedule)
        denoise = denoise_windows(denoise, schedule, rep.frames, hop)
        found, _ = denoise(q_sample(schedule, x_0, t, eps), t)
        return jnp.mean((found - x_0) ** 2, axis=(1, 3))

    return np.mean([np.asarray(of_level(level)) for level in LEVELS], axis=0)


def measured(trained, rep_out, songs):
    """One row, of the overlap that the config says."""
    config, rep, params = trained.config, trained.rep, trained.params
    hop, clips = options.window_hop(config), config.sample.batch_size
    waves = generator.Generator(trained, rep_out)(
        [(prompts.UNCONDITIONAL, k) for k in range(clips)]
    )
    seen = borders(rep_out.frames, rep.frames, hop)
    known = borders(songs.shape[2], rep.frames, hop)
    change = ratios(changes(rep_out, waves), seen)
    error = ratios(errors(config, rep, params, songs, hop), np.concatenate([known - 1, known]))
    row = {"overlap": config.sample.window_overlap, "borders": len(seen), "clips": clips}
    row |= {"songs": len(songs), "evaluations": config.sample.nfe}
    for name, values in (("change", change), ("error", error)):
        row[name], row[f"{name}_half"] = (round(value, 4) for value in interval(values))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--evaluations", type=int, help="the run's own where not given")
    args = parser.parse_args()
    trained = trained_model.load(args.workdir)
    config, rep = trained.config, trained.rep
    config.sample.update(seconds=args.seconds, batch_size=args.clips, long_form="windows")
    config.sample.nfe = args.evaluations or config.sample.nfe
    rep_out = generator.lengthen(trained.config, trained.rep)
    song = dataclasses.replace(rep, frames=rep.frames_for(SONG_SECONDS, config.model.patch[1]))
    waves = crops.read_fixed_waves(diffusion_job.DiffusionJob(config).valid_songs, song, SONGS)
    songs, rows = jax.jit(song.encode)(waves), []
    for overlap in OVERLAPS:
        config.sample.window_overlap = overlap
        rows.append(measured(trained, rep_out, songs))
        print(rows[-1], flush=True)
    write_csv(RESULTS / "generation" / "seams.csv", rows)


if __name__ == "__main__":
    main()
