"""evaluation.html: the table with its controls, curves, clips to hear, the nearest training music.

Self-contained, from evaluation.json and the clips beside it; every word of a file is escaped.
"""

import math
import pathlib

from specdiff_jax.reports.charts import absent, figure_html, text
from specdiff_jax.reports.html import BASELINES, card_html, filled, shown, table_html, write_page
from specdiff_jax.reports.run_files import read_json

GALLERY = 12  # clips of each set on the page
COLUMNS = {  # of the table of distances: heading, places
    "kad": ("kernel distance x 1000", 1),
    "fad_inf": ("FAD, endless clips", 2),
    "fad": ("FAD, as printed elsewhere", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "density": ("density", 2),
    "coverage": ("coverage", 2),
}
LIKENESS = "similarity", "shuffled"
DIVERGENCES = {
    "kl_real_to_generated": "KL(real, made)",
    "kl_generated_to_real": "KL(made, real)",
    "kl_real_to_shuffled": "KL(real, other)",
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
    """Writes evaluation.html beside the evaluation.json of a folder and returns its path."""
    folder = pathlib.Path(folder)
    found = read_json(folder / "evaluation.json")
    if found is None:
        raise ValueError(f"{folder} holds no evaluation.json; run --mode=evaluate")
    page = filled(
        "evaluation_report.html",
        title=text(", ".join(found["about"].get("checkpoints", {}) or [folder.parent.name])),
        about=about_html(found["about"]),
        distances=distances_html(found),
        levels=levels_html(found.get("levels")),
        rebuilding=rebuilding_html(found.get("rebuilding")),
        fidelity=fidelity_html(found.get("fidelity")) + likeness_html(found.get("likeness")),
        signals=signals_html(found["sets"]),
        gallery=gallery_html(folder, found),
        closest=closest_html(folder, found),
    )
    return write_page(folder / "evaluation.html", page)


def span(estimate, places, scale=1.0):
    """A value with its interval, of {"value", "low", "high"}; a dash where there is none."""
    if not estimate or estimate.get("value") is None:
        return "\N{EN DASH}"
    value, low, high = (fixed(scale * estimate[key], places) for key in ("value", "low", "high"))
    return f'{value} <span class="meta">{low} to {high}</span>'


def fixed(value, places):
    """A number of a column: as many places as its neighbours have."""
    if not math.isfinite(value):
        return "\N{INFINITY}"
    return f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")


def about_html(about):
    lines = [
        f"{name}: {facts['workdir']}, step {facts['step']:,}, {facts['sampler']} on "
        f"{facts['time_grid']}, {facts['nfe']} evaluations, "
        f"guidance {facts['guidance_scale'] or 1:g}, seed {facts['seed']}, "
        f"{'EMA' if facts['ema'] else 'no EMA'}, {facts['sha256'][:10]}"
        for name, facts in about.get("checkpoints", {}).items()
    ]
    lines.append(
        f"Clips of {about['seconds']:.2f} s at {about['sample_rate']:,} Hz, asked for by "
        f"{about['conditioning']}; real music is the {about['split']} split. Intervals hold 95 %."
    )
    lines += [f"left out: {name}" for name in about["missing"]]
    return "".join(f'<p class="meta">{text(line)}</p>' for line in lines)


def distances_html(found):
    """A table for each embedder: all sets, controls included."""
    tables = []
    for name, facts in found["about"]["embedders"].items():
        scores = [row["scores"][name] for row in found["sets"]]
        everywhere = [
            flag for flag in scores[0]["flags"] if all(flag in s["flags"] for s in scores)
        ]
        columns = {key: told for key, told in COLUMNS.items() if any(key in s for s in scores)}
        rows = [
            set_row(row, score, columns, everywhere)
            for row, score in zip(found["sets"], scores, strict=True)
        ]
        note = (
            f"{facts['name']}: {facts['width']} numbers, {facts['sample_rate']:,} Hz, weights "
            f"{(facts['sha256'] or 'none')[:10]}. Not to be set beside figures of other embedders."
        )
        note += f" All sets: {'; '.join(everywhere)}." if everywhere else ""
        heads = ["", "clips", *(head for head, _ in columns.values()), "copies"]
        tables.append(f"<h3>{text(name)}</h3>" + table_html(note, heads, rows))
    return "".join(tables)


def set_row(row, score, columns, everywhere):
    cells = [f'<td class="n">{row["clips"]:,}</td>']
    for key, (_, places) in columns.items():
        scale = 1000.0 if key == "kad" else 1.0
        cells.append(f'<td class="n">{span(score.get(key), places, scale)}</td>')
    cells.append(f'<td class="n">{span(row["copies"], 3)}</td>')
    flags = [*row["flags"], *(flag for flag in score["flags"] if flag not in everywhere)]
    said = f'<span class="flag">{text("; ".join(flags))}</span>' if flags else ""
    strong = ' class="strong"' if row["kind"] == "generated" else ""
    return f"<tr{strong}><td><bdi>{text(row['name'])}</bdi>{said}</td>{''.join(cells)}</tr>"


def levels_html(levels):
    if not levels:
        return absent("A folder of sounds has no network whose error could be measured.")
    points = lambda key: [(row["t"], row[key]) for row in levels]
    series = [("model", "model", points("x0_error"))]
    series += [(name, f"b{k}", points(key)) for k, (key, name) in enumerate(BASELINES.items())]
    return figure_html(
        series, "noise level t (0 = data, 1 = noise)", "x₀ error (log)", "Held-out music."
    )


def rebuilding_html(rows):
    if not rows:
        return absent("A folder of sounds has no network that could rebuild anything.")
    names = list(dict.fromkeys(row["answer"] for row in rows))
    charts = []
    for key, label in (
        ("log_spectral_distance_db", "log-spectral distance, dB (log)"),
        ("ssim", "SSIM (log)"),
        ("x0_error", "mean-square error of x₀ (log)"),
    ):
        points = lambda name, key=key: [(r["t"], r[key]) for r in rows if r["answer"] == name]
        series = [(name, ("b0", "b1", "model")[k], points(name)) for k, name in enumerate(names)]
        charts.append(figure_html(series, "noise level t it was rebuilt from", label, ""))
    return f'<div class="figures">{"".join(charts)}</div>'


def fidelity_html(rows):
    if not rows:
        return absent("Nothing was asked for.")
    sets, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "kind"))
    of = {(row["set"], row["kind"]): row for row in rows}
    apart = [key for key in DIVERGENCES if any(key in row for row in rows)]
    body = []
    for kind in kinds:
        cells = [
            heard_cells(of.get((name, kind), {}), apart if k else ()) for k, name in enumerate(sets)
        ]
        body.append(f"<tr><td>{text(kind)}</td>{''.join(cells)}</tr>")
    note = "How often a judge that never saw the network hears what was asked for; chance is the "
    note += "same clips with shuffled wishes. KL in nats, of what the judge thinks of each pair."
    heads = ["kind"]
    for k, name in enumerate(sets):
        heads += [name, "chance", *((DIVERGENCES[key] for key in apart) if k else ())]
    return table_html(note, heads, body)


