"""Write the table and the picture of a finished run.

    python -m experiments.generation.record runs/tiny

Writes to results/generation NAME.csv (x_0 error by noise level beside the baselines), NAME.json
(facts, ratios, ceiling) and, after --mode=evaluate, NAME_evaluation.csv (its scores), and
figures/NAME.png (spectrograms of generated clips, of real ones and of their round trip).
"""

import argparse
import json
import pathlib
import shutil

import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.reports.spectrogram_image import draw_spectrogram

HERE = pathlib.Path(__file__).parents[1]


def read(path):
    """Return the content of a JSON file."""
    return json.loads(pathlib.Path(path).read_text())


def level_rows(health):
    """Return one row a noise level and one of means."""
    columns = {"t": health["levels"], "model": health["x0_error"], **health["baselines"]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    means = {name: float(np.mean(values)) for name, values in columns.items()} | {"t": "mean"}
    cell = lambda value: value if isinstance(value, str) else round(value, 5)
    return [{name: cell(value) for name, value in row.items()} for row in [*rows, means]]


def write_facts(path, workdir, health):
    """Write the facts of the run as JSON."""
    model = np.mean(health["x0_error"])
    ratios = {name: model / np.mean(values) for name, values in health["baselines"].items()}
    trains = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speeds = [record["steps_per_second"] for record in trains if record["kind"] == "train"]
    facts = {name: value for name, value in read(workdir / "preflight.json").items()}
    reference = read(workdir / "reference" / "reference.json")
    summary = {
        "code": facts.get("code", "unknown"),
        "verdict": health["verdict"],
        "x0_error": round(float(model), 5),
        "ratio_to": {name: round(float(ratio), 4) for name, ratio in ratios.items()},
        "median_steps_per_second": round(float(np.median(speeds)), 3),
        "ceiling_snr_db": reference["snr_db"],
        "ceiling_log_spectral_distance_db": reference["log_spectral_distance_db"],
        "preflight": {
            k: v for k, v in facts.items() if k not in ("code", "lines", "disk_free_bytes")
        },
    }
    path.write_text(json.dumps(summary, indent=1) + "\n")


def draw(path, workdir, count=4):
    """Write spectrograms of generated clips, of held-out clips and of their round trip."""
    newest = max((workdir / "samples").iterdir())
    rows = {
        "generated": sorted(newest.glob("*.wav"))[:count],
        "real, round trip": sorted((workdir / "reference").glob("*_roundtrip.wav"))[:count],
        "real": sorted((workdir / "reference").glob("*_real.wav"))[:count],
    }
    figure = Figure(figsize=(13, 7.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, count, sharex=True, sharey=True)
    for line, (name, clips) in zip(axes, rows.items(), strict=True):
        for cell, clip in zip(line, clips, strict=False):
            draw_spectrogram(cell, *soundfile.read(clip, dtype="float32"), title=name)
            cell.label_outer()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    workdir = parser.parse_args().workdir
    health, name = read(workdir / "health.json"), workdir.name
    write_csv(RESULTS / "generation" / f"{name}.csv", level_rows(health))
    write_facts(RESULTS / "generation" / f"{name}.json", workdir, health)
    draw(HERE / "figures" / f"{name}.png", workdir)
    for scores in sorted((workdir / "evaluation").glob("step_*/scores.csv"))[-1:]:
        shutil.copy(scores, RESULTS / "generation" / f"{name}_evaluation.csv")


if __name__ == "__main__":
    main()
