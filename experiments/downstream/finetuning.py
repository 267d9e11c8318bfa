"""What is a trained trunk worth to ten songs of a kind that it never heard?

    python -m experiments.downstream.finetuning [--pretrain 1500] [--steps 300] [--songs 10]
        [--seeds 0 1 2]
        [--clips 256]

Trains configs/base.py:tiny on the songbook without organ and flute, then on ten organ pieces: all
of it, its last block, by LoRA, and from scratch, at equal steps and at the best of RATES each,
chosen on the validation songs. Writes results/finetuning.csv (a row for each way, seed and step)
and figures/finetuning.png. The error is of the organ pieces of the validation split, over that of
the best linear denoiser of a patch: scratch standardises by the ten pieces, the others as they were
pretrained, so that errors alone have different units. Every KEPT steps so many --clips of the first
seed are sampled from the same noise, and their Fréchet distance by musicnn to all organ pieces but
the ten is taken: the trunk has heard none of them (few clips: its bias is in all ways alike).
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
WANTED = "church organ, reed organ"
KEPT_BACK = WANTED + ", flute"
EVERY = 20  # steps between validations
KEPT = 100  # between checkpoints
SAMPLED, EVALUATIONS = 32, 10  # clips at a time, and what each costs
WAYS = ("scratch", "full", "last_blocks", "lora")
RATES = {
    "scratch": (3e-3, 1e-3),
    "full": (1e-3, 3e-4),
    "last_blocks": (1e-3, 3e-4),
    "lora": (3e-3, 1e-3),
}


def pretrained(steps):
    """The run on everything else, trained once."""
    config = base.get_config("tiny")
    config.workdir = str(RUNS / f"pretrained_{steps}")
    config.data.exclude_labels = KEPT_BACK
    config.train.update(num_steps=steps, eval_every=steps, checkpoint_every=steps)
    prepare.run(config)
    train.run(config)
    return config.workdir


def arm(way, trunk, rate, seed, args):
    """The config of one way."""
    config = base.get_config("tiny") if way == "scratch" else finetune.get_config(f"tiny,{way}")
    config.workdir = str(RUNS / f"{way}_{rate:g}_{seed}_{args.steps}")
    config.seed = seed
    if way != "scratch":
        config.finetune.init_from = trunk
    config.data.update(include_labels=WANTED, max_songs=args.songs)
    config.optimizer.update(learning_rate=rate, warmup_steps=20)
    config.valid.crops = 64
    config.train.update(num_steps=args.steps, eval_every=EVERY)
    config.train.update(checkpoint_every=KEPT, max_to_keep=args.steps // KEPT + 1)
    return config


def trained(config, way, rate, seed):
    """Rows of the validations of one arm."""
    began = time.perf_counter()
    train.run(config)
    seconds = time.perf_counter() - began
    state = jax.eval_shape(DiffusionJob(config).init)
    learning = jax.tree.leaves(finetuning.trainable(config, state.params))
    sizes = [x.size for x in jax.tree.leaves(state.params)]
    about = {"way": way, "learning_rate": rate, "seed": seed, "seconds": round(seconds, 1)}
    about["learned"] = sum(n for n, learns in zip(sizes, learning, strict=True) if learns)
    about["state_mb"] = round(
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / 1e6, 1
    )
    workdir = pathlib.Path(config.workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    health = json.loads((workdir / "health.json").read_text())
    linear = np.mean(health["baselines"]["linear_patch"])
    found = [(line["step"], line["x0_error"]) for line in lines if line["kind"] == "valid"]
    return [
        about | {"step": step, "x0_error": round(error, 5), "of_patch": round(error / linear, 4)}
        for step, error in found
    ]


def held_out_sound(config, chosen):
    """What an embedder hears in all wanted pieces that are not learned from.  # [M, d]"""
    job, waves = DiffusionJob(config), []
    learned = {entry["name"] for entry in job.songs.entries}
    config = config.copy_and_resolve_references()
    config.data.max_songs = None
    for split in ("train", "valid", "test"):
        songs = prepare.load_split(config, split, job.rep.samples)
        songs = take_songs(songs, np.array([e["name"] not in learned for e in songs.entries]))
        count = int(songs.lengths.min() // job.rep.samples)
        pieces = crops.pcm_to_wave(crops.read_spread_crops(songs, job.rep.samples, count))
        waves.append(pieces.reshape(-1, pieces.shape[-1]))
    return embedder.embed_clips(chosen, np.concatenate(waves), job.rep.sample_rate)[:, 0]


def distances(workdir, real, chosen, clips):
    """{step: Fréchet distance, with its interval, of clips of each checkpoint}"""
    found = {}
    for step in checkpoints.steps(workdir):
        model = trained_model.load(workdir, step)
        model.config.sample.update(batch_size=SAMPLED, seed=0, nfe=EVALUATIONS)
        generate, asked = (
            generator.Generator(model, model.rep),
            [(prompts.UNCONDITIONAL, k) for k in clips],
        )
        parts = [generate(piece) for piece in generator.split_batches(asked, SAMPLED)]
        heard = embedder.embed_clips(chosen, np.concatenate(parts), model.rep.sample_rate)[:, 0]
        found[step] = frechet.fad(heard, real)
        print(f"{workdir}, step {step}: {found[step]}", flush=True)
    return found


def best_of(rows):
    """The rows of the learning rate that ends lowest."""
    rate = min((r for r in rows), key=lambda r: (-r["step"], r["x0_error"]))["learning_rate"]
    return [row for row in rows if row["learning_rate"] == rate]


def draw(rows):
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, sound = figure.subplots(1, 2)
    for number, way in enumerate(WAYS):
        at = [row for row in rows if row["way"] == way and "fad" in row]
        ends = [[row["fad"] - row["fad_low"], row["fad_high"] - row["fad"]] for row in at]
        sound.errorbar(
            [row["step"] + 2 * number for row in at],
            [row["fad"] for row in at],
            np.array(ends).T if at else None,
            color=f"C{number}",
            capsize=2,
        )
        for seed in sorted({row["seed"] for row in rows}):
            mine = [row for row in rows if (row["way"], row["seed"]) == (way, seed)]
            label = way.replace("_", " ") if seed == 0 else None
            axes.plot(
                [r["step"] for r in mine],
                [r["of_patch"] for r in mine],
                label=label,
                color=f"C{number}",
            )
    axes.set(xlabel="steps on ten organ pieces", ylabel="x₀ error over the linear denoiser's")
    axes.legend()
    sound.set(xlabel="steps", ylabel="Fréchet distance to held-out organ pieces")
    figure.savefig(RESULTS.parent / "figures" / "finetuning.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--songs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=256, help="sampled of each checkpoint")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(RUNS / "xla"))
    trunk, rows = pretrained(args.pretrain), []
    chosen, real = embedders.load_embedder("musicnn"), None
    for way in WAYS:
        first = args.seeds[0]
        tried = [
            row
            for rate in RATES[way]
            for row in trained(arm(way, trunk, rate, first, args), way, rate, first)
        ]
        rows += (kept := best_of(tried))
        rate = kept[0]["learning_rate"]
        for seed in args.seeds[1:]:
            rows += trained(arm(way, trunk, rate, seed, args), way, rate, seed)
        config = arm(way, trunk, rate, first, args)
        real = held_out_sound(config, chosen) if real is None else real
        found = distances(config.workdir, real, chosen, range(args.clips))
        for row in kept:
            if fad := found.get(row["step"]):
                row |= {"fad": fad.value, "fad_low": fad.low, "fad_high": fad.high}
        write_csv(RESULTS / "downstream" / "finetuning.csv", rows)
    draw(rows)
    for way in WAYS:
        last = [row for row in rows if row["way"] == way and row["step"] == args.steps]
        print(way, [row["of_patch"] for row in last], last[0]["learned"], last[0]["state_mb"])


if __name__ == "__main__":
    main()
