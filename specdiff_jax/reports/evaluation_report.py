"""The page of an evaluation, evaluation.html: tables with controls, curves and clips to play.

Its sources are evaluation.json and the clips beside it. A string in place of a table, chart or
list of cards is the reason why there is none.
"""

import math
import pathlib

from specdiff_jax.reports.charts import lay_out_curves
from specdiff_jax.reports.html import (
    BASELINES,
    DASH,
    Cell,
    Row,
    Table,
    format_number,
    load_card,
    render,
    write_page,
)
from specdiff_jax.runtime.files import read_json

GALLERY = 12  # clips of each set on the page
COLUMNS = {  # of the table of distances: heading, places
    "kad": ("KAD x 1000", 1),
    "fad_inf": ("FAD-infinity", 2),
    "fad": ("FAD", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "density": ("density", 2),
    "coverage": ("coverage", 2),
}
LIKENESS = "similarity", "shuffled"
DIVERGENCES = {
    "kl_real_to_generated": "KL(real, generated)",
    "kl_generated_to_real": "KL(generated, real)",
    "kl_real_to_shuffled": "KL(real, shuffled)",
}
SIGNALS = {
    "loudness_lufs": "loudness, LUFS",
    "rms_db": "level, dBFS",
    "bandwidth_hz": "bandwidth, Hz",
    "clipped_fraction": "clipped share",
    "silent_fraction": "silent share",
    "onsets_per_second": "onsets a second",
    "flatness_db": "spectral flatness, dB",
    "centroid_hz": "spectral centroid, Hz",
    "chroma_entropy": "chroma entropy, nats",
    "stereo_width": "stereo width",
}


def write_evaluation_report(folder):
    """Write evaluation.html beside the evaluation.json of a folder and return its path."""
    folder = pathlib.Path(folder)
    results = read_json(folder / "evaluation.json")
    if results is None:
        raise ValueError(f"{folder} holds no evaluation.json; run --mode=evaluate")
    about = results["about"]
    page = render(
        "evaluation_report.html",
        title=", ".join(about.get("checkpoints", {}) or [folder.parent.name]),
        about=describe_evaluation(about),
        distances=[
            (name, tabulate_distances(results["sets"], name, facts))
            for name, facts in about["embedders"].items()
        ],
        adherence=tabulate_adherence(results.get("prompt_adherence")),
        likeness=tabulate_likeness(results.get("text_similarity")),
        levels=lay_out_levels(results.get("levels")),
        reconstructions=lay_out_reconstructions(results.get("reconstruction")),
        signals=tabulate_signals(results["sets"]),
        gallery=load_gallery(folder, results),
        closest=load_closest(folder, results),
    )
    return write_page(folder / "evaluation.html", page)


def format_estimate(estimate, places, scale=1.0):
    """Return the Cell of {"value", "low", "high"}; a dash where there is none."""
    if not estimate or estimate.get("value") is None:
        return DASH
    value, low, high = (
        format_fixed(scale * estimate[key], places) for key in ("value", "low", "high")
    )
    return Cell(value, f"{low} to {high}")


def format_fixed(value, places):
    """Return a number with as many places as its neighbors in a column have."""
    if not math.isfinite(value):
        return "\N{INFINITY}"
    return f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")


def describe_evaluation(about):
    """Return the lines on checkpoints, clips and what is missing."""
    lines = [
        f"{name}: {facts['workdir']}, step {facts['step']:,}, {facts['sampler']} on "
        f"{facts['time_grid']}, {facts['nfe']} sampling steps, "
        f"guidance {facts['guidance_scale'] or 1:g}, seed {facts['seed']}, "
        f"{'EMA' if facts['ema'] else 'no EMA'}, {facts['sha256'][:10]}"
        for name, facts in about.get("checkpoints", {}).items()
    ]
    lines.append(
        f"Clips of {about['seconds']:.2f} s at {about['sample_rate']:,} Hz, conditioned on "
        f"{about['conditioning']}; real music: the {about['split']} split. All intervals are 95 %."
    )
    return lines + [f"Left out: {name}" for name in about["missing"]]


def tabulate_distances(sets, embedder, facts):
    """Return the distances of all sets to real music, controls included, by one embedder."""
    scores = [row["scores"][embedder] for row in sets]
    shared = [flag for flag in scores[0]["flags"] if all(flag in s["flags"] for s in scores)]
    columns = {key: column for key, column in COLUMNS.items() if any(key in s for s in scores)}
    rows = []
    for row, score in zip(sets, scores, strict=True):
        cells = [f"{row['clips']:,}"]
        for key, (_, places) in columns.items():
            cells.append(format_estimate(score.get(key), places, 1000.0 if key == "kad" else 1.0))
        cells.append(format_estimate(row["memorized"], 3))
        flags = [*row["flags"], *(flag for flag in score["flags"] if flag not in shared)]
        strong = row["kind"] == "generated"
        rows.append(Row(row["name"], tuple(cells), flag="; ".join(flags), strong=strong))
    note = (
        f"{facts['name']}: {facts['width']} numbers, {facts['sample_rate']:,} Hz, weights "
        f"{(facts['sha256'] or 'none')[:10]}. Do not compare with values of other embedders."
    )
    note += f" All sets: {'; '.join(shared)}." if shared else ""
    heads = ("", "clips", *(head for head, _ in columns.values()), "memorized")
    return Table(note, heads, rows)


def lay_out_levels(levels):
    """Return the error of the model and of the baselines by noise level."""
    if not levels:
        return "A folder of sounds has no network whose error could be measured."
    points = lambda key: [(row["t"], row[key]) for row in levels]
    series = [("model", "model", points("x0_error"))]
    series += [(name, f"b{k}", points(key)) for k, (key, name) in enumerate(BASELINES.items())]
    x_label = "noise level t (0 = data, 1 = noise)"
    return lay_out_curves(series, x_label, "x₀ error (log)", "Held-out music.")


def lay_out_reconstructions(rows):
    """Return a chart of each distance between held-out music and its reconstruction."""
    if not rows:
        return "A folder of sounds has no network that could reconstruct anything."
    names = list(dict.fromkeys(row["method"] for row in rows))
    charts = []
    for key, label in (
        ("log_spectral_distance_db", "log-spectral distance, dB (log)"),
        ("ssim", "SSIM (log)"),
        ("x0_error", "mean-square error of x₀ (log)"),
    ):
        points = lambda name, key=key: [(r["t"], r[key]) for r in rows if r["method"] == name]
        series = [(name, ("b0", "b1", "model")[k], points(name)) for k, name in enumerate(names)]
        charts.append(lay_out_curves(series, "noise level t of the start", label))
    return charts


def tabulate_adherence(rows):
    """Return how often an independent label classifier agrees with the prompts."""
    if not rows:
        return "The samples are unconditional: there is no prompt to adhere to."
    sets, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "kind"))
    of = {(row["set"], row["kind"]): row for row in rows}
    apart = [key for key in DIVERGENCES if any(key in row for row in rows)]
    body = []
    for kind in kinds:
        cells = []
        for k, name in enumerate(sets):
            cells += format_adherence(of.get((name, kind), {}), apart if k else ())
        body.append(Row(kind, tuple(cells)))
    note = (
        "How often a label classifier, trained on real music only, finds the label of the prompt. "
    )
    note += (
        "Chance: the same clips with shuffled prompts. KL in nats between its outputs of a pair."
    )
    heads = ["kind"]
    for k, name in enumerate(sets):
        heads += [name, "chance", *((DIVERGENCES[key] for key in apart) if k else ())]
    return Table(note, tuple(heads), body)


