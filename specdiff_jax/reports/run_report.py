"""The listening page of a run: one self-contained report.html from the files of its workdir.

The files are read into plain checked values first, then laid out: a fault in a file is reported,
with the file's name, before a line of the page exists. A string in place of a table, chart or list
of cards is the reason why there is none.
"""

import json
import math
import pathlib

from specdiff_jax.reports.charts import group_points, lay_out_curves, mean
from specdiff_jax.reports.html import (
    BASELINES,
    Cell,
    Row,
    Table,
    format_number,
    load_card,
    render,
    write_page,
)
from specdiff_jax.reports.run_files import (
    order_clips,
    parse_sidecar,
    read_run,
    select_clips,
)
from specdiff_jax.runtime.files import read_json
from specdiff_jax.runtime.text import one_line

MAX_PAGE_BYTES = 60_000_000


def run(config):
    """Write the listening page of `config.workdir` and log its path."""
    path = write_run_report(config.workdir)
    from specdiff_jax.runtime.logs import log

    log(f"listen: {path}")


def write_run_report(workdir, max_bytes=MAX_PAGE_BYTES):
    """Write `report.html` from what is in `workdir` and return its path.

    A missing file leaves one line in its place; a malformed one is a ValueError that names it.
    Clips that would take the page above `max_bytes` are left out, and the page counts them.
    """
    workdir = pathlib.Path(workdir)
    files = read_run(workdir)
    config, health, reference = files["config"], files["health"], files["reference"]
    clips = order_clips(files["steps"], workdir / "reference", reference)
    kept = select_clips(clips, max_bytes)
    page = render(
        "run_report.html",
        title=(config or {}).get("name") or workdir.resolve().name,
        description=(config or {}).get("description"),
        verdict=describe_health(health),
        generated=lay_out_samples(files["steps"], kept),
        reference=lay_out_reference(workdir / "reference", reference, kept),
        loss=lay_out_loss(files["metrics"]),
        levels=lay_out_levels(health),
        ratios=tabulate_ratios(health),
        ceiling=tabulate_ceiling(reference),
        facts=split_facts(files["facts"]),
        config=config and json.dumps(config, indent=2, ensure_ascii=False),
    )
    return write_page(workdir / "report.html", page)


# ---- the sections: checked values -> what the template shows


def describe_health(health):
    """Return the tone, mark and line of the verdict on a run."""
    if health is None:
        return "health.json is missing: no health verdict yet."
    tone, mark = ("ok", "✓") if health["healthy"] else ("warn", "!")
    return {"tone": tone, "mark": mark, "line": one_line(health["verdict"])}


def lay_out_samples(steps, kept):
    """Return the cards of each step's samples, the newest step first."""
    if not steps:
        return "samples/ holds no samples yet."
    sections = []
    for step, folder, stems in steps:
        cards = [load_sample(folder, stem, kept) for stem in stems if (folder, stem) in kept]
        line = count_left_out(len(stems) - len(cards), len(stems), f"samples/{folder.name}")
        sections.append({"step": f"{step:,}", "left_out": line, "cards": cards})
    return sections


def load_sample(folder, stem, kept):
    """Return the Card of a sample with its prompt and the facts of its sidecar."""
    path = folder / f"{stem}.json"
    heading = f"Sample {stem}"
    sidecar = read_json(path, parse_sidecar)
    if sidecar is None:
        return load_card(folder, stem, kept, heading, [("absent", f"{path.name} is missing.")])
    lines = [("", line) for line in sidecar["lines"]]
    return load_card(folder, stem, kept, heading, [*lines, ("meta", " · ".join(sidecar["facts"]))])


