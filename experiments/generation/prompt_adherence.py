"""Measure prompt adherence: an independent classifier predicts the labels of conditional clips.

    python -m experiments.generation.prompt_adherence runs/conditional_tiny [--songs 96]

Conditions are the labels and captions of held-out songs, and 40 prompts written by hand, the latter
also in the words of captions, at several guidance scales. Captions and prompts are also sampled
without inferred labels (sample.infer_labels). Writes results/generation/prompt_adherence.csv,
figures/prompt_adherence.png (accuracy against guidance) and figures/prompts.png (several prompts
from the same noise).
"""

import argparse
import dataclasses
import json
import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.conditioning.prompts import Prompt
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data import prepare
from specdiff_jax.data.songs import load_songs
from specdiff_jax.data.sources.songbook import captions
from specdiff_jax.evaluation.label_classifier import (
    LabelClassifier,
    extract_features,
    get_values,
    score_accuracy,
)
from specdiff_jax.reports.spectrogram_image import draw_spectrogram
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import generator
from specdiff_jax.training import trained_model

KINDS = ("instrument", "ensemble", "mode")
TEXT_ALONE = ", without inferred labels"
BY_HAND = "hand-written prompts"
PROMPTS = (BY_HAND, BY_HAND + TEXT_ALONE, BY_HAND + ", caption wording")
TAKES = dict.fromkeys(PROMPTS, 3)  # clips of each prompt, 1 of the others
CROPS = 6  # of each training song, for the label classifier
PARAPHRASES = pathlib.Path(__file__).parents[2] / "tests" / "data" / "paraphrases.jsonl"
FIGURES = RESULTS.parent / "figures"
SHOWN = (
    "a church organ, slow",
    "solo piano, lively",
    "flute and harp",
    "a brass quartet",
    "a choir",
)


def read_real(songs, samples, crops):
    """Return (waves [M, N], entries) of evenly spread crops of each song."""
    starts, entries = [], []
    for start, length, entry in zip(songs.starts, songs.lengths, songs.entries, strict=True):
        spread = np.linspace(0, length - samples, crops + 2)[1:-1] if crops > 1 else [0]
        starts += [start + int(first) for first in spread]
        entries += [entry] * len(spread)
    return crops_module.pcm_to_wave(crops_module.read_crops(songs, starts, samples)), entries


def song_targets(entries):
    """Return {kind: the label values of each song}."""
    return {kind: [get_values(entry, kind) for entry in entries] for kind in KINDS}


def make_prompts(entries):
    """Return {conditioning: (Prompts, {kind: target values of each})}."""
    kinds = ("instrument", "ensemble", "mode", "tempo")
    by_labels = [
        Prompt(labels=", ".join(x for x in entry["labels"] if x.split(":")[0] in kinds))
        for entry in entries
    ]
    by_caption = [Prompt(prompt=entry["captions"][0]) for entry in entries]
    lines = [json.loads(line) for line in PARAPHRASES.read_text().splitlines()]
    by_hand = {
        "instrument": [line["instruments"] for line in lines],
        "ensemble": [[line["ensemble"]] if line["ensemble"] else [] for line in lines],
        "mode": [[line["mode"]] if line["mode"] else [] for line in lines],
    }
    captioned = {  # only labels that the caption names are targets
        kind: [
            [value for value in values if value in entry["captions"][0].lower()]
            for values, entry in zip(targets, entries, strict=True)
        ]
        for kind, targets in song_targets(entries).items()
    }
    written = [Prompt(prompt=line["prompt"]) for line in lines]
    reworded = [Prompt(prompt=word_as_caption(line)) for line in lines]
    return {
        "labels": (by_labels, song_targets(entries)),
        "captions": (by_caption, captioned),
        "captions" + TEXT_ALONE: (by_caption, captioned),
        **dict(
            zip(PROMPTS, [(text, by_hand) for text in (written, written, reworded)], strict=True)
        ),
    }


def word_as_caption(line):
    """Return the content of a hand-written prompt in the words of the training captions."""
    players = captions.name_cast(line["ensemble"] or "solo", line["instruments"])
    tempo = f", {line['tempo']} in tempo" if line["tempo"] else ""
    return f"Music for {players}{tempo}{', in ' + line['mode'] if line['mode'] else ''}."


def generate(model, rep_out, prompts, guidance_scale, takes=1, infer_labels=True):
    """Return `takes` clips of each prompt, all prompts once, then again.  # [takes * M, N]"""
    s = model.config.sample
    s.batch_size, s.infer_labels = 16, infer_labels
    prompts = [dataclasses.replace(prompt, guidance_scale=guidance_scale) for prompt in prompts]
    sample = generator.Generator(model, rep_out, prompts)
    clips = [
        (prompt, 1000 * take + index)
        for take in range(takes)
        for index, prompt in enumerate(prompts)
    ]
    return np.concatenate([sample(batch) for batch in generator.split_batches(clips, s.batch_size)])


