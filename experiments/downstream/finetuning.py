"""Measure the value of a pretrained model for ten songs of a kind outside its training data.

    python -m experiments.downstream.finetuning [--pretrain 1500] [--steps 300] [--songs 10]
        [--seeds 0 1 2]
        [--clips 256]

Trains configs/base.py:tiny on the songbook without organ and flute, then on ten organ pieces: all
parameters, the last block, LoRA, and from scratch, at equal steps and the best of RATES each,
chosen on the validation songs. Writes results/downstream/finetuning.csv (a row for each way, seed
and step) and figures/finetuning.png. The error is that of the organ pieces of the validation split,
over that of the best linear denoiser of a patch, because scratch standardizes by the ten pieces and
the others by the pretraining songs. Every CHECKPOINT_EVERY steps --clips clips of the first seed
are sampled from the same noise. Their FAD by musicnn is taken to all organ pieces outside the
training data (the bias of few clips is equal for all ways).
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from configs import base, finetune
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.conditioning import prompts
from specdiff_jax.data import crops, prepare
from specdiff_jax.data.songs import take_songs
from specdiff_jax.evaluation import embedders
from specdiff_jax.evaluation.embedders import embedder
from specdiff_jax.evaluation.metrics import frechet
from specdiff_jax.sampling import generator
from specdiff_jax.training import checkpoints, finetuning, train, trained_model
from specdiff_jax.training.diffusion_job import DiffusionJob

RUNS = pathlib.Path(__file__).parents[2] / "runs" / "finetuning"
ORGAN = "church organ, reed organ"
EXCLUDED = ORGAN + ", flute"
EVAL_EVERY = 20  # steps
CHECKPOINT_EVERY = 100  # steps
BATCH, NFE = 32, 10  # of sampling
WAYS = ("scratch", "full", "last_blocks", "lora")
RATES = {
    "scratch": (3e-3, 1e-3),
    "full": (1e-3, 3e-4),
    "last_blocks": (1e-3, 3e-4),
    "lora": (3e-3, 1e-3),
}


def pretrain(steps):
    """Train once on all songs without organ and flute, and return the workdir."""
    config = base.get_config("tiny")
    config.workdir = str(RUNS / f"pretrained_{steps}")
    config.data.exclude_labels = EXCLUDED
    config.train.update(num_steps=steps, eval_every=steps, checkpoint_every=steps)
    prepare.run(config)
    train.run(config)
    return config.workdir


def make_config(way, pretrained, rate, seed, args):
    """Return the config of one way."""
    config = base.get_config("tiny") if way == "scratch" else finetune.get_config(f"tiny,{way}")
    config.workdir = str(RUNS / f"{way}_{rate:g}_{seed}_{args.steps}")
    config.seed = seed
    if way != "scratch":
        config.finetune.init_from = pretrained
    config.data.update(include_labels=ORGAN, max_songs=args.songs)
    config.optimizer.update(learning_rate=rate, warmup_steps=20)
    config.valid.crops = 64
    config.train.update(num_steps=args.steps, eval_every=EVAL_EVERY)
    config.train.update(
        checkpoint_every=CHECKPOINT_EVERY, max_to_keep=args.steps // CHECKPOINT_EVERY + 1
    )
    return config


def train_arm(config, way, rate, seed):
    """Train one arm, and return the rows of its validations."""
    start = time.perf_counter()
    train.run(config)
    seconds = time.perf_counter() - start
    state = jax.eval_shape(DiffusionJob(config).init)
    trainable = jax.tree.leaves(finetuning.trainable(config, state.params))
    sizes = [x.size for x in jax.tree.leaves(state.params)]
    row = {"way": way, "learning_rate": rate, "seed": seed, "seconds": round(seconds, 1)}
    row["trainable_parameters"] = sum(n for n, own in zip(sizes, trainable, strict=True) if own)
    row["state_mb"] = round(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / 1e6, 1)
    workdir = pathlib.Path(config.workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    health = json.loads((workdir / "health.json").read_text())
    linear = np.mean(health["baselines"]["linear_patch"])
    errors = [(line["step"], line["x0_error"]) for line in lines if line["kind"] == "valid"]
    return [
        row
        | {"step": step, "x0_error": round(error, 5), "over_linear_patch": round(error / linear, 4)}
        for step, error in errors
    ]


def embed_held_out(config, musicnn):
    """Return the embeddings of all organ pieces outside the training songs.  # [M, d]"""
    job, waves = DiffusionJob(config), []
    training = {entry["name"] for entry in job.songs.entries}
    config = config.copy_and_resolve_references()
    config.data.max_songs = None
    for split in ("train", "valid", "test"):
        songs = prepare.load_split(config, split, job.rep.samples)
        songs = take_songs(songs, np.array([e["name"] not in training for e in songs.entries]))
        count = int(songs.lengths.min() // job.rep.samples)
        pieces = crops.pcm_to_wave(crops.read_spread_crops(songs, job.rep.samples, count))
        waves.append(pieces.reshape(-1, pieces.shape[-1]))
    return embedder.embed_clips(musicnn, np.concatenate(waves), job.rep.sample_rate)[:, 0]


def measure_fad(workdir, real, musicnn, clips):
    """Return {step: FAD, with its interval, of clips of each checkpoint}."""
    results = {}
    for step in checkpoints.steps(workdir):
        model = trained_model.load(workdir, step)
        model.config.sample.update(batch_size=BATCH, seed=0, nfe=NFE)
        sample = generator.Generator(model, model.rep)
        batches = generator.split_batches([(prompts.UNCONDITIONAL, k) for k in clips], BATCH)
        parts = [sample(batch) for batch in batches]
        embeddings = embedder.embed_clips(musicnn, np.concatenate(parts), model.rep.sample_rate)[
            :, 0
        ]
        results[step] = frechet.fad(embeddings, real)
        print(f"{workdir}, step {step}: {results[step]}", flush=True)
    return results


def select_best(rows):
    """Return the rows of the learning rate with the lowest last error."""
    rate = min((r for r in rows), key=lambda r: (-r["step"], r["x0_error"]))["learning_rate"]
    return [row for row in rows if row["learning_rate"] == rate]


def draw(rows):
    """Write the figure: x_0 error and FAD against steps."""
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, fad_axes = figure.subplots(1, 2)
    for number, way in enumerate(WAYS):
        at = [row for row in rows if row["way"] == way and "fad" in row]
        ends = [[row["fad"] - row["fad_low"], row["fad_high"] - row["fad"]] for row in at]
        fad_axes.errorbar(
            [row["step"] + 2 * number for row in at],
            [row["fad"] for row in at],
            np.array(ends).T if at else None,
            color=f"C{number}",
            capsize=2,
        )
        for seed in sorted({row["seed"] for row in rows}):
            curve = [row for row in rows if (row["way"], row["seed"]) == (way, seed)]
            label = way.replace("_", " ") if seed == 0 else None
            axes.plot(
                [r["step"] for r in curve],
                [r["over_linear_patch"] for r in curve],
                label=label,
                color=f"C{number}",
            )
    axes.set(
        xlabel="steps on ten organ pieces", ylabel="x₀ error over the linear denoiser of a patch"
    )
    axes.legend()
    fad_axes.set(xlabel="steps", ylabel="FAD to held-out organ pieces (musicnn)")
    figure.savefig(RESULTS.parent / "figures" / "finetuning.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--songs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=256, help="clips of each checkpoint")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(RUNS / "xla"))
    pretrained, rows = pretrain(args.pretrain), []
    musicnn, real = embedders.load_embedder("musicnn"), None
    for way in WAYS:
        first = args.seeds[0]
        candidates = [
            row
            for rate in RATES[way]
            for row in train_arm(make_config(way, pretrained, rate, first, args), way, rate, first)
        ]
        rows += (best := select_best(candidates))
        rate = best[0]["learning_rate"]
        for seed in args.seeds[1:]:
            rows += train_arm(make_config(way, pretrained, rate, seed, args), way, rate, seed)
        config = make_config(way, pretrained, rate, first, args)
        real = embed_held_out(config, musicnn) if real is None else real
        scores = measure_fad(config.workdir, real, musicnn, range(args.clips))
        for row in best:
            if fad := scores.get(row["step"]):
                row |= {"fad": fad.value, "fad_low": fad.low, "fad_high": fad.high}
        write_csv(RESULTS / "downstream" / "finetuning.csv", rows)
    draw(rows)
    for way in WAYS:
        last = [row for row in rows if row["way"] == way and row["step"] == args.steps]
        print(
            way,
            [row["over_linear_patch"] for row in last],
            last[0]["trainable_parameters"],
            last[0]["state_mb"],
        )


if __name__ == "__main__":
    main()
