"""The data doctor: what a collection of songs is made of, and what is wrong with it.

`examine` turns a manifest into plain counts and lists, which are data_report.json; the `*_html`
functions show them on one self-contained page. Names, labels, captions and reasons are what
strangers wrote into files: each passes through `words` on its way to the page.
"""

import base64
import bisect
import collections
import itertools
import pathlib
import re

from specdiff_jax.audio.fingerprint import groups
from specdiff_jax.audio.quality_checks import findings, severity
from specdiff_jax.data.splits import SPLITS
from specdiff_jax.reports.charts import absent, bars_html, heat_html, text
from specdiff_jax.reports.html import filled, write_page
from specdiff_jax.runtime.logs import write_json

MAX_ROWS = 500  # of a table; the JSON holds all
MAX_WORDS = 160  # characters of a name, label, caption or reason
MAX_BARS, MAX_PAIRED, MAX_NAMES = 24, 12, 12
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
LOUDNESS = {edge: f"\N{MINUS SIGN}{-edge} dB" for edge in range(-60, 0, 5)}
BANDWIDTH = {1000 * edge: f"{edge} kHz" for edge in range(2, 26, 2)}
DURATIONS = {5: "5 s", 10: "10 s", 30: "30 s", 60: "1 min", 120: "2 min", 180: "3 min"}
DURATIONS |= {240: "4 min", 300: "5 min", 600: "10 min", 1800: "30 min"}


def write(cache_folder, manifest, spectrograms=()):
    """Writes data_report.json and data_report.html beside prepare's manifest.

    spectrograms: (song's name, bytes of a PNG). Returns the page's path.
    """
    folder = pathlib.Path(cache_folder)
    report = examine(manifest)
    write_json(folder / "data_report.json", report)
    page = page_html(report, manifest, spectrograms)
    return write_page(folder / "data_report.html", page)


# ---- a manifest -> plain values


def examine(manifest):
    """All that the report says, as one JSON object."""
    songs, facts = manifest["songs"], [song["facts"] for song in manifest["songs"] if song["facts"]]
    ill = [
        {**{key: song[key] for key in ("name", "artist", "split", "facts")}, "findings": found}
        for song in songs
        if song["facts"] and (found := findings(song["facts"]))
    ]
    ill.sort(key=lambda song: (-severity(song["facts"]), song["name"]))
    numbers = {"accepted": len(songs), "left_out": len(manifest["skipped"])}
    copies = clusters(manifest["duplicates"], {song["name"]: song["split"] for song in songs})
    warnings = [*manifest["warnings"], *contradictions(manifest, copies)]
    counts = collections.Counter(label for song in songs for label in set(song["labels"]))
    labels = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        **{key: manifest[key] for key in ("source", "sample_rate", "channels", "found")},
        **numbers,
        "healthy": not (ill or copies or warnings or manifest["skipped"]),
        "verdict": verdict(manifest["found"], **numbers, ill=len(ill), copies=len(copies)),
        "warnings": warnings,
        "splits": [split_facts(split, songs) for split in (*SPLITS, "all")],
        "skipped": manifest["skipped"],
        "findings": ill,
        "files": [{key: song[key] for key in ("name", "facts")} for song in songs],
        "duplicates": copies,
        "histograms": histograms(songs, facts),
        "labels": labels,
        "unlabelled": sum(not song["labels"] for song in songs),
        "together": together(songs, [label for label, _ in labels[:MAX_PAIRED]]),
    }


def verdict(found, accepted, left_out, ill, copies):
    """The report in a line."""
    line = f"{number(found, 'file')} found: {accepted:,} accepted, {left_out:,} left out. "
    line += f"{number(ill, 'song')} with findings, {number(copies, 'group')} of duplicates."
    return line.replace(" 0 songs", " No song").replace(" 0 groups", " no group")


def number(count, noun):
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def contradictions(manifest, copies):
    """What must not be: files nobody accounts for, and the same music on two sides of a split."""
    songs, lines = manifest["songs"], []
    lost = manifest["found"] - len(songs) - len(manifest["skipped"])
    if lost:
        lines.append(f"{lost} files were found but neither accepted nor left out.")
    sides = collections.defaultdict(set)
    for song in songs:
        sides[song["group"]].add(song["split"])
    torn = sorted(group for group, splits in sides.items() if len(splits) > 1)
    if torn:
        line = f"{number(len(torn), 'leak group')} in more than one split: "
        lines.append(line + ", ".join(cut(group, 60) for group in torn[:5]))
    torn = sum(len({s["split"] for s in group["songs"]} - {"left out"}) > 1 for group in copies)
    if torn:
        lines.append(f"{number(torn, 'group')} of duplicates in more than one split.")
    return lines


def split_facts(split, songs):
    inside = [song for song in songs if split in (song["split"], "all")]
    facts = {"songs": len(inside), "artists": len({song["artist"] for song in inside})}
    return {"split": split, **facts, "hours": sum(song["seconds"] for song in inside) / 3600}


