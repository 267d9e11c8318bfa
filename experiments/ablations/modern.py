"""Compare models of the size of base: equal minutes on the same songs and spectrogram.

    python -m experiments.ablations.modern [--minutes 4] [--names base patch_64x8 ...]
        [--source songbook:900]
    python -m experiments.ablations.modern --frames 1024 --batch 16     # a GPU, bfloat16

Every candidate has the parameters of base within 2 % and at most its FLOPs. A CPU cannot train
8192 tokens, so crops there are an eighth as long (128 frames), which favors base: its attention
costs an eighth, too. The script measures the time of a step first, then trains as many steps as
fit and decays the learning rate over them. Writes the rows of this device to
results/ablations/modern.csv.
"""

import argparse
import json
import pathlib
import shutil

import jax

from configs import base, modern
from experiments.ablations.arm import evaluate
from experiments.lib.tables import RESULTS, write_device_rows
from specdiff_jax.config import build
from specdiff_jax.data import prepare
from specdiff_jax.models.dit import count_flops
from specdiff_jax.sampling import check_config
from specdiff_jax.training import diffusion_job, preflight, train

RUNS = pathlib.Path(__file__).parents[2] / "runs" / "modern"
EVERY = 10

# Changes of configs/modern.py's model; "base" is configs/base.py as it is.
CANDIDATES = {
    "base": None,
    "patch_16x8": {"patch": (16, 8), "width": 264, "heads": 6},
    "patch_32x8": {"patch": (32, 8), "width": 264, "heads": 6},
    "patch_64x8": {},
    "whole_frames": {"patch": (512, 4), "width": 248, "depth": 3},
}


def config_of(name):
    """Return the full-length config of a candidate."""
    config = base.get_config() if name == "base" else modern.get_config()
    if name != "base":
        config.model.update(CANDIDATES[name])
    config.name, config.workdir = name, str(RUNS / name)
    return config


def shorten(config, frames, batch):
    """Return the config with crops of `frames` frames and frequent dispatches."""
    config.representation.frames = frames
    config.optimizer.ema_decay = 0.99
    config.valid.update(crops=64, baseline_crops=256)
    config.train.update(num_epochs=None, steps_per_dispatch=EVERY, batch_size=batch)
    config.train.update(num_steps=EVERY, eval_every=EVERY, checkpoint_every=EVERY)
    return config


def measure(name, minutes, frames, batch, source):
    """Train one candidate for some minutes, and return its row."""
    whole = config_of(name)
    whole.data.source = source
    full_length = build.model(whole, build.representation(whole).shape)
    config = shorten(whole, frames, batch)
    shutil.rmtree(config.workdir, ignore_errors=True)
    prepare.run(config)
    facts = preflight.measure(diffusion_job.DiffusionJob(config))
    steps = max(1, round(60 * minutes / facts["seconds_a_step"] / EVERY)) * EVERY
    config.train.update(num_steps=steps, eval_every=steps, checkpoint_every=steps)
    check_config.check(config)
    train.run(config)
    row = {"device": jax.devices()[0].device_kind, "name": name, "minutes": minutes}
    row |= {"frames": frames, "batch": batch, "dtype": full_length.dtype, "steps": steps}
    row |= {"parameters": facts["parameters"], "seconds_per_step": facts["seconds_a_step"]}
    row |= {"full_length_forward_gflop": sum(count_flops(full_length)) / 1e9}
    return row | evaluate(config) | {"songs": source}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--names", nargs="+", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--source", default=base.get_config().data.source)
    args = parser.parse_args()
    rows = []
    for name in args.names:
        row = measure(name, args.minutes, args.frames, args.batch, args.source)
        row.pop("x0_error_by_log_snr")
        rows.append({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()})
        print(json.dumps(rows[-1]), flush=True)
        write_device_rows(RESULTS / "ablations" / "modern.csv", rows)


if __name__ == "__main__":
    main()
