"""Does a conditional model do what it is asked? An independent tagger listens.

    python -m experiments.generation.prompt_adherence runs/conditional_tiny [--songs 96]

Asks for what held-out songs are, by their labels and by their captions, and by 40 prompts worded by
hand, also in the captions' plain words, with several guidance weights; captions and prompts also
without the labels that are read in them (sample.infer_labels). Writes results/obedience.csv,
figures/obedience.png (accuracy against guidance) and figures/prompts.png (the same noise, other
words).
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
ALONE = ", words alone"  # without the labels that are read in them
PROMPTS = ("paraphrases", "paraphrases" + ALONE, "the same, plainly")
TAKES = dict.fromkeys(PROMPTS, 3)  # clips of each wish, 1 of the others
CROPS = 6  # of each training song, for the judge
PARAPHRASES = pathlib.Path(__file__).parents[2] / "tests" / "data" / "paraphrases.jsonl"
FIGURES = RESULTS.parent / "figures"
SHOWN = (
    "a church organ, slow",
    "solo piano, lively",
    "flute and harp",
    "a brass quartet",
    "a choir",
)


def real(songs, samples, crops):
    """(waves [M, N], entries) of evenly spread crops of each song."""
    starts, entries = [], []
    for start, length, entry in zip(songs.starts, songs.lengths, songs.entries, strict=True):
        spread = np.linspace(0, length - samples, crops + 2)[1:-1] if crops > 1 else [0]
        starts += [start + int(first) for first in spread]
        entries += [entry] * len(spread)
    return crops_module.pcm_to_wave(crops_module.read_crops(songs, starts, samples)), entries


def wanted(entries):
    """{kind: the right values of each song}."""
    return {kind: [get_values(entry, kind) for entry in entries] for kind in KINDS}


def asked(entries):
    """{how: (Wishes, what is right)} of songs asked for by labels and captions, and of prompts."""
    tell = ("instrument", "ensemble", "mode", "tempo")
    by_labels = [
        Prompt(labels=", ".join(x for x in entry["labels"] if x.split(":")[0] in tell))
        for entry in entries
    ]
    by_caption = [Prompt(prompt=entry["captions"][0]) for entry in entries]
    lines = [json.loads(line) for line in PARAPHRASES.read_text().splitlines()]
    by_hand = {
        "instrument": [line["instruments"] for line in lines],
        "ensemble": [[line["ensemble"]] if line["ensemble"] else [] for line in lines],
        "mode": [[line["mode"]] if line["mode"] else [] for line in lines],
    }
    captioned = {  # only what the caption names is asked for
        kind: [
            [value for value in right if value in entry["captions"][0].lower()]
            for right, entry in zip(found, entries, strict=True)
        ]
        for kind, found in wanted(entries).items()
    }
    paraphrased = [Prompt(prompt=line["prompt"]) for line in lines]
    plain = [Prompt(prompt=plainly(line)) for line in lines]
    return {
        "labels": (by_labels, wanted(entries)),
        "captions": (by_caption, captioned),
        "captions" + ALONE: (by_caption, captioned),
        "paraphrases": (paraphrased, by_hand),
        "paraphrases" + ALONE: (paraphrased, by_hand),
        "the same, plainly": (plain, by_hand),
    }


def plainly(line):
    """What a paraphrase asks for in the words that captions use: is it the words or the wish?"""
    players = captions.name_cast(line["ensemble"] or "solo", line["instruments"])
    tempo = f", {line['tempo']} in tempo" if line["tempo"] else ""
    return f"Music for {players}{tempo}{', in ' + line['mode'] if line['mode'] else ''}."


def made(trained, rep_out, wishes, weight, takes=1, reads=True):
    """Waves [M * takes, N]: `takes` clips of each wish, one after another."""
    s = trained.config.sample
    s.batch_size, s.infer_labels = 16, reads
    wishes = [dataclasses.replace(wish, guidance=weight) for wish in wishes]
    generate = generator.Generator(trained, rep_out, wishes)
    clips = [
        (wish, 1000 * take + index) for take in range(takes) for index, wish in enumerate(wishes)
    ]
    return np.concatenate(
        [generate(batch) for batch in generator.split_batches(clips, s.batch_size)]
    )


def rows_of(judge, waves, rate, right, **about):
    """A row for each kind of label."""
    heard = judge(extract_features(waves, rate))
    return [about | {"kind": kind} | score_accuracy(heard[kind], right[kind]) for kind in KINDS]


def draw_curves(rows):
    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, kind in zip(figure.subplots(1, 3, sharey=True), KINDS, strict=True):
        mine = [row for row in rows if row["kind"] == kind]
        for how in ("labels", "captions", "captions" + ALONE, *TAKES):
            curve = [row for row in mine if row["asked_by"] == how]
            x, y = [row["guidance"] for row in curve], [row["accuracy"] for row in curve]
            spans = np.abs([[row["low"], row["high"]] for row in curve] - np.array(y)[:, None]).T
            style = {"linestyle": "--" if how.endswith(ALONE) else "-", "marker": "o"}
            axes.errorbar(x, y, spans, markersize=3, capsize=2, label=how, **style)
        ceiling = next(row for row in mine if row["asked_by"] == "real held-out music")
        axes.axhline(ceiling["accuracy"], color="#555", linestyle="--", label="real music")
        axes.axhline(ceiling["chance"], color="#aaa", linestyle=":", label="chance")
        axes.set(title=kind, xlabel="guidance", ylim=(0, 1))
    figure.axes[0].set_ylabel("tagger hears what was asked")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(FIGURES / "obedience.png")


def draw_prompts(trained, rep_out, weight):
    """A row a prompt, a column a noise: what words do to the same noise."""
    wishes = [Prompt(prompt=text, guidance=weight) for text in SHOWN]
    trained.config.sample.batch_size = 3
    generate = generator.Generator(trained, rep_out, wishes)
    grid = [generate([(wish, take) for take in range(3)]) for wish in wishes]
    figure = Figure(figsize=(10, 2 * len(SHOWN)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for row, (text, waves) in enumerate(zip(SHOWN, grid, strict=True)):
        for column, wave in enumerate(waves):
            axes = figure.add_subplot(len(SHOWN), 3, 3 * row + column + 1)
            title = f"{text}, noise {column}" if row == 0 or column == 0 else ""
            draw_spectrogram(axes, wave, trained.rep.sample_rate, title)
            axes.set_xlabel("")
    figure.savefig(FIGURES / "prompts.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--songs", type=int, default=96, help="held-out songs to ask for")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 5.0])
    args = parser.parse_args()
    trained = trained_model.load(args.workdir)
    rep, rate = trained.rep, trained.rep.sample_rate
    place = prepare.locate_cache(trained.config)
    log("obedience: the judge learns from real training music")
    waves, entries = real(load_songs(place, "train", rep.samples), rep.samples, CROPS)
    judge = LabelClassifier(extract_features(waves, rate), entries, KINDS)
    waves, entries = [], []
    for split in ("valid", "test"):
        more, theirs = real(load_songs(place, split, rep.samples), rep.samples, 1)
        waves.append(more), entries.extend(theirs)
    waves = np.concatenate(waves)
    rows = rows_of(judge, waves, rate, wanted(entries), asked_by="real held-out music", guidance="")
    few = np.unique(np.linspace(0, len(entries) - 1, args.songs).astype(int))
    for how, (wishes, right) in asked([entries[k] for k in few]).items():
        for weight in args.weights:
            takes = TAKES.get(how, 1)
            clips = made(trained, rep, wishes, weight, takes, reads=not how.endswith(ALONE))
            again = {kind: found * takes for kind, found in right.items()}
            rows += rows_of(judge, clips, rate, again, asked_by=how, guidance=weight)
            for row in rows[-3:]:
                log(f"{how}, guidance {weight}: {row['kind']} {row['accuracy']:.3f}")
    ceiling = {row["kind"]: row for row in rows[:3]}
    for row in rows:
        real_row = ceiling[row["kind"]]
        row["halfway"] = (real_row["accuracy"] + real_row["chance"]) / 2
    cell = lambda value: round(value, 4) if isinstance(value, float) else value
    write_csv(
        RESULTS / "generation" / "obedience.csv",
        [{k: cell(v) for k, v in row.items()} for row in rows],
    )
    draw_curves(rows)
    draw_prompts(trained, rep, max(args.weights[1:3]))


if __name__ == "__main__":
    main()
