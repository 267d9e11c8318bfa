"""--mode=evaluate --listening FILES: what listeners said, in the terminal and on a page."""

import glob
import pathlib

from specdiff_jax.evaluation.listening.results import REFERENCE_SCORE, TOLERATED, analyze_results
from specdiff_jax.reports.charts import absent, text
from specdiff_jax.reports.html import filled, shown, table_html, write_page
from specdiff_jax.runtime.logs import log


def run(patterns):
    """Says what the listeners of result files found, and writes listening_results.html.

    Args:
      patterns: paths, or patterns such as results/*.json.
    """
    paths = [path for one in patterns for path in (sorted(glob.glob(one)) or [one])]
    analysis = analyze_results(paths)
    for row in analysis["scores"]:
        log(f"{row['name']}: {row['mean']:.1f} ({row['low']:.1f} to {row['high']:.1f})")
    for row in analysis["abx"]:
        who = row["listener"] or "all"
        told = f"{row['right']} of {row['trials']} right, p {row['p']:.3g}"
        log(f"{row['a']} or {row['b']}, {who}: {told}")
    for row in analysis["listeners"]:
        if row["excluded"]:
            log(f"screened out: {row['listener']}, who does not know the hidden reference")
    title, body = "Listening test", results_html(analysis)
    page = filled("plain.html", title=title, body=body)
    log(f"listen: {write_page(pathlib.Path(paths[0]).parent / 'listening_results.html', page)}")


def results_html(analysis):
    """An HTML fragment of the rows of `analyse`: its tables stand on the page of an evaluation."""
    rated = any(row["trials"] for row in analysis["listeners"])
    empty = absent("No ratings are left: every listener is screened out.") if rated else ""
    scores = scores_html(analysis) if analysis["scores"] else empty
    return scores + screening_html(analysis) + abx_html(analysis["abx"])


def scores_html(analysis):
    asked = "Closeness to the reference" if analysis["matched"] else "Likeness to real music"
    note = f"{asked}, 0 to 100, with 95% intervals over listeners and clips."
    counts = lambda row: (row["listeners"], row["trials"])  # of what a mean is made
    rows = [row_html(row["name"], interval(row), *counts(row)) for row in analysis["scores"]]
    table = table_html(note, ("clips of", "mean", "listeners", "ratings"), rows)
    note = "Differences of the same listener on the same clip; each interval stands alone."
    rows = [
        row_html(f"{row['a']} \N{MINUS SIGN} {row['b']}", interval(row), *counts(row))
        for row in analysis["differences"]
    ]
    return table + table_html(note, ("difference", "points", "listeners", "pairs"), rows)


def screening_html(analysis):
    out = [row for row in analysis["listeners"] if row["excluded"]]
    if not out:
        return ""
    names = "; ".join(f"{row['listener']} ({row['below']} of {row['trials']})" for row in out)
    verb = "Left out" if analysis["screened"] else "Not left out, although they"
    rule = f"hidden reference under {REFERENCE_SCORE} in more than {TOLERATED}% of trials"
    return f'<p class="note">{text(f"{verb} ({rule}): {names}.")}</p>'


def abx_html(rows):
    note = "ABX: right answers with Clopper-Pearson 95% intervals; p: as many or more by guessing."
    lines = []
    for row in rows:
        low, share, high = (f"{100 * row[key]:.0f}" for key in ("low", "share", "high"))
        counts = (f"{row['right']} of {row['trials']}", f"{share}% [{low}, {high}]")
        pair, who = f"{row['a']} / {row['b']}", row["listener"] or "all"
        lines.append(row_html(pair, who, *counts, f"{row['p']:.2g}"))
    return table_html(note, ("pair", "listener", "right", "share", "p"), lines) if rows else ""


def interval(row):
    """mean [low, high] in words and, for a difference, whether it may be none."""
    mean, low, high = (shown(row[key], 1) for key in ("mean", "low", "high"))
    chance = "a" in row and row["low"] <= 0 <= row["high"]
    return f"{mean} [{low}, {high}]{', may be chance' if chance else ''}"


def row_html(name, *cells):
    numbers = "".join(f'<td class="n">{text(cell)}</td>' for cell in cells)
    return f"<tr><td><bdi>{text(name)}</bdi></td>{numbers}</tr>"
