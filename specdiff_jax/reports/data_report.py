"""The page of a data report: plain counts and lists -> one self-contained HTML file.

Names, labels, captions and reasons were written by strangers: each passes through `words` on its
way to the page.
"""

import base64
import re

from specdiff_jax.reports.charts import absent, bars_html, heat_html, text
from specdiff_jax.reports.html import filled

MAX_ROWS = 500  # of a table; the JSON holds all
MAX_WORDS = 160  # characters of a name, label, caption or reason
MAX_BARS, MAX_NAMES = 24, 12
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def count_noun(count, noun):
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(value, most=MAX_WORDS):
    """A stranger's string on one line, without control characters, cut with an ellipsis."""
    line = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(value)[: 4 * most].split()))
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def words(value, most=MAX_WORDS):
    """The same as HTML, its writing direction kept to itself."""
    return f"<bdi>{text(shorten(value, most))}</bdi>"


def page_html(report, manifest, spectrograms):
    form = {1: "mono", 2: "stereo"}.get(report["channels"], f"{report['channels']} channels")
    return filled(
        "data_report.html",
        title=text(shorten(report["source"])),
        prepared=f"Prepared at {report['sample_rate']:,} Hz, {form}.",
        tone="ok" if report["healthy"] else "warn",
        mark="✓" if report["healthy"] else "!",
        verdict=text(report["verdict"]),
        warnings="".join(f"<li>{words(line, 600)}</li>" for line in report["warnings"]),
        splits=splits_html(report["splits"]),
        skipped=skipped_html(report["skipped"]),
        findings=findings_html(report["findings"], manifest["songs"]),
        duplicates=duplicates_html(report["duplicates"]),
        histograms="".join(drawn(name, rows) for name, rows in report["histograms"].items()),
        labels=labels_html(report["labels"], report["unlabelled"]),
        together=together_html(**report["together"]),
        spectrograms=spectrograms_html(spectrograms, manifest["songs"]),
    )


def drawn(heading, rows, **shape):
    return bars_html(heading, [(shorten(name), count) for name, count in rows[:MAX_BARS]], **shape)


def table_html(names, rows, empty="", right=()):
    """A table of HTML cells, cut after MAX_ROWS rows; columns in `right` are numbers."""
    if not rows:
        return absent(empty)
    side = lambda column: ' class="n"' if column in right else ""
    head = "".join(f"<th{side(c)}>{text(name)}</th>" for c, name in enumerate(names))
    body = "".join(
        "<tr>" + "".join(f"<td{side(c)}>{cell}</td>" for c, cell in enumerate(row)) + "</tr>"
        for row in rows[:MAX_ROWS]
    )
    note = f"The first {MAX_ROWS} of {len(rows):,}; all are in data_report.json."
    note = f'<p class="note">{note}</p>' if len(rows) > MAX_ROWS else ""
    return (
        f'{note}<div class="scroll tall" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def splits_html(splits):
    cells = ("{split}", "{songs:,}", "{artists:,}", "{hours:.2f}")
    rows = [[cell.format(**split) for cell in cells] for split in splits]
    return table_html(("split", "songs", "artists", "hours"), rows, right=(1, 2, 3))


def skipped_html(skipped):
    rows = [(words(one["name"]), words(one["reason"])) for one in skipped]
    return table_html(("file", "why it was left out"), rows, "Nothing was left out.")


def song_html(name, meta):
    return f'<div>{words(name)} <span class="meta">{meta}</span></div>'


def findings_html(ill, songs):
    measured = count_noun(sum(bool(song["facts"]) for song in songs), "song")
    rows = []
    for one in ill:
        song = song_html(one["name"], f"{words(one['artist'])} · {text(one['split'])}")
        rows.append((song, "".join(f"<div>{text(line)}</div>" for line in one["findings"])))
    return table_html(("song", "what is wrong"), rows, f"No findings in {measured} measured.")


def duplicates_html(groups):
    rows = []
    for group in groups:
        names = [song_html(one["name"], text(one["split"])) for one in group["songs"]]
        if len(names) > MAX_NAMES:
            names[MAX_NAMES:] = [f"and {len(names) - MAX_NAMES:,} more"]
        rows.append(("".join(names), text(group["kind"]), f"{group['score']:.2f}"))
    return table_html(("songs", "copy", "score"), rows, "No song is a copy of another.", right=(2,))


def labels_html(labels, unlabelled):
    if not labels:
        return absent("No song has a label.")
    line = f"{count_noun(len(labels), 'label')}; {count_noun(unlabelled, 'song')} without any. "
    if len(labels) > MAX_BARS:
        line += f"The {MAX_BARS} most common; all are in data_report.json."
    return f'<p class="note">{line}</p>{drawn("Songs with it", labels, left=184)}'


def together_html(labels, counts):
    if len(labels) < 2:
        return absent("It takes two labels to go together.")
    note = "Songs with both; the stronger the tone, the more of the row's songs have the column's."
    return (
        f'<p class="note">{note}</p>{heat_html([shorten(label, 30) for label in labels], counts)}'
    )


def spectrograms_html(spectrograms, songs):
    """Cards with a picture and what is known of its song."""
    song_of, cards = {song["name"]: song for song in songs}, []
    for name, png in spectrograms:
        song = song_of[name]
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        caption = "".join(f"<p>{words(line)}</p>" for line in song["captions"][:1])
        chips = "".join(f"<li>{words(label, 40)}</li>" for label in song["labels"][:12])
        cards.append(
            f'<article class="card"><img src="{source}" alt="Spectrogram of {text(shorten(name))}">'
            f'<h3>{words(name)}</h3><p class="meta">{words(song["artist"])}</p>{caption}'
            f'<ul class="chips">{chips}</ul></article>'
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else absent("None were drawn.")
