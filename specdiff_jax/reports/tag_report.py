"""tags.html: scores of a tagger with their intervals, tag by tag, and what breaks it.

Self-contained, from tags.json; every word of a file is escaped.
"""

import pathlib

from specdiff_jax.reports.charts import absent, figure_html, heat_html, text
from specdiff_jax.reports.html import filled, shown, table_html, write_page
from specdiff_jax.reports.run_files import read_json

MEASURES = {
    "accuracy": "accuracy (all tags of a song right)",
    "precision_micro": "precision, micro",
    "recall_micro": "recall, micro",
    "f1_micro": "F1, micro",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "f1_macro": "F1, macro",
    "roc_auc_macro": "ROC-AUC, macro",
    "pr_auc_macro": "PR-AUC, macro",
}
EACH = ("precision", "recall", "f1", "roc_auc", "pr_auc", "threshold")


def write_tag_report(folder):
    """Writes tags.html beside the tags.json of a folder and returns its path."""
    folder = pathlib.Path(folder)
    found = read_json(folder / "tags.json")
    if found is None:
        raise ValueError(f"{folder} holds no tags.json; run --mode=tag")
    parts = {
        "On songs it never heard": overall_html(found),
        "Tag by tag": each_html(found["tags"]),
        "What is taken for what": confusion_html(found),
        "When the sound is spoiled": robustness_html(found),
        "While it learned": history_html(found["history"]),
    }
    body = about_html(found["about"]) + "".join(
        f"<section><h2>{text(head)}</h2>{html}</section>" for head, html in parts.items() if html
    )
    title = text(f"Tags: {found['about']['name']}")
    page = filled("tag_report.html", title=title, body=body)
    return write_page(folder / "tags.html", page)


def about_html(about):
    trunk = about["init_from"] or "random initial weights"
    songs = about["songs"]
    lines = (
        f"Trunk: {trunk}, block {about['block']} at noise level {about['t']:g}; learns: "
        f"{about['trainable']}; step {about['step']:,}, the best on valid; {about['sha256'][:10]}.",
        f"{songs['train']:,} songs to learn from, {songs['valid']:,} to choose by, "
        f"{songs['test']:,} to test, each the mean of {about['windows']} windows of "
        f"{about['seconds']:.2f} s at {about['sample_rate']:,} Hz.",
    )
    return "".join(f'<p class="meta"><bdi>{text(line)}</bdi></p>' for line in lines)


def overall_html(found):
    rows = []
    for key, name in MEASURES.items():
        estimate = found["test"][key]
        value = shown(estimate["value"])
        if "low" in estimate:
            ends = f"{shown(estimate['low'])} to {shown(estimate['high'])}"
            value += f' <span class="meta">{ends}</span>'
        strong = ' class="strong"' if key == "pr_auc_macro" else ""
        cells = f'<td class="n">{value}</td><td class="n">{shown(found["valid"].get(key))}</td>'
        rows.append(f"<tr{strong}><td>{text(name)}</td>{cells}</tr>")
    chosen = (
        "The likeliest tag is said." if found["about"]["one"] else "Thresholds: best F1 on valid."
    )
    note = f"Tested once. {chosen} Intervals hold 95 %, by bootstrap over songs."
    return table_html(note, ["", "test", "valid"], rows)


def each_html(tags):
    rows = []
    for row in sorted(tags, key=lambda row: -row["support"]):
        cells = "".join(f'<td class="n">{shown(row[key])}</td>' for key in EACH)
        name = f"<td><bdi>{text(row['tag'])}</bdi></td>"
        rows.append(f'<tr>{name}<td class="n">{row["support"]:,}</td>{cells}</tr>')
    heads = ["", "songs", "precision", "recall", "F1", "ROC-AUC", "PR-AUC", "threshold"]
    return table_html("Test songs that have the tag; a dash: all have it, or none.", heads, rows)


def confusion_html(found):
    if found["confusion"] is None:
        return ""
    names = [row["tag"] for row in found["tags"]]
    note = '<p class="note">Rows are what is true, columns what is said; counts of songs.</p>'
    return note + heat_html(names, found["confusion"])


def robustness_html(found):
    if not found["robustness"]:
        return absent("Not measured (tag.robustness).")
    keys = ("accuracy", "f1_macro", "roc_auc_macro", "pr_auc_macro")
    clean = {"change": "as it is"} | {key: found["test"][key]["value"] for key in keys}
    rows = []
    for row in [clean, *found["robustness"]]:
        cells = "".join(f'<td class="n">{shown(row[key])}</td>' for key in keys)
        rows.append(f"<tr><td>{text(row['change'])}</td>{cells}</tr>")
    note = "The same test songs and thresholds, each window changed before the tagger hears it."
    return table_html(note, ["", *(MEASURES[key] for key in keys)], rows)


def history_html(history):
    series = [("PR-AUC", "model", [(step, score) for step, score in history])]
    return figure_html(series, "steps", "macro PR-AUC on valid (log)", "Held-out songs.")
