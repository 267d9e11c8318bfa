"""--mode=evaluate --listening FILES: the results of listeners, in the terminal and on a page."""

import glob
import pathlib

from specdiff_jax.evaluation.listening.results import REFERENCE_SCORE, TOLERATED, analyze_results
from specdiff_jax.reports.html import Row, Table, format_number, render, write_page
from specdiff_jax.runtime.logs import log


def run(patterns):
    """Log the results of listeners and write listening_results.html.

    Args:
      patterns: paths, or patterns such as results/*.json.
    """
    paths = [path for one in patterns for path in (sorted(glob.glob(one)) or [one])]
    analysis = analyze_results(paths)
    for row in analysis["scores"]:
        log(f"{row['name']}: {row['mean']:.1f} ({row['low']:.1f} to {row['high']:.1f})")
    for row in analysis["abx"]:
        who = row["listener"] or "all"
        result = f"{row['right']} of {row['trials']} right, p {row['p']:.3g}"
        log(f"{row['a']} or {row['b']}, {who}: {result}")
    for row in analysis["listeners"]:
        if row["excluded"]:
            log(f"screened out: {row['listener']}, who did not recognize the hidden reference")
    page = render_results(analysis)
    log(f"listen: {write_page(pathlib.Path(paths[0]).parent / 'listening_results.html', page)}")


def render_results(analysis):
    """Return the page of the rows of `analyze_results`."""
    has_ratings = any(row["trials"] for row in analysis["listeners"])
    empty = ["No ratings are left: every listener is screened out."] if has_ratings else []
    return render(
        "listening_results.html",
        title="Listening test",
        tables=tabulate_scores(analysis) if analysis["scores"] else empty,
        screening=describe_screening(analysis),
        abx=tabulate_abx(analysis["abx"]),
    )


def tabulate_scores(analysis):
    """Return the mean scores of all sets and the differences between them."""
    question = "Closeness to the reference" if analysis["matched"] else "Likeness to real music"
    note = f"{question}, 0 to 100, with 95% intervals over listeners and clips."
    counts = lambda row: (str(row["listeners"]), str(row["trials"]))
    rows = [Row(row["name"], (format_interval(row), *counts(row))) for row in analysis["scores"]]
    scores = Table(note, ("clips of", "mean", "listeners", "ratings"), rows)
    note = "Differences of the same listener on the same clip; each interval stands alone."
    rows = [
        Row(f"{row['a']} \N{MINUS SIGN} {row['b']}", (format_interval(row), *counts(row)))
        for row in analysis["differences"]
    ]
    return [scores, Table(note, ("difference", "points", "listeners", "pairs"), rows)]


def describe_screening(analysis):
    """Return the line on listeners who did not recognize the hidden reference."""
    excluded = [row for row in analysis["listeners"] if row["excluded"]]
    if not excluded:
        return ""
    names = "; ".join(f"{row['listener']} ({row['below']} of {row['trials']})" for row in excluded)
    verb = "Left out" if analysis["screened"] else "Not left out, although they"
    rule = f"hidden reference under {REFERENCE_SCORE} in more than {TOLERATED}% of trials"
    return f"{verb} ({rule}): {names}."


def tabulate_abx(rows):
    """Return the right answers of each pair and listener; None without an ABX trial."""
    note = "ABX: right answers with Clopper-Pearson 95% intervals; p: as many or more by guessing."
    lines = []
    for row in rows:
        low, share, high = (f"{100 * row[key]:.0f}" for key in ("low", "share", "high"))
        counts = (f"{row['right']} of {row['trials']}", f"{share}% [{low}, {high}]")
        cells = (row["listener"] or "all", *counts, f"{row['p']:.2g}")
        lines.append(Row(f"{row['a']} / {row['b']}", cells))
    return Table(note, ("pair", "listener", "right", "share", "p"), lines) if rows else None


def format_interval(row):
    """Return mean [low, high] and, for a difference, whether it may be none."""
    mean, low, high = (format_number(row[key], 1) for key in ("mean", "low", "high"))
    chance = "a" in row and row["low"] <= 0 <= row["high"]
    return f"{mean} [{low}, {high}]{', may be chance' if chance else ''}"
