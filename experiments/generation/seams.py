"""Measure seams where the windows of a long clip meet.

    python -m experiments.generation.seams runs/tiny [--seconds 60] [--clips 4] [--nfe N]

Windows overlap by nothing, by half, by three quarters. Two ratios compare the frames where a window
begins or ends with all others; 1 means no seam:

change   |x_0[t + 1] - x_0[t]|^2 of clips from noise, their waves encoded again;
error    |x_0 - D(x_t)|^2 of noisy held-out songs of 24 s, at t = 0.2, 0.5 and 0.8.

Writes results/generation/seams.csv.
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


def boundaries(length, frames, hop):
    """Return the frames before which a window begins or ends inside a long clip."""
    starts = window_starts(length, frames, hop)
    edges = {edge for start in starts for edge in (start, start + frames)}
    return np.array(sorted(edges - {0, length}))


def ratios(by_frame, frames):
    """Return each clip's mean at `frames` over its mean at all others.  # [B, T] -> [B]"""
    at = np.zeros(by_frame.shape[1], bool)
    at[frames] = True
    return by_frame[:, at].mean(axis=1) / by_frame[:, ~at].mean(axis=1)


def changes(rep, waves):
    """Return the mean squared change of x_0 from frame to frame.  # [B, N] -> [B, T]"""
    padded = np.pad(waves, ((0, 0), (0, rep.samples - waves.shape[1])))
    x_0 = np.asarray(jax.jit(rep.encode)(padded))
    change = np.mean(np.diff(x_0, axis=2) ** 2, axis=(1, 3))  # [B, T - 1], to frame 1, 2, ...
    return np.concatenate([change[:, :1], change], axis=1)


def errors(config, rep, params, x_0, hop):
    """Return the error of the windowed denoiser, mean over LEVELS.  # [B, F, T, C] -> [B, T]"""
    schedule, model = build.schedule(config), build.model(config, rep.shape)
    eps = jax.random.normal(jax.random.key(0), x_0.shape)

    @jax.jit
    def of_level(t):
        t = jnp.full(len(x_0), t)
        denoise = build.denoiser(config, model, params, schedule).denoise
        denoise = denoise_windows(denoise, schedule, rep.frames, hop)
        predictions, _ = denoise(q_sample(schedule, x_0, t, eps), t)
        return jnp.mean((predictions - x_0) ** 2, axis=(1, 3))

    return np.mean([np.asarray(of_level(level)) for level in LEVELS], axis=0)


def measure(model, rep_out, songs):
    """Return the row of the configured overlap."""
    config, rep, params = model.config, model.rep, model.params
    hop, clips = options.window_hop(config), config.sample.batch_size
    waves = generator.Generator(model, rep_out)([(prompts.UNCONDITIONAL, k) for k in range(clips)])
    generated_at = boundaries(rep_out.frames, rep.frames, hop)
    songs_at = boundaries(songs.shape[2], rep.frames, hop)
    change = ratios(changes(rep_out, waves), generated_at)
    error = ratios(
        errors(config, rep, params, songs, hop), np.concatenate([songs_at - 1, songs_at])
    )
    row = {"overlap": config.sample.window_overlap, "boundaries": len(generated_at), "clips": clips}
    row |= {"songs": len(songs), "nfe": config.sample.nfe}
    for name, values in (("change", change), ("error", error)):
        row[name], row[f"{name}_half"] = (round(value, 4) for value in interval(values))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--nfe", type=int, help="of the run where unset")
    args = parser.parse_args()
    model = trained_model.load(args.workdir)
    config, rep = model.config, model.rep
    config.sample.update(seconds=args.seconds, batch_size=args.clips, long_form="windows")
    config.sample.nfe = args.nfe or config.sample.nfe
    rep_out = generator.lengthen(config, rep)
    song = dataclasses.replace(rep, frames=rep.frames_for(SONG_SECONDS, config.model.patch[1]))
    waves = crops.read_fixed_waves(
        diffusion_job.DiffusionJob(config).valid_songs, song.samples, SONGS
    )
    songs, rows = jax.jit(song.encode)(waves), []
    for overlap in OVERLAPS:
        config.sample.window_overlap = overlap
        rows.append(measure(model, rep_out, songs))
        print(rows[-1], flush=True)
    write_csv(RESULTS / "generation" / "seams.csv", rows)


if __name__ == "__main__":
    main()