def heard_cells(row, apart):
    """What was heard of one kind in one set."""
    estimate = row and {"value": row["accuracy"], "low": row["low"], "high": row["high"]}
    cells = [span(estimate, 2), fixed(row["chance"], 2) if row else ""]
    cells += [fixed(row[key], 2) if key in row else "\N{EN DASH}" for key in apart]
    return "".join(f'<td class="n">{cell}</td>' for cell in cells)


def likeness_html(rows):
    if not rows:
        return ""
    body = []
    for row in rows:
        cells = "".join(f'<td class="n">{span(row[key], 3)}</td>' for key in LIKENESS)
        body.append(f"<tr><td>{text(row['set'])}</td><td>{text(row['embedder'])}</td>{cells}</tr>")
    note = "How like their captions clips are, by a model that puts sound and text in one space; "
    note += "shuffled: the same with each caption dealt to another clip."
    return table_html(note, ["set", "model", "similarity", "shuffled"], body)


def signals_html(sets):
    shown_sets = [row for row in sets if row["kind"] == "generated" or row["kind"] == "real"]
    real = {line["statistic"]: line for line in shown_sets[0]["signals"]}
    rows = []
    for name, line in real.items():
        cells = f'<td class="n">{shown(line.get("real_mean"), 2)}</td>'
        for row in shown_sets:
            mine = next(one for one in row["signals"] if one["statistic"] == name)
            estimate = {"value": mine.get("distance")} | {k: mine.get(k) for k in ("low", "high")}
            cells += f'<td class="n">{shown(mine.get("mean"), 2)}</td>'
            cells += f'<td class="n">{span(estimate, 2)}</td>'
        rows.append(f"<tr><td>{text(SIGNALS.get(name, name))}</td>{cells}</tr>")
    heads = ["", "reference"]
    for row in shown_sets:
        heads += [row["name"], "distance"]
    note = "Means, and the Wasserstein distance to the reference in its standard deviations."
    return table_html(note, heads, rows)


def gallery_html(folder, found):
    """Clips of the same place side by side: same noise, same wish."""
    names = [row["name"] for row in found["sets"] if row["kind"] == "generated"]
    cards, kept = [], everything(folder / "clips")
    for place in range(GALLERY):
        wish = found.get("wishes", {}).get(str(place), "")
        for name in names:
            stem = f"{place:03d}"
            if (folder / "clips" / folder_name(name), stem) in kept:
                words = f"<p><bdi>{text(wish)}</bdi></p>" if wish else ""
                heading = f"{name} {place}"
                cards.append(
                    card_html(folder / "clips" / folder_name(name), stem, kept, heading, words)
                )
    return f'<div class="cards">{"".join(cards)}</div>'


def closest_html(folder, found):
    parts, kept = [], everything(folder / "closest")
    for name, pairs in found.get("closest", {}).items():
        place = folder / "closest" / folder_name(name)
        for number, pair in enumerate(pairs):
            facts = f"similarity {pair['similarity']:.2f}; of new music, {pair['rank']:.1%} come "
            facts += "as near"
            parts.append(card_html(place, f"{number:02d}_clip", kept, f"{name} {pair['clip']}", ""))
            words = f'<p class="meta">{text(facts)}, {pair["offset"]:.1f} s into it</p>'
            parts.append(card_html(place, f"{number:02d}_song", kept, pair["song"], words))
    return f'<div class="cards">{"".join(parts)}</div>' if parts else absent("None.")


def everything(folder):
    """All clips under a folder as `card_html` wants them."""
    return {(path.parent, path.stem) for path in folder.rglob("*.wav")}


def folder_name(name):
    """A set's name as a folder's."""
    return "".join(c if c.isalnum() else "_" for c in name)
