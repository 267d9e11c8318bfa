"""The page of a data report: plain counts and lists -> one self-contained HTML file.

Names, labels, captions and reasons are untrusted: each is shortened to one line here, and the
template escapes it and isolates its writing direction.
"""

import base64
import re

from specdiff_jax.reports.charts import lay_out_bars, lay_out_heat
from specdiff_jax.reports.html import Card, render
from specdiff_jax.runtime.text import one_line

MAX_ROWS = 500  # of a table; the JSON holds all
MAX_WORDS = 160  # characters of a name, label, caption or reason
MAX_BARS, MAX_NAMES = 24, 12
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def count_noun(count, noun):
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(value, most=MAX_WORDS):
    """Return an untrusted string on one line, without control characters, cut with an ellipsis."""
    line = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", one_line(str(value)[: 4 * most]))
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def render_data_report(report, manifest, spectrograms):
    """Return the page of a report; spectrograms are (song's name, bytes of a PNG)."""
    form = {1: "mono", 2: "stereo"}.get(report["channels"], f"{report['channels']} channels")
    return render(
        "data_report.html",
        title=shorten(report["source"]),
        prepared=f"Prepared at {report['sample_rate']:,} Hz, {form}.",
        tone="ok" if report["healthy"] else "warn",
        mark="✓" if report["healthy"] else "!",
        verdict=report["verdict"],
        warnings=[shorten(line, 600) for line in report["warnings"]],
        splits=tabulate_splits(report["splits"]),
        skipped=tabulate_skipped(report["skipped"]),
        findings=tabulate_findings(report["findings"], manifest["songs"]),
        duplicates=tabulate_duplicates(report["duplicates"]),
        histograms=[lay_out_histogram(name, rows) for name, rows in report["histograms"].items()],
        labels=lay_out_labels(report["labels"], report["unlabelled"]),
        together=lay_out_pairs(**report["together"]),
        spectrograms=list_cards(spectrograms, manifest["songs"]),
    )


def lay_out_histogram(heading, rows, **shape):
    """Return the bars of the first MAX_BARS of [(name, count), ...]."""
    return lay_out_bars(
        heading, [(shorten(name), count) for name, count in rows[:MAX_BARS]], **shape
    )


def limit_table(heads, rows, empty="", right=()):
    """Return the values of a table, cut after MAX_ROWS rows, or `empty` without any.

    A cell is text, or a list of (text, small print of several parts) below each other; columns in
    `right` are numbers.
    """
    if not rows:
        return empty
    note = f"The first {MAX_ROWS} of {len(rows):,}; all are in data_report.json."
    note = note if len(rows) > MAX_ROWS else ""
    return {"note": note, "heads": heads, "rows": rows[:MAX_ROWS], "right": right}


def tabulate_splits(splits):
    """Return songs, artists and hours of each split."""
    cells = ("{split}", "{songs:,}", "{artists:,}", "{hours:.2f}")
    rows = [[cell.format(**split) for cell in cells] for split in splits]
    return limit_table(("split", "songs", "artists", "hours"), rows, right=(1, 2, 3))


def tabulate_skipped(skipped):
    """Return the files that were left out and why."""
    rows = [(shorten(one["name"]), shorten(one["reason"])) for one in skipped]
    return limit_table(("file", "why it was left out"), rows, "Nothing was left out.")


def tabulate_findings(rejects, songs):
    """Return the accepted songs whose sound has faults."""
    measured = count_noun(sum(bool(song["facts"]) for song in songs), "song")
    rows = [
        (
            [(shorten(one["name"]), (shorten(one["artist"]), one["split"]))],
            [(line, ()) for line in one["findings"]],
        )
        for one in rejects
    ]
    return limit_table(("song", "what is wrong"), rows, f"No findings in {measured} measured.")


def tabulate_duplicates(groups):
    """Return groups of songs that duplicate each other."""
    rows = []
    for group in groups:
        names = [(shorten(one["name"]), (one["split"],)) for one in group["songs"]]
        if len(names) > MAX_NAMES:
            names[MAX_NAMES:] = [(f"and {len(names) - MAX_NAMES:,} more", ())]
        rows.append((names, group["kind"], f"{group['score']:.2f}"))
    return limit_table(
        ("songs", "copy", "score"), rows, "No song is a copy of another.", right=(2,)
    )


def lay_out_labels(labels, unlabelled):
    """Return the bars of the most common labels and a line on the rest."""
    if not labels:
        return "No song has a label."
    line = f"{count_noun(len(labels), 'label')}; {count_noun(unlabelled, 'song')} without any. "
    if len(labels) > MAX_BARS:
        line += f"The {MAX_BARS} most common; all are in data_report.json."
    return {"note": line, "chart": lay_out_histogram("Songs with it", labels, left=184)}


def lay_out_pairs(labels, counts):
    """Return how many songs have both of two labels, as a heat table."""
    if len(labels) < 2:
        return "It takes two labels to go together."
    note = "Songs with both; the stronger the tone, the more of the row's songs have the column's."
    return {"note": note, "rows": lay_out_heat([shorten(label, 30) for label in labels], counts)}


def list_cards(spectrograms, songs):
    """Return the Cards of songs with a picture."""
    song_of, cards = {song["name"]: song for song in songs}, []
    for name, png in spectrograms:
        song = song_of[name]
        lines = [("meta", shorten(song["artist"]))]
        lines += [("", shorten(line)) for line in song["captions"][:1]]
        picture = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        chips = [shorten(label, 40) for label in song["labels"][:12]]
        cards.append(Card(shorten(name), picture, lines=lines, chips=chips))
    return cards or "None were drawn."
