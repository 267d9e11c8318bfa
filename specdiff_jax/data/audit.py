"""The data report of a prepared collection: its counts, splits, labels, duplicates and findings.

`examine` turns a manifest into plain counts and lists, which are written as data_report.json;
`reports.data_report` shows them on one self-contained page.
"""

import bisect
import collections
import itertools
import pathlib

from specdiff_jax.audio.fingerprint import group_songs
from specdiff_jax.audio.quality_checks import list_problems, severity
from specdiff_jax.data.splits import SPLITS
from specdiff_jax.reports.data_report import count_noun, render_data_report, shorten
from specdiff_jax.reports.html import write_page
from specdiff_jax.runtime.files import write_json

MAX_PAIRED = 12  # labels whose co-occurrence is counted
LOUDNESS = {edge: f"\N{MINUS SIGN}{-edge} dB" for edge in range(-60, 0, 5)}
BANDWIDTH = {1000 * edge: f"{edge} kHz" for edge in range(2, 26, 2)}
DURATIONS = {5: "5 s", 10: "10 s", 30: "30 s", 60: "1 min", 120: "2 min", 180: "3 min"}
DURATIONS |= {240: "4 min", 300: "5 min", 600: "10 min", 1800: "30 min"}


def write_report(cache_folder, manifest, spectrograms=()):
    """Write data_report.json and data_report.html beside the manifest; return the page's path.

    Args:
      spectrograms: (song's name, bytes of a PNG) of a few songs.
    """
    folder = pathlib.Path(cache_folder)
    report = examine(manifest)
    write_json(folder / "data_report.json", report)
    page = render_data_report(report, manifest, spectrograms)
    return write_page(folder / "data_report.html", page)


def examine(manifest):
    """Return the whole report as one JSON object."""
    songs, skipped = manifest["songs"], manifest["skipped"]
    facts = [song["facts"] for song in songs if song["facts"]]
    flagged = [
        {**{key: song[key] for key in ("name", "artist", "split", "facts")}, "findings": lines}
        for song in songs
        if song["facts"] and (lines := list_problems(song["facts"]))
    ]
    flagged.sort(key=lambda song: (-severity(song["facts"]), song["name"]))
    split_of = {song["name"]: song["split"] for song in songs}
    duplicates = group_duplicates(manifest["duplicates"], split_of)
    warnings = [*manifest["warnings"], *find_contradictions(manifest, duplicates)]
    counts = collections.Counter(label for song in songs for label in set(song["labels"]))
    labels = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        **{key: manifest[key] for key in ("source", "sample_rate", "channels", "num_items")},
        "accepted": len(songs),
        "left_out": len(skipped),
        "healthy": not (flagged or duplicates or warnings or skipped),
        "verdict": summarize(manifest, len(flagged), len(duplicates)),
        "warnings": warnings,
        "splits": [count_split(split, songs) for split in (*SPLITS, "all")],
        "skipped": skipped,
        "findings": flagged,
        "files": [{key: song[key] for key in ("name", "facts")} for song in songs],
        "duplicates": duplicates,
        "histograms": count_histograms(songs, facts),
        "labels": labels,
        "unlabelled": sum(not song["labels"] for song in songs),
        "together": count_label_pairs(songs, [label for label, _ in labels[:MAX_PAIRED]]),
    }


def summarize(manifest, num_flagged, num_groups):
    """Return the report in a line."""
    accepted, left_out = len(manifest["songs"]), len(manifest["skipped"])
    line = f"{count_noun(manifest['num_items'], 'file')}: {accepted:,} accepted, "
    line += f"{left_out:,} left out. {count_noun(num_flagged, 'song')} with findings, "
    line += f"{count_noun(num_groups, 'group')} of duplicates."
    return line.replace(" 0 songs", " No song").replace(" 0 groups", " no group")


def find_contradictions(manifest, duplicates):
    """Return a line for files that are missing from the counts and for music in two splits."""
    songs, lines = manifest["songs"], []
    missing = manifest["num_items"] - len(songs) - len(manifest["skipped"])
    if missing:
        lines.append(f"{missing} files were neither accepted nor left out.")
    splits_of = collections.defaultdict(set)
    for song in songs:
        splits_of[song["group"]].add(song["split"])
    if divided := sorted(group for group, splits in splits_of.items() if len(splits) > 1):
        line = f"{count_noun(len(divided), 'leak group')} in more than one split: "
        lines.append(line + ", ".join(shorten(group, 60) for group in divided[:5]))
    splits_of = [{song["split"] for song in group["songs"]} - {"left out"} for group in duplicates]
    if num_divided := sum(len(splits) > 1 for splits in splits_of):
        lines.append(f"{count_noun(num_divided, 'group')} of duplicates in more than one split.")
    return lines


def count_split(split, songs):
    """Return songs, artists and hours of a split, or of all."""
    chosen = [song for song in songs if split in (song["split"], "all")]
    counts = {"songs": len(chosen), "artists": len({song["artist"] for song in chosen})}
    return {"split": split, **counts, "hours": sum(song["seconds"] for song in chosen) / 3600}


def group_duplicates(pairs, split_of):
    """Join pairs of duplicates into groups of songs that any chain of pairs connects."""
    names = sorted({name for pair in pairs for name in (pair["first"], pair["second"])})
    index = {name: number for number, name in enumerate(names)}
    linked = [(index[pair["first"]], index[pair["second"]]) for pair in pairs]
    members, pairs_of = collections.defaultdict(list), collections.defaultdict(list)
    group_of = dict(zip(names, group_songs(len(names), linked).tolist(), strict=True))
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
    """Return {what: [[bar's name, songs], ...]}; facts are of the files before any processing."""
    captions = collections.Counter(min(len(song["captions"]), 9) for song in songs)
    counts = range(max(captions, default=-1) + 1)
    rates = collections.Counter(fact["sample_rate"] for fact in facts)
    channels = collections.Counter(fact["channels"] for fact in facts)
    licenses = collections.Counter(song["license"] or "not stated" for song in songs)
    return {
        "Duration": count_bins((song["seconds"] for song in songs), DURATIONS),
        "Loudness (RMS)": count_bins((fact["rms_db"] for fact in facts), LOUDNESS),
        "Bandwidth": count_bins((fact["bandwidth_hz"] for fact in facts), BANDWIDTH),
        "Sample rate": [[f"{rate:,} Hz", rates[rate]] for rate in sorted(rates)],
        "Channels": [[f"{n}", channels[n]] for n in sorted(channels)],
        "Captions per song": [["9 or more" if n == 9 else f"{n}", captions[n]] for n in counts],
        "License": licenses.most_common(),
    }


def count_bins(values, edges):
    """Return [[name of a bar, count], ...] between named edges, without empty bars at the ends."""
    names, uppers = list(edges.values()), list(edges)
    between = [f"{low} to {high}" for low, high in itertools.pairwise(names)]
    bars = [[name, 0] for name in (f"under {names[0]}", *between, f"{names[-1]} or more")]
    for value in values:
        bars[bisect.bisect(uppers, value)][1] += 1
    full = [index for index, (_, count) in enumerate(bars) if count]
    return bars[full[0] : full[-1] + 1] if full else []


def count_label_pairs(songs, labels):
    """Return how many songs have both of two labels.  # counts [labels, labels]"""
    songs_of = [{i for i, song in enumerate(songs) if label in song["labels"]} for label in labels]
    return {"labels": labels, "counts": [[len(a & b) for b in songs_of] for a in songs_of]}