def format_adherence(row, divergences):
    """Return the cells of one kind of label in one set."""
    estimate = row and {"value": row["accuracy"], "low": row["low"], "high": row["high"]}
    cells = [format_estimate(estimate, 2), format_fixed(row["chance"], 2) if row else ""]
    return cells + [format_fixed(row[key], 2) if key in row else DASH for key in divergences]


def tabulate_likeness(rows):
    """Return the similarity of clips and captions in a joint embedding of sound and text."""
    if not rows:
        return None
    body = [
        Row(row["set"], (row["embedder"], *(format_estimate(row[key], 3) for key in LIKENESS)))
        for row in rows
    ]
    note = "Cosine similarity of clips and their captions in a joint embedding of sound and text. "
    note += "Shuffled: each caption with another clip."
    return Table(note, ("set", "model", "similarity", "shuffled"), body)


def tabulate_signals(sets):
    """Return the signal statistics of generated and real clips, and their distances."""
    shown = [row for row in sets if row["kind"] in ("generated", "real")]
    real = {line["statistic"]: line for line in shown[0]["signals"]}
    rows = []
    for name, line in real.items():
        cells = [format_number(line.get("real_mean"), 2)]
        for row in shown:
            own = next(one for one in row["signals"] if one["statistic"] == name)
            estimate = {"value": own.get("distance")} | {k: own.get(k) for k in ("low", "high")}
            cells += [format_number(own.get("mean"), 2), format_estimate(estimate, 2)]
        rows.append(Row(SIGNALS.get(name, name), tuple(cells)))
    heads = ["", "reference"]
    for row in shown:
        heads += [row["name"], "distance"]
    note = "Means, and the Wasserstein distance to the reference in its standard deviations."
    return Table(note, tuple(heads), rows)


def load_gallery(folder, results):
    """Return clips of the same place side by side: same noise, same prompt."""
    names = [row["name"] for row in results["sets"] if row["kind"] == "generated"]
    cards, kept = [], list_clips(folder / "clips")
    for place in range(GALLERY):
        prompt = results.get("prompts", {}).get(str(place), "")
        stem = f"{place:03d}"
        for name in names:
            own = folder / "clips" / folder_name(name)
            if (own, stem) in kept:
                lines = [("", prompt)] if prompt else []
                cards.append(load_card(own, stem, kept, f"{name} {place}", lines))
    return cards


def load_closest(folder, results):
    """Return generated clips, each beside the training excerpt that it is nearest to."""
    cards, kept = [], list_clips(folder / "closest")
    for name, pairs in results.get("closest", {}).items():
        own = folder / "closest" / folder_name(name)
        for number, pair in enumerate(pairs):
            facts = f"similarity {pair['similarity']:.2f}; {pair['rank']:.1%} of new music is "
            facts += f"as similar; from {pair['offset']:.1f} s"
            cards.append(load_card(own, f"{number:02d}_clip", kept, f"{name} {pair['clip']}"))
            lines = [("meta", facts)]
            cards.append(load_card(own, f"{number:02d}_song", kept, pair["song"], lines))
    return cards or "None."


def list_clips(folder):
    """Return {(folder, stem)} of all clips under a folder, as `load_card` takes them."""
    return {(path.parent, path.stem) for path in folder.rglob("*.wav")}


def folder_name(name):
    """Return a set's name as the name of its folder."""
    return "".join(c if c.isalnum() else "_" for c in name)
