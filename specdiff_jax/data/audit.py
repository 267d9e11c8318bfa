"""The data report of a prepared collection: its counts, splits, labels, duplicates and findings.

`examine` turns a manifest into plain counts and lists, which are written as data_report.json;
`reports.data_report` shows them on one self-contained page.
"""

import bisect
import collections
import itertools
import pathlib

from specdiff_jax.audio.fingerprint import groups
from specdiff_jax.audio.quality_checks import findings, severity
from specdiff_jax.data.splits import SPLITS
from specdiff_jax.reports.data_report import count_noun, page_html, shorten
from specdiff_jax.reports.html import write_page
from specdiff_jax.runtime.logs import write_json

MAX_PAIRED = 12  # labels whose co-occurrence is counted
LOUDNESS = {edge: f"\N{MINUS SIGN}{-edge} dB" for edge in range(-60, 0, 5)}
BANDWIDTH = {1000 * edge: f"{edge} kHz" for edge in range(2, 26, 2)}
DURATIONS = {5: "5 s", 10: "10 s", 30: "30 s", 60: "1 min", 120: "2 min", 180: "3 min"}
DURATIONS |= {240: "4 min", 300: "5 min", 600: "10 min", 1800: "30 min"}


def write_report(cache_folder, manifest, spectrograms=()):
    """Writes data_report.json and data_report.html beside prepare's manifest.

    spectrograms: (song's name, bytes of a PNG). Returns the page's path.
    """
    folder = pathlib.Path(cache_folder)
    report = examine(manifest)
    write_json(folder / "data_report.json", report)
    page = page_html(report, manifest, spectrograms)
    return write_page(folder / "data_report.html", page)


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
    copies = group_duplicates(
        manifest["duplicates"], {song["name"]: song["split"] for song in songs}
    )
    warnings = [*manifest["warnings"], *find_contradictions(manifest, copies)]
    counts = collections.Counter(label for song in songs for label in set(song["labels"]))
    labels = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        **{key: manifest[key] for key in ("source", "sample_rate", "channels", "found")},
        **numbers,
        "healthy": not (ill or copies or warnings or manifest["skipped"]),
        "verdict": summarize(manifest["found"], **numbers, ill=len(ill), copies=len(copies)),
        "warnings": warnings,
        "splits": [count_split(split, songs) for split in (*SPLITS, "all")],
        "skipped": manifest["skipped"],
        "findings": ill,
        "files": [{key: song[key] for key in ("name", "facts")} for song in songs],
        "duplicates": copies,
        "histograms": count_histograms(songs, facts),
        "labels": labels,
        "unlabelled": sum(not song["labels"] for song in songs),
        "together": count_label_pairs(songs, [label for label, _ in labels[:MAX_PAIRED]]),
    }


def summarize(found, accepted, left_out, ill, copies):
    """The report in a line."""
    line = f"{count_noun(found, 'file')} found: {accepted:,} accepted, {left_out:,} left out. "
    line += f"{count_noun(ill, 'song')} with findings, {count_noun(copies, 'group')} of duplicates."
    return line.replace(" 0 songs", " No song").replace(" 0 groups", " no group")


def find_contradictions(manifest, copies):
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
        line = f"{count_noun(len(torn), 'leak group')} in more than one split: "
        lines.append(line + ", ".join(shorten(group, 60) for group in torn[:5]))
    torn = sum(len({s["split"] for s in group["songs"]} - {"left out"}) > 1 for group in copies)
    if torn:
        lines.append(f"{count_noun(torn, 'group')} of duplicates in more than one split.")
    return lines


def count_split(split, songs):
    inside = [song for song in songs if split in (song["split"], "all")]
    facts = {"songs": len(inside), "artists": len({song["artist"] for song in inside})}
    return {"split": split, **facts, "hours": sum(song["seconds"] for song in inside) / 3600}


def group_duplicates(pairs, split_of):
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


def count_histograms(songs, facts):
    """{what: [[bar's name, songs], ...]}; facts are those of the sounds as they were found."""
    captions = collections.Counter(min(len(song["captions"]), 9) for song in songs)
    counts = range(max(captions, default=-1) + 1)
    rates = collections.Counter(fact["sample_rate"] for fact in facts)
    channels = collections.Counter(fact["channels"] for fact in facts)
    licences = collections.Counter(song["licence"] or "not stated" for song in songs)
    return {
        "Duration": count_bins((song["seconds"] for song in songs), DURATIONS),
        "Loudness (RMS)": count_bins((fact["rms_db"] for fact in facts), LOUDNESS),
        "Bandwidth": count_bins((fact["bandwidth_hz"] for fact in facts), BANDWIDTH),
        "Sample rate": [[f"{rate:,} Hz", rates[rate]] for rate in sorted(rates)],
        "Channels": [[f"{n}", channels[n]] for n in sorted(channels)],
        "Captions per song": [["9 or more" if n == 9 else f"{n}", captions[n]] for n in counts],
        "Licence": licences.most_common(),
    }


def count_bins(values, edges):
    """[[bar's name, count], ...] of values between named edges, without empty bars at the ends."""
    names, uppers = list(edges.values()), list(edges)
    between = [f"{low} to {high}" for low, high in itertools.pairwise(names)]
    bars = [[name, 0] for name in (f"under {names[0]}", *between, f"{names[-1]} or more")]
    for value in values:
        bars[bisect.bisect(uppers, value)][1] += 1
    full = [index for index, (_, count) in enumerate(bars) if count]
    return bars[full[0] : full[-1] + 1] if full else []


def count_label_pairs(songs, labels):
    """How many songs have both of two labels.  # counts [labels, labels]"""
    having = [{i for i, song in enumerate(songs) if label in song["labels"]} for label in labels]
    return {"labels": labels, "counts": [[len(a & b) for b in having] for a in having]}
