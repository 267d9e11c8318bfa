"""Compare the order of checkpoints by evaluation scores with that by validation error.

    python -m experiments.generation.metric_order --names control pre_ln eps_prediction
        log_magnitude

Takes finished arms of experiments.ablations, the untrained control network and real music, samples
256 clips of each from the same noise, and scores them on the test split. Writes
results/generation/metric_order.csv, with Spearman's rank correlation of every score with the x_0
error, and figures/metric_order.png.
"""

import argparse
import json

import numpy as np
import tqdm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from experiments.ablations.__main__ import RUNS
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.evaluation import controls, embedders, scores
from specdiff_jax.evaluation.evaluate import embed_set
from specdiff_jax.evaluation.inputs import gather_inputs
from specdiff_jax.training import trained_model

SCORES = ("fad", "fad_inf", "kad", "precision", "recall", "density", "coverage")
ENDS = ("low", "high")
BETTER = {"precision": -1, "recall": -1, "density": -1, "coverage": -1}  # where more is better


def material(workdir, clips):
    """Return the Material of one checkpoint, with the common sampling settings."""
    config = trained_model.load(workdir).config
    config.workdir = str(workdir)
    config.evaluate.update(split="test", clips=clips, compare_to=())
    config.sample.update(batch_size=16, sampler="dpmpp_2m", time_grid="log_snr", nfe=20, eta=0.0)
    return gather_inputs(config)


def folder_of(name, steps):
    """Return the folder of an arm of experiments.ablations."""
    name, _, other = name.partition("@")
    return RUNS / f"tiny_{other or steps}" / f"{name.replace(',', '+')}_0"


def score(clips, rep, real, chosen):
    """Return {embedder_score: value} of one set of clips."""
    row = {}
    for embedder in chosen:
        values = scores.score_embeddings(embed_set(embedder, clips, rep), real[embedder.name])
        row |= {
            f"{embedder.name}_{name}": values[name]["value"] for name in SCORES if name in values
        }
        row |= {f"{embedder.name}_kad_{end}": values["kad"][end] for end in ENDS}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", required=True, help="NAME, or NAME@STEPS of another")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--embedders", nargs="+", default=["musicnn", "logmel"])
    args = parser.parse_args()
    chosen, rows, real = [embedders.load_embedder(name) for name in args.embedders], [], {}
    folders = [folder_of(name, args.steps) for name in args.names]
    for name, folder in zip(tqdm.tqdm(args.names, unit="run"), folders, strict=True):
        error = json.loads((folder / "row.json").read_text())["over_linear_frame"]
        m = material(folder, args.clips)
        trained, rep = m.model, m.rep
        if not real:
            for embedder in chosen:
                real[embedder.name] = embed_set(embedder, m.reference, rep)
            rows.append({"name": "real music"} | score(m.other_artists, rep, real, chosen))
            fresh = controls.generate_clips(controls.reinitialize(trained), m.rep, m.requests)
            rows.append({"name": "untrained"} | score(fresh, rep, real, chosen))
        clips = controls.generate_clips(trained, m.rep, m.requests)
        rows.append({"name": name, "over_linear_frame": error} | score(clips, rep, real, chosen))
    trained = [row for row in rows if "over_linear_frame" in row]
    order = {"name": "rank correlation with over_linear_frame"}
    for column in sorted(rows[0].keys() - {"name"}):
        if column.endswith(ENDS):
            continue
        sign = BETTER.get(column.split("_")[-1], 1)
        pairs = [(row["over_linear_frame"], sign * row[column]) for row in trained]
        order[column] = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    cell = lambda value: round(value, 4) if isinstance(value, float) else value
    write_csv(
        RESULTS / "generation" / "metric_order.csv",
        [{k: cell(v) for k, v in r.items()} for r in [*rows, order]],
    )
    draw(trained, args.embedders)
    print(order)


def draw(rows, names):
    """Write the figure of KAD against x_0 error, a panel an embedder."""
    figure = Figure(figsize=(4.5 * len(names), 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for row in rows:
            place = row["over_linear_frame"], 1000 * row[f"{name}_kad"]
            ends = [[1000 * abs(row[f"{name}_kad_{end}"] - row[f"{name}_kad"])] for end in ENDS]
            axes.errorbar(*place, ends, fmt="o", color="#0b6b8a", capsize=2)
            axes.annotate(row["name"], place, fontsize=7, xytext=(4, 3), textcoords="offset points")
        axes.set(xlabel="held-out x₀ error over the linear denoiser of a frame")
        axes.set(ylabel=f"KAD x 1000 ({name})", xscale="log", yscale="log")
    figure.savefig(RESULTS.parent / "figures" / "metric_order.png")


if __name__ == "__main__":
    main()
