"""Train one arm of an ablation, measure it at common noise levels, sample from common noise.

    python -m experiments.ablations.arm NAME --size tiny --seed 0 --steps 600 --workdir DIR

Arms differ in schedule, prediction and representation, so errors are compared at the same
log_snr, on the same held-out crops. DIR/row.json is written last.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from configs import ablations
from specdiff_jax.config import build
from specdiff_jax.data import crops, prepare
from specdiff_jax.diffusion import linear_denoisers, losses, schedules
from specdiff_jax.models.dit import count_flops
from specdiff_jax.sampling import check_config, sample
from specdiff_jax.training import checkpoints, diffusion_job, train

LOG_SNRS = np.linspace(-6.0, 6.0, 13)  # from 0.05 to 0.95 on the cosine schedule


def config_of(name, size, seed, steps, workdir):
    """Return the config of the arm, its steps scaled to the compute of the control."""
    config, control = (ablations.get_config(f"{n}:{size}") for n in (name, "control"))
    work = [
        sum(count_flops(build.model(c, build.representation(c).shape))) for c in (config, control)
    ]
    every = config.train.steps_per_dispatch
    steps = max(1, round(steps * work[1] / work[0] / every)) * every
    config.update(seed=seed, workdir=str(workdir))
    config.train.update(num_steps=steps, num_epochs=None, eval_every=steps, checkpoint_every=steps)
    config.sample.update(
        num_samples=4, batch_size=4, sampler="dpmpp_2m", time_grid="log_snr", nfe=20, eta=0.0
    )
    check_config.check(config)
    return config


def evaluate(config):
    """Return x_0 error and variational bound of the EMA, and the error over a linear denoiser's."""
    job = diffusion_job.DiffusionJob(config)
    state = job.restore(checkpoints.require_step(config.workdir))
    waves = crops.read_fixed_waves(job.valid_songs, job.rep.samples, config.valid.crops)
    batches = waves[: len(waves) // 16 * 16].reshape(-1, 16, *waves.shape[1:])

    @jax.jit
    def measure(params, wave, key):
        denoise = job.denoiser(params).denoise
        levels, x_0 = (
            schedules.invert_log_snr(job.schedule, jnp.asarray(LOG_SNRS)),
            job.rep.encode(wave),
        )
        return (
            losses.x0_error_by_level(denoise, x_0, levels, job.schedule, key),
            losses.variational_bound(denoise, x_0, job.schedule, key, points=32, max_log_snr=6.0),
        )

    keys = jax.random.split(jax.random.key(7), len(batches))
    pairs = [measure(state.ema_params, wave, key) for wave, key in zip(batches, keys, strict=True)]
    by_level, bound = (np.mean([np.asarray(p[i]) for p in pairs], axis=0) for i in (0, 1))
    train_x0 = job.encode_crops(job.songs, config.valid.baseline_crops)
    valid_x0 = job.encode_crops(job.valid_songs, config.valid.crops)
    fitted = linear_denoisers.fit(train_x0, job.model.patch)
    moments = linear_denoisers.measure_moments(fitted, valid_x0, job.model.patch)
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-LOG_SNRS))), np.sqrt(1 / (1 + np.exp(LOG_SNRS)))
    frame = [
        linear_denoisers.x0_error(fitted["linear_frame"][2], moments["linear_frame"], a, s)
        for a, s in zip(alpha, sigma, strict=True)
    ]
    return {
        "x0_error": float(by_level.mean()),
        "over_linear_frame": float(by_level.mean() / np.mean(frame)),
        "bound_nats": float(bound),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "x0_error_by_log_snr": by_level.tolist(),
    }


def training_seconds(config):
    """Return the seconds of all dispatches from the run's log, all parts of a resumed run."""
    lines = (pathlib.Path(config.workdir) / "metrics.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if r["kind"] == "train"]
    return config.train.steps_per_dispatch * sum(1 / r["steps_per_second"] for r in records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(args.workdir.parent / "xla"))
    config = config_of(args.name, args.size, args.seed, args.steps, args.workdir)
    prepare.run(config)
    train.run(config)
    row = {"name": args.name, "size": args.size, "seed": args.seed, "requested_steps": args.steps}
    row |= {"steps": config.train.num_steps, "seconds": round(training_seconds(config), 1)}
    row |= evaluate(config)
    sample.run(config)
    (args.workdir / "row.json").write_text(json.dumps(row))


if __name__ == "__main__":
    main()