def clusters(pairs, split_of):
    """Pairs of copies -> groups of songs that are copies through any chain of pairs."""
    names = sorted({name for pair in pairs for name in (pair["first"], pair["second"])})
    index = {name: number for number, name in enumerate(names)}
    linked = [(index[pair["first"]], index[pair["second"]]) for pair in pairs]
    members, pairs_of = collections.defaultdict(list), collections.defaultdict(list)
    group_of = dict(zip(names, groups(len(names), linked).tolist(), strict=True))
    for name in names:
        members[group_of[name]].append(name)
    for pair in pairs:
        pairs_of[group_of[pair["first"]]].append(pair)
    return [
        {
            "kind": "exact" if all(pair["kind"] == "exact" for pair in joined) else "near",
            "score": min(pair["score"] for pair in joined),
            "songs": [
                {"name": name, "split": split_of.get(name, "left out")} for name in members[group]
            ],
        }
        for group, joined in pairs_of.items()
    ]


def histograms(songs, facts):
    """{what: [[bar's name, songs], ...]}; facts are those of the sounds as they were found."""
    captions = collections.Counter(min(len(song["captions"]), 9) for song in songs)
    counts = range(max(captions, default=-1) + 1)
    rates = collections.Counter(fact["sample_rate"] for fact in facts)
    channels = collections.Counter(fact["channels"] for fact in facts)
    licences = collections.Counter(song["licence"] or "not stated" for song in songs)
    return {
        "Duration": histogram((song["seconds"] for song in songs), DURATIONS),
        "Loudness (RMS)": histogram((fact["rms_db"] for fact in facts), LOUDNESS),
        "Bandwidth": histogram((fact["bandwidth_hz"] for fact in facts), BANDWIDTH),
        "Sample rate": [[f"{rate:,} Hz", rates[rate]] for rate in sorted(rates)],
        "Channels": [[f"{n}", channels[n]] for n in sorted(channels)],
        "Captions per song": [["9 or more" if n == 9 else f"{n}", captions[n]] for n in counts],
        "Licence": licences.most_common(),
    }


def histogram(values, edges):
    """[[bar's name, count], ...] of values between named edges, without empty bars at the ends."""
    names, uppers = list(edges.values()), list(edges)
    between = [f"{low} to {high}" for low, high in itertools.pairwise(names)]
    bars = [[name, 0] for name in (f"under {names[0]}", *between, f"{names[-1]} or more")]
    for value in values:
        bars[bisect.bisect(uppers, value)][1] += 1
    full = [index for index, (_, count) in enumerate(bars) if count]
    return bars[full[0] : full[-1] + 1] if full else []


def together(songs, labels):
    """How many songs have both of two labels.  # counts [labels, labels]"""
    having = [{i for i, song in enumerate(songs) if label in song["labels"]} for label in labels]
    return {"labels": labels, "counts": [[len(a & b) for b in having] for a in having]}


# ---- plain values -> HTML


def cut(value, most=MAX_WORDS):
    """A stranger's string on one line, without control characters, cut with an ellipsis."""
    line = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(value)[: 4 * most].split()))
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def words(value, most=MAX_WORDS):
    """The same as HTML, its writing direction kept to itself."""
    return f"<bdi>{text(cut(value, most))}</bdi>"


def page_html(report, manifest, spectrograms):
    form = {1: "mono", 2: "stereo"}.get(report["channels"], f"{report['channels']} channels")
    return filled(
        "data_report.html",
        title=text(cut(report["source"])),
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
    return bars_html(heading, [(cut(name), count) for name, count in rows[:MAX_BARS]], **shape)


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
    measured = number(sum(bool(song["facts"]) for song in songs), "song")
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
    line = f"{number(len(labels), 'label')}; {number(unlabelled, 'song')} without any. "
    if len(labels) > MAX_BARS:
        line += f"The {MAX_BARS} most common; all are in data_report.json."
    return f'<p class="note">{line}</p>{drawn("Songs with it", labels, left=184)}'


def together_html(labels, counts):
    if len(labels) < 2:
        return absent("It takes two labels to go together.")
    note = "Songs with both; the stronger the tone, the more of the row's songs have the column's."
    return f'<p class="note">{note}</p>{heat_html([cut(label, 30) for label in labels], counts)}'


def spectrograms_html(spectrograms, songs):
    """Cards with a picture and what is known of its song."""
    song_of, cards = {song["name"]: song for song in songs}, []
    for name, png in spectrograms:
        song = song_of[name]
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        caption = "".join(f"<p>{words(line)}</p>" for line in song["captions"][:1])
        chips = "".join(f"<li>{words(label, 40)}</li>" for label in song["labels"][:12])
        cards.append(
            f'<article class="card"><img src="{source}" alt="Spectrogram of {text(cut(name))}">'
            f'<h3>{words(name)}</h3><p class="meta">{words(song["artist"])}</p>{caption}'
            f'<ul class="chips">{chips}</ul></article>'
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else absent("None were drawn.")
