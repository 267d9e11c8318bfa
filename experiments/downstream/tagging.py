"""Measure the value of a pretrained backbone for tagging, against scratch, random and features.

    python -m experiments.downstream.tagging --backbone runs/tiny [--steps 600] [--scan]
        [--seeds 0 1 2 3 4] [--songs 60] [--source songs.jsonl --kinds game] [--t 0.6]

Trains configs/tagging.py:tiny for each way and seed, and logistic regressions on log-mel statistics
and on the embedding of musicnn, on the same songs. Writes results/downstream/NAME.csv (a row for
each way and seed) and NAME_gains.csv: macro PR-AUC of the pretrained backbone minus that of each
other way, mean over seeds, with a paired bootstrap over test songs. --t: the noise level of the
input of all networks, the config's where unset. --scan: probes of every block and noise level, on
validation songs only; results/downstream/NAME_scan.csv and figures/NAME_scan.png.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from configs import tagging
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.data import crops, prepare
from specdiff_jax.downstream import tag, tag_job
from specdiff_jax.evaluation import embedders, label_classifier
from specdiff_jax.evaluation.embedders import embedder
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

RUNS = pathlib.Path(__file__).parents[2] / "runs" / "tagging"
WAYS = {"pretrained": "full", "probe": "probe", "scratch": "scratch", "random frozen": "scratch"}
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
PLAIN = ("log-mel statistics", "musicnn")


def small(config, backbone, seed, args):
    """Return the config with the chosen songs and pretrained run."""
    config.seed = seed
    config.data.max_songs = args.songs
    if args.source is not None:  # a small collection
        config.data.update(source=args.source, valid_fraction=0.2, test_fraction=0.3)
    if config.finetune.init_from is not None:
        config.finetune.init_from = backbone
    return config


def config_of(way, backbone, seed, args, **fields):
    """Return the config of one tagger."""
    config = small(tagging.get_config(f"tiny,{WAYS[way]}"), backbone, seed, args)
    fields |= {"trainable": "head"} if way == "random frozen" else {}
    fields |= {"noise_level": args.t} if args.t is not None else {}
    config.tag.update(robustness=False, kinds=tuple(args.kinds))
    config.head.update(fields)
    suffix = "".join(f"_{name}{value}" for name, value in fields.items())
    config.workdir = str(RUNS / args.name / f"{way.replace(' ', '_')}{suffix}_{seed}_{args.steps}")
    every = min(40, args.steps)
    config.train.update(num_steps=args.steps, eval_every=every, checkpoint_every=every)
    return config


def tagger(config):
    """Return (targets, probabilities) of the test songs, [S, V] each, and the summary."""
    tag.run(config)
    results = json.loads((pathlib.Path(config.workdir) / "tags.json").read_text())
    job = tag_job.make_job(config)
    job.take_songs()
    probabilities = np.array([song["probabilities"] for song in results["songs"]])
    return job.task.tags.targets(job.load_songs("test")), probabilities, results


def features(kind, waves, rate):
    """Return the features of windows.  # [M, N] -> [M, D]"""
    if kind == "musicnn":
        return embedder.embed_clips(embedders.load_embedder("musicnn"), waves, rate).mean(axis=1)
    return label_classifier.extract_features(waves, rate)


def plain(kind, config):
    """Return (targets, probabilities) of the test songs by logistic regression on features."""
    job = tag_job.make_job(config)
    job.take_songs()
    vectors, targets = {}, {}
    for split, songs in (("train", job.songs), ("test", job.load_songs("test"))):
        waves = crops.pcm_to_wave(tag_job.read_windows(job, songs))  # [S, W, N]
        flat = features(kind, waves.reshape(-1, waves.shape[-1]), job.rep.sample_rate)
        vectors[split] = flat.reshape(*waves.shape[:2], -1)
        targets[split] = job.task.tags.targets(songs)
    windows = vectors["train"].shape[1]
    model = OneVsRestClassifier(
        LogisticRegression(C=label_classifier.INVERSE_PENALTY, max_iter=2000)
    )
    model = make_pipeline(StandardScaler(), model)
    size = vectors["train"].shape[-1]
    model.fit(
        vectors["train"].reshape(-1, size), np.repeat(targets["train"], windows, axis=0).astype(int)
    )
    probabilities = model.predict_proba(vectors["test"].reshape(-1, size))
    return targets["test"], tag_job.average_windows(
        probabilities.reshape(-1, windows, probabilities.shape[-1])
    )