def lay_out_reference(folder, reference, kept):
    """Return each held-out clip beside what is left of it after encode and decode."""
    if reference is None:
        return "reference/reference.json is missing: no real music to compare with."
    cards, clips = [], reference["clips"]
    for clip in clips:
        if {(folder, clip["real"]), (folder, clip["roundtrip"])} <= kept:
            cards += load_pair(folder, clip, kept)
    return {
        "note": f"Each clip as recorded, then encoded ({reference['representation']}) and decoded.",
        "left_out": count_left_out(len(clips) - len(cards) // 2, len(clips), folder.name),
        "cards": cards,
    }


def load_pair(folder, clip, kept):
    """Return the Cards of a held-out clip and of its round trip."""
    lines = [("meta", clip["artist"]), *(("", caption) for caption in clip["captions"][:1])]
    trip = f"SNR {format_number(clip['snr_db'], 1)} dB · "
    trip += f"spectral distance {format_number(clip['log_spectral_distance_db'], 1)} dB"
    return [
        load_card(folder, clip["real"], kept, clip["name"], lines, clip["labels"]),
        load_card(folder, clip["roundtrip"], kept, "Its round trip", [("meta", trip)]),
    ]


def count_left_out(dropped, total, folder):
    """Return the line on clips that the page leaves out, empty where it holds all."""
    line = f"{dropped} of {total} left out to keep this page small; they are in {folder}/."
    return line if dropped else ""


def lay_out_loss(metrics):
    """Return training and validation curves, the last training record in their caption."""
    if metrics is None:
        return "metrics.jsonl is missing: no curves."
    if not metrics["train"] and not metrics["valid"]:
        return "metrics.jsonl holds no training or validation record yet."
    train, size = group_points(sorted(metrics["train"].items()))
    valid = sorted(metrics["valid"].items())
    rates = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in metrics["rates"].items()]
    caption = f"Each training point is the mean of {size} records. " if size > 1 else ""
    caption += f"Last record: {', '.join(rates)}." if rates else ""
    series = [("held out", "model", valid), ("train", "train", train)]
    return lay_out_curves(series, "training step", "mean-square x₀ error (log)", caption)


def lay_out_levels(health):
    """Return the error of the model and of the baselines by noise level."""
    if health is None:
        return "health.json is missing: no error by noise level."
    series = [("model", "model", list(zip(health["levels"], health["model"], strict=True)))]
    for index, (name, row) in enumerate(health["baselines"].items()):
        points = list(zip(health["levels"], row, strict=True))
        series.append((BASELINES.get(name, name), f"b{index % 5}", points))
    caption = f"Held out, at step {health['step']:,}. The model is better than a baseline above it."
    x_label = "noise level t (0 = data, 1 = noise)"
    return lay_out_curves(series, x_label, "x₀ error (log)", caption)


def tabulate_ratios(health):
    """Return the mean over noise levels of each baseline, and the model's as a share of it."""
    if health is None:
        return "health.json is missing: nothing to compare."
    model = mean(health["model"])
    rows = [Row("model", (format_number(model), ""), strong=True)]
    for name, row in health["baselines"].items():
        ratio = model / mean(row) if mean(row) else math.nan
        cell = Cell(format_number(ratio), tone="good" if ratio < 1 else "poor")
        rows.append(Row(BASELINES.get(name, name), (format_number(mean(row)), cell)))
    note = "Mean over the noise levels. Below a ratio of 1 the model is better. "
    note += "Better than the constant and the per-band filter alone is not enough."
    return Table(note, ("denoiser", "mean x₀ error", "model / baseline"), rows)


def tabulate_ceiling(reference):
    """Return what encode and decode alone cost on real music: no model can score better."""
    if reference is None:
        return "reference/reference.json is missing: no ceiling."
    rows = []
    for clip in [{**reference, "name": "mean", "artist": ""}, *reference["clips"]]:
        scores = (clip["snr_db"], clip["log_spectral_distance_db"])
        cells = tuple(format_number(score, 1) for score in scores)
        rows.append(Row(clip["name"], cells, meta=clip["artist"], strong=not rows))
    note = f"The score of a perfect model: real music encoded by {reference['representation']} "
    note += "and decoded. A low SNR with a small distance is an error of phase, not of timbre."
    return Table(note, ("held-out clip", "SNR, dB", "log-spectral distance, dB"), rows)


def split_facts(lines):
    """Return (name, value) of each line of the preflight; the name is empty without a colon."""
    if lines is None:
        return "preflight.json is missing: no facts of the run."
    return [(line.partition(": ")[::2] if ": " in line else ("", line)) for line in lines]
