"""The page of a tagger, tags.html: metrics with intervals, tag by tag, and robustness."""

import pathlib

from specdiff_jax.reports.charts import lay_out_curves, lay_out_heat
from specdiff_jax.reports.html import Cell, Row, Table, format_number, render, write_page
from specdiff_jax.runtime.files import read_json

METRICS = {
    "accuracy": "subset accuracy (all tags of a song right)",
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
    """Write tags.html beside the tags.json of a folder and return its path."""
    folder = pathlib.Path(folder)
    results = read_json(folder / "tags.json")
    if results is None:
        raise ValueError(f"{folder} holds no tags.json; run --mode=tag")
    names = [row["tag"] for row in results["tags"]]
    page = render(
        "tag_report.html",
        title=f"Tags: {results['about']['name']}",
        about=describe_run(results["about"]),
        overall=tabulate_metrics(results),
        tags=tabulate_tags(results["tags"]),
        confusion=results["confusion"] and lay_out_heat(names, results["confusion"]),
        robustness=tabulate_robustness(results),
        history=lay_out_history(results["history"]),
    )
    return write_page(folder / "tags.html", page)


def describe_run(about):
    """Return the lines on backbone, songs and windows."""
    backbone = about["init_from"] or "random initial weights"
    songs = about["songs"]
    return (
        f"Backbone: {backbone}, block {about['block']} at noise level {about['noise_level']:g}; "
        f"trained: {about['trainable']}; step {about['step']:,}, the best on valid; "
        f"{about['sha256'][:10]}.",
        f"{songs['train']:,} training songs, {songs['valid']:,} validation songs, "
        f"{songs['test']:,} test songs, each the mean of {about['windows']} windows of "
        f"{about['seconds']:.2f} s at {about['sample_rate']:,} Hz.",
    )


def tabulate_metrics(results):
    """Return the metrics of the test songs with intervals, and of the validation songs."""
    rows = []
    for key, name in METRICS.items():
        estimate = results["test"][key]
        interval = ""
        if "low" in estimate:
            interval = f"{format_number(estimate['low'])} to {format_number(estimate['high'])}"
        test = Cell(format_number(estimate["value"]), interval)
        valid = format_number(results["valid"].get(key))
        rows.append(Row(name, (test, valid), strong=key == "pr_auc_macro"))
    chosen = (
        "The most probable tag is predicted."
        if results["about"]["one"]
        else "Thresholds: best F1 on valid."
    )
    note = f"The test split is used once. {chosen} Intervals hold 95 %, by bootstrap over songs."
    return Table(note, ("", "test", "valid"), rows)


def tabulate_tags(tags):
    """Return the metrics of each tag, the most frequent tag first."""
    rows = [
        Row(row["tag"], (f"{row['support']:,}", *(format_number(row[key]) for key in EACH)))
        for row in sorted(tags, key=lambda row: -row["support"])
    ]
    heads = ("", "songs", "precision", "recall", "F1", "ROC-AUC", "PR-AUC", "threshold")
    return Table(
        "Songs: test songs that have the tag. A dash: all test songs have the tag, or none has it.",
        heads,
        rows,
    )


def tabulate_robustness(results):
    """Return the metrics of the test songs under each change of their sound."""
    if not results["robustness"]:
        return "Not measured; set tag.robustness."
    keys = ("accuracy", "f1_macro", "roc_auc_macro", "pr_auc_macro")
    clean = {"corruption": "unchanged"} | {key: results["test"][key]["value"] for key in keys}
    rows = [
        Row(row["corruption"], tuple(format_number(row[key]) for key in keys))
        for row in [clean, *results["robustness"]]
    ]
    note = "The same test songs and thresholds, each window corrupted before it is encoded."
    return Table(note, ("", *(METRICS[key] for key in keys)), rows)


def lay_out_history(history):
    """Return the curve of macro PR-AUC over training steps."""
    series = [("PR-AUC", "model", [(step, score) for step, score in history])]
    return lay_out_curves(series, "steps", "macro PR-AUC on valid (log)", "Held-out songs.")