def gain(targets, ours, theirs):
    """Return the mean difference of macro PR-AUC over seeds, with its paired interval over songs.

    Args:
      targets: [S, V]; ours, theirs: probabilities [S, V] of each seed.
    """
    stacked = np.concatenate([targets, *ours, *theirs], axis=1)
    tags = targets.shape[1]

    def difference(rows):
        parts = np.split(rows, rows.shape[1] // tags, axis=1)
        areas = [
            classification.finite_mean(classification.pr_auc(parts[0] > 0.5, part))
            for part in parts[1:]
        ]
        return np.mean(areas[: len(ours)]) - np.mean(areas[len(ours) :])

    return bootstrap_interval(stacked, difference, resamples=classification.RESAMPLES)


def compared(args):
    """Train all ways and seeds, and write both tables."""
    rows, values, targets = [], {}, None
    for way in args.ways:
        for seed in args.seeds:
            targets, probabilities, results = tagger(config_of(way, args.backbone, seed, args))
            values.setdefault(way, []).append(probabilities)
            scores = {name: one["value"] for name, one in results["test"].items()}
            rows.append({"way": way, "seed": seed, "step": results["about"]["step"]} | scores)
            write_csv(RESULTS / "downstream" / f"{args.name}.csv", rows)
    for kind in PLAIN if args.musicnn else PLAIN[:1]:  # the same for every seed
        _, probabilities = plain(kind, config_of("scratch", None, args.seeds[0], args))
        values[kind] = [probabilities]
        area = classification.finite_mean(classification.pr_auc(targets, probabilities))
        rows.append({"way": kind, "seed": "", "pr_auc_macro": area})
        write_csv(RESULTS / "downstream" / f"{args.name}.csv", rows)
    gains = []
    for way in list(values)[1:]:
        estimate = gain(targets, values["pretrained"], values[way])
        gains.append({"pretrained_minus": way, "songs": len(targets)} | vars(estimate))
        print(gains[-1])
    write_csv(RESULTS / "downstream" / f"{args.name}_gains.csv", gains)


def scanned(args):
    """Train probes of every block and noise level; test songs are not used."""
    rows = []
    depth = config_of("probe", args.backbone, args.seeds[0], args).model.depth
    for block in range(depth):
        for t in LEVELS:
            for seed in args.seeds:
                config = config_of("probe", args.backbone, seed, args, block=block, noise_level=t)
                prepare.run(config)
                job = tag_job.make_job(config)
                job.take_songs()
                tag.train(job)
                best = max(score for _, score in tag.read_history(config.workdir))
                rows.append(
                    {"block": block, "noise_level": t, "seed": seed, "valid_pr_auc_macro": best}
                )
        write_csv(RESULTS / "downstream" / f"{args.name}_scan.csv", rows)
    draw(rows, depth, RESULTS.parent / "figures" / f"{args.name}_scan.png")


def draw(rows, depth, path):
    """Write a heat map of means over seeds."""
    of = lambda block, t: [
        row["valid_pr_auc_macro"]
        for row in rows
        if (row["block"], row["noise_level"]) == (block, t)
    ]
    grid = np.array([[np.mean(of(block, t)) for t in LEVELS] for block in range(depth)])
    figure = Figure(figsize=(1.6 + 0.9 * len(LEVELS), 1.6 + 0.6 * depth), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set(xlabel="noise level t", ylabel="block")
    axes.set_xticks(range(len(LEVELS)), [f"{t:g}" for t in LEVELS])
    axes.set_yticks(range(depth))
    for (block, place), value in np.ndenumerate(grid):
        dark = value < (grid.min() + grid.max()) / 2
        color = "white" if dark else "black"
        axes.text(place, block, f"{value:.3f}", ha="center", va="center", color=color)
    figure.colorbar(image, label="macro PR-AUC of a probe, valid")
    figure.savefig(path, dpi=110)


def parser_of(doc, name, steps):
    """Return the parser of the experiments on the value of a pretrained backbone."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--backbone", required=True, help="workdir of the pretrained run")
    parser.add_argument("--name", default=name)
    parser.add_argument("--source", help="other songs than the songbook")
    parser.add_argument("--songs", type=int, help="training songs, at most")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--t", type=float, help="noise level of the input")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--musicnn", action=argparse.BooleanOptionalAction, default=True)
    return parser


def main():
    parser = parser_of(__doc__, "tagging", 600)
    parser.add_argument("--kinds", nargs="+", default=["instrument"])
    parser.add_argument("--scan", action="store_true")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(RUNS / "xla"))
    (scanned if args.scan else compared)(args)


if __name__ == "__main__":
    main()
