"""Which sampler, on which grid, with how many evaluations? On a trained model, beside real music.

    python -m experiments.generation.samplers runs/tiny [--clips 128] [--nfe 5 10 20 50]

The score is the Fréchet distance between Gaussians of short excerpts (all bands, four frames) in
their first 32 principal components, held-out music against generated; its interval is a bootstrap
over clips. `real` is training music against held-out music, the floor for generated clips. Writes
results/generation/samplers.csv and figures/samplers.png.
"""

import argparse
import pathlib
import time

import jax
import numpy as np
import tqdm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.config import build
from specdiff_jax.diffusion import linear_denoisers, samplers
from specdiff_jax.evaluation.metrics.bootstrap import percentile_interval
from specdiff_jax.sampling import generator, options
from specdiff_jax.training import diffusion_job, trained_model

FRAMES, COMPONENTS, BATCH, RESAMPLES = 4, 32, 16, 200
ARMS = [
    ("ddpm", "uniform"),
    ("ddim", "uniform"),
    ("ddim", "aligned"),
    ("euler", "uniform"),
    ("heun", "karras"),
    ("dpmpp_2m", "log_snr"),
    ("dpmpp_2m", "karras"),
    ("dpmpp_2m", "aligned"),
    ("dpmpp_2m_sde", "log_snr"),
    ("unipc", "aligned"),
]


def moments(x_0, axes):
    """Return means over excerpts and of their products.  # [B, F, T, C] -> [B, K], [B, K, K]"""
    cut = linear_denoisers.group_by_patch(x_0, (x_0.shape[1], FRAMES))[0]  # [B * T / FRAMES, d]
    vectors = (cut.astype(np.float64) @ axes).reshape(len(x_0), -1, axes.shape[1])
    return vectors.mean(axis=1), np.einsum("bni,bnj->bij", vectors, vectors) / vectors.shape[1]


def gaussian(first, second):
    """Return mean [K] and covariance [K, K] of all clips from their moments."""
    mean = first.mean(axis=0)
    return mean, second.mean(axis=0) - np.outer(mean, mean)


def frechet(a, b):
    """Return |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), by eigenvalues.

    Dowson & Landau 1982.
    """
    values, vectors = np.linalg.eigh(a[1])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b[1] @ root), 0)).sum()
    return float(np.sum((a[0] - b[0]) ** 2) + np.trace(a[1]) + np.trace(b[1]) - 2 * both)


def measure_distance(generated, real):
    """Return Fréchet distance and its 95 % interval from the moments of clips of both sets."""
    reference, rng, count = gaussian(*real), np.random.default_rng(0), len(generated[0])
    picks = [rng.integers(0, count, count) for _ in range(RESAMPLES)]
    values = [
        frechet(gaussian(generated[0][pick], generated[1][pick]), reference) for pick in picks
    ]
    # Resampled sets are farther away than the sample: remove that bias.
    value = frechet(gaussian(*generated), reference)
    interval, shift = percentile_interval(value, values), value - np.mean(values)
    low, high = interval.low + shift, interval.high + shift
    return {"frechet_distance": value, "low": max(low, 0.0), "high": high}


def generate(config, job, params, clips, curve):
    """Return x_0 of `clips` clips [M, F, T, C] by the configured sampler, and seconds per clip."""
    sampler = options.make_sampler(config, job.schedule)
    times = options.make_time_grid(config, job.schedule, curve)

    @jax.jit
    def program(params, keys):
        x_T = job.schedule.sigma(times[0]) * samplers.item_noise(keys, 0, job.rep.shape)
        denoise = build.denoiser(config, job.model, params, job.schedule).denoise
        return sampler(denoise, x_T, times, keys)

    batches, seconds = [], []
    for first in range(0, clips, BATCH):
        keys = samplers.item_keys(0, np.arange(first, first + BATCH))
        start = time.perf_counter()
        batches.append(np.asarray(program(params, keys)))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(batches), min(seconds) / BATCH


def draw(path, rows):
    """Write the figure of Fréchet distance against nfe."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, grid in dict.fromkeys((row["sampler"], row["time_grid"]) for row in rows):
        curve = [row for row in rows if (row["sampler"], row["time_grid"]) == (name, grid)]
        if name == "real":
            axes.axhline(
                curve[0]["frechet_distance"], color="#888", linestyle=":", label="real, training"
            )
            continue
        x, y = ([row[key] for row in curve] for key in ("nfe", "frechet_distance"))
        dash = {"uniform": "-", "log_snr": "--", "karras": "-.", "aligned": ":"}[grid]
        color = f"C{list(samplers.SAMPLERS).index(name)}"
        axes.plot(x, y, dash, color=color, marker="o", markersize=3, label=f"{name}, {grid}")
    axes.set(xscale="log", yscale="log", xlabel="nfe (network evaluations per clip)")
    axes.set_ylabel("Fréchet distance to held-out music")
    axes.set_xticks(ticks := sorted({r["nfe"] for r in rows} - {0}), map(str, ticks))
    axes.minorticks_off()
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20, 50])
    args = parser.parse_args()
    model = trained_model.load(args.workdir)
    config, rep, params = model.config, model.rep, model.params
    job = diffusion_job.DiffusionJob(config)
    job.rep = rep
    config.sample.time_grid = "aligned"
    curve = generator.read_curve(model)
    real = [
        np.concatenate(list(job.encode_crops(songs, 512))) for songs in (job.songs, job.valid_songs)
    ]
    vectors = linear_denoisers.group_by_patch(real[0], (rep.shape[0], FRAMES))[0]
    axes = np.linalg.eigh(np.cov(vectors.T))[1][:, -COMPONENTS:]
    train, held_out = (moments(x_0, axes) for x_0 in real)
    rows = [{"sampler": "real", "time_grid": "", "nfe": 0} | measure_distance(train, held_out)]
    jobs = [(*arm, count) for arm in ARMS for count in args.nfe]
    for name, grid, count in tqdm.tqdm(jobs, desc="samplers", unit="arm"):
        config.sample.update(sampler=name, time_grid=grid, nfe=count, eta=0.0, churn=0.0)
        x_0, seconds = generate(config, job, params, args.clips, curve)
        nfe = samplers.count_nfe(name, count)
        row = {"sampler": name, "time_grid": grid, "nfe": nfe, "clips": args.clips}
        rows.append(
            row | measure_distance(moments(x_0, axes), held_out) | {"seconds_per_clip": seconds}
        )
    rounded = lambda value: float(f"{value:.4g}") if isinstance(value, float) else value
    write_csv(
        RESULTS / "generation" / "samplers.csv",
        [{k: rounded(v) for k, v in r.items()} for r in rows],
    )
    draw(RESULTS.parent / "figures" / "samplers.png", rows)
    for count in args.nfe:
        best = min((r for r in rows if 0 < r["nfe"] <= count), key=lambda r: r["frechet_distance"])
        arm = f"{best['sampler']} on {best['time_grid']}"
        print(f"nfe at most {count}: {arm}, {best['frechet_distance']:.3f}")


if __name__ == "__main__":
    main()