def score_clips(classify, waves, rate, targets, **about):
    """Return a row for each kind of label."""
    predictions = classify(extract_features(waves, rate))
    return [
        about | {"kind": kind} | score_accuracy(predictions[kind], targets[kind]) for kind in KINDS
    ]


def draw_curves(rows):
    """Write the figure of accuracy against guidance, a panel a kind."""
    figure = Figure(figsize=(9, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, kind in zip(figure.subplots(1, 3, sharey=True), KINDS, strict=True):
        panel = [row for row in rows if row["kind"] == kind]
        for conditioning in ("labels", "captions", "captions" + TEXT_ALONE, *TAKES):
            curve = [row for row in panel if row["conditioning"] == conditioning]
            x, y = [row["guidance"] for row in curve], [row["accuracy"] for row in curve]
            spans = np.abs([[row["low"], row["high"]] for row in curve] - np.array(y)[:, None]).T
            style = {"linestyle": "--" if conditioning.endswith(TEXT_ALONE) else "-", "marker": "o"}
            axes.errorbar(x, y, spans, markersize=3, capsize=2, label=conditioning, **style)
        ceiling = next(row for row in panel if row["conditioning"] == "real held-out music")
        axes.axhline(ceiling["accuracy"], color="#555", linestyle="--", label="real music")
        axes.axhline(ceiling["chance"], color="#aaa", linestyle=":", label="chance")
        axes.set(title=kind, xlabel="guidance scale", ylim=(0, 1))
    figure.axes[0].set_ylabel("accuracy of the label classifier")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(FIGURES / "prompt_adherence.png")


def draw_prompts(model, rep_out, guidance_scale):
    """Write the figure of spectrograms: a row a prompt, a column a noise."""
    prompts = [Prompt(prompt=text, guidance_scale=guidance_scale) for text in SHOWN]
    model.config.sample.batch_size = 3
    sample = generator.Generator(model, rep_out, prompts)
    grid = [sample([(prompt, take) for take in range(3)]) for prompt in prompts]
    figure = Figure(figsize=(10, 2 * len(SHOWN)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for row, (text, waves) in enumerate(zip(SHOWN, grid, strict=True)):
        for column, wave in enumerate(waves):
            axes = figure.add_subplot(len(SHOWN), 3, 3 * row + column + 1)
            title = f"{text}, noise {column}" if row == 0 or column == 0 else ""
            draw_spectrogram(axes, wave, model.rep.sample_rate, title)
            axes.set_xlabel("")
    figure.savefig(FIGURES / "prompts.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument(
        "--songs",
        type=int,
        default=96,
        help="held-out songs whose labels and captions are conditions",
    )
    parser.add_argument(
        "--guidance-scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 5.0]
    )
    args = parser.parse_args()
    model = trained_model.load(args.workdir)
    rep, rate = model.rep, model.rep.sample_rate
    place = prepare.locate_cache(model.config)
    log("prompt adherence: fitting the label classifier to real training music")
    waves, entries = read_real(load_songs(place, "train", rep.samples), rep.samples, CROPS)
    classify = LabelClassifier(extract_features(waves, rate), entries, KINDS).predict
    waves, entries = [], []
    for split in ("valid", "test"):
        more, theirs = read_real(load_songs(place, split, rep.samples), rep.samples, 1)
        waves.append(more), entries.extend(theirs)
    waves = np.concatenate(waves)
    rows = score_clips(
        classify,
        waves,
        rate,
        song_targets(entries),
        conditioning="real held-out music",
        guidance="",
    )
    few = np.unique(np.linspace(0, len(entries) - 1, args.songs).astype(int))
    for name, (prompts, targets) in make_prompts([entries[k] for k in few]).items():
        infer_labels = not name.endswith(TEXT_ALONE)
        for scale in args.guidance_scales:
            takes = TAKES.get(name, 1)
            clips = generate(model, rep, prompts, scale, takes, infer_labels)
            repeated = {kind: values * takes for kind, values in targets.items()}
            rows += score_clips(classify, clips, rate, repeated, conditioning=name, guidance=scale)
            for row in rows[-3:]:
                log(f"{name}, guidance {scale}: {row['kind']} {row['accuracy']:.3f}")
    ceiling = {row["kind"]: row for row in rows[:3]}
    for row in rows:
        real_row = ceiling[row["kind"]]
        row["target"] = (real_row["accuracy"] + real_row["chance"]) / 2
    cell = lambda value: round(value, 4) if isinstance(value, float) else value
    write_csv(
        RESULTS / "generation" / "prompt_adherence.csv",
        [{k: cell(v) for k, v in row.items()} for row in rows],
    )
    draw_curves(rows)
    draw_prompts(model, rep, max(args.guidance_scales[1:3]))


if __name__ == "__main__":
    main()
