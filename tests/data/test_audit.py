"""The data report: its counts agree with the manifest, its texts are escaped, it loads nothing."""

import collections
import copy
import html.parser
import json
import random
import re

import pytest

from specdiff_jax.data import audit
from specdiff_jax.reports import data_report
from specdiff_jax.reports.charts import lay_out_bars
from specdiff_jax.reports.html import render_macro

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=https://example.com/x onerror=alert(2)>',
    "</script>'&\"\n\r\0\x1b[31m",
    b"caf\xe9.mp3".decode("utf-8", "surrogateescape"),
    "\u202egnp.\u202d $title ${style}",
    "long " * 20000,
]
PNG = b"\x89PNG\r\n\x1a\n not a whole one"
GOOD = {
    "sample_rate": 44100,
    "channels": 2,
    "seconds": 100.0,
    "claimed_seconds": 100.0,
    "peak": 0.9,
    "clipped_fraction": 0.0,
    "dc": 0.0,
    "rms_db": -15.0,
    "silent_fraction": 0.0,
    "bandwidth_hz": 20000.0,
    "non_finite": 0,
}


def song(index, **fields):
    split = ("train", "valid", "test")[index % 3]
    return {
        "name": f"song {index}",
        "artist": f"artist {index % 9}",
        "album": None,
        "labels": ["genre:folk", f"mood:{index % 4}"],
        "captions": [f"caption {k}" for k in range(index % 3)],
        "license": None,
        "split": split,
        "group": f"{split} {index % 5}",
        "seconds": 90.0 + index,
        "facts": dict(GOOD),
    } | fields


def manifest_of(songs, skipped=(), duplicates=(), warnings=()):
    return {
        "source": "music",
        "sample_rate": 22050,
        "channels": 1,
        "num_items": len(songs) + len(skipped),
        "songs": songs,
        "skipped": list(skipped),
        "duplicates": list(duplicates),
        "warnings": list(warnings),
    }


def pair(first, second, kind="near", score=0.8):
    return {"first": first, "second": second, "kind": kind, "score": score}


@pytest.fixture
def hostile():
    """Return a manifest in which every string is hostile."""
    songs = [
        song(
            index,
            name=f"{text}{index}",
            artist=text,
            album=text,
            labels=[text, *HOSTILE],
            captions=[text],
            license=text,
            group=text,
            facts=GOOD | {"dc": 0.5},
        )
        for index, text in enumerate(HOSTILE * 3)
    ]
    skipped = [{"name": text, "reason": text} for text in HOSTILE]
    pairs = [pair(songs[0]["name"], one["name"]) for one in songs[1:]]
    return manifest_of(songs, skipped, pairs, HOSTILE) | {"source": HOSTILE[1]}


def written(folder, manifest, spectrograms=()):
    """(the page, the report) of a manifest."""
    path = audit.write_report(folder, manifest, spectrograms)
    report = json.loads((folder / "data_report.json").read_text())
    return path.read_text("utf-8"), report


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes, and the tags that were never closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def rows_of(page, heading):
    """The table rows of one section."""
    section = page.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]
    return (
        re.findall(r"<tr>(.*?)</tr>", section.split("<tbody>")[1]) if "<tbody>" in section else []
    )


def test_report_page_escapes_hostile_strings(tmp_path, hostile):
    page, _ = written(tmp_path, hostile, [(hostile["songs"][0]["name"], PNG)])
    tags = Tags(page)
    assert not tags.open
    assert not [tag for tag, _ in tags.tags if tag in ("script", "a", "link", "iframe", "audio")]
    assert not [key for _, keys in tags.tags for key in keys if key.startswith("on")]
    images = [keys["src"] for tag, keys in tags.tags if tag == "img"]
    assert len(images) == 1 and images[0].startswith("data:image/png;base64,")
    assert "<script>alert(1)</script>" in "".join(tags.words)
    assert "\0" not in page and "\x1b" not in page and "${style}" in page


def test_report_page_shows_and_escapes_every_field(tmp_path):
    bad = {key: f"<script>{key}</script>" for key in ("name", "artist", "license")}
    one = song(0, **bad, labels=["<script>label</script>"], captions=["<script>caption</script>"])
    one["facts"]["dc"] = 0.5
    skipped = [{"name": "<script>file</script>", "reason": "<script>reason</script>"}]
    manifest = manifest_of([one], skipped, [pair(bad["name"], "<script>copy</script>")])
    manifest |= {"source": "<script>source</script>", "warnings": ["<script>warning</script>"]}
    page, _ = written(tmp_path, manifest, [(bad["name"], PNG)])
    assert "<script" not in page
    escaped = set(re.findall("&lt;script&gt;([a-z]*)&lt;/scr", page))
    fields = {"label", "caption", "file", "reason", "copy", "source", "warning"}
    assert escaped == fields | set(bad)


def test_report_page_loads_nothing_from_outside(tmp_path, hostile):
    page, _ = written(tmp_path, hostile)
    for _, keys in Tags(page).tags:
        assert not {"href", "srcset", "action", "data"} & set(keys)
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "--paper:" in style and "$" not in style  # the common style was filled in
    assert "default-src 'none'" in page


def test_report_cuts_long_strings_on_the_page_not_in_the_json(tmp_path, hostile):
    page, report = written(tmp_path, hostile)
    assert len(page) < 300_000 and "long long" in page and "…" in page
    assert report["skipped"] == hostile["skipped"]  # surrogates and 100 kB included


def test_report_json_equals_examine(tmp_path, hostile):
    before = copy.deepcopy(hostile)
    _, report = written(tmp_path, hostile)
    assert report == json.loads(json.dumps(audit.examine(hostile)))
    assert hostile == before


def test_report_counts_add_up(tmp_path):
    songs = [song(index) for index in range(40)]
    for one in songs[:7]:
        one["facts"]["clipped_fraction"] = 0.25
    songs[20]["facts"] = None  # rendered: nothing was measured
    songs[5]["labels"] = []
    skipped = [{"name": f"bad {k}", "reason": "empty"} for k in range(3)]
    page, report = written(tmp_path, manifest_of(songs, skipped, [pair("song 1", "song 4")]))
    line = "43 files: 40 accepted, 3 left out. 7 songs with findings, 1 group of duplicates."
    assert line in page and report["verdict"] == line and not report["healthy"]
    assert [one["facts"] for one in report["files"]] == [one["facts"] for one in songs]
    *splits, total = report["splits"]
    assert sum(split["songs"] for split in splits) == total["songs"] == 40
    assert total["artists"] == len({one["artist"] for one in songs})
    assert total["hours"] == pytest.approx(sum(one["seconds"] for one in songs) / 3600)
    for name, rows in report["histograms"].items():
        measured = name in ("Loudness (RMS)", "Bandwidth", "Sample rate", "Channels")
        assert sum(count for _, count in rows) == 40 - measured, name
    labels = collections.Counter(label for one in songs for label in one["labels"])
    assert dict(report["labels"]) == labels and report["unlabelled"] == 1
    assert len(rows_of(page, "Left out")) == 3
    assert len(rows_of(page, "Accepted, with findings")) == 7 and not report["warnings"]


def test_count_bins_puts_each_value_between_its_edges():
    bars = audit.count_bins([4.9, 5.0, 9.9, 10.0, 119, 1e9], audit.DURATIONS)
    assert [bars[0], bars[1], bars[2]] == [
        ["under 5 s", 1],
        ["5 s to 10 s", 2],
        ["10 s to 30 s", 1],
    ]
    assert dict(bars)["1 min to 2 min"] == 1 and bars[-1] == ["30 min or more", 1]
    assert audit.count_bins([], audit.DURATIONS) == []


def test_label_pairs_are_symmetric():
    songs = [
        song(0, labels=["a", "b"]),
        song(1, labels=["b", "b"]),
        song(2, labels=["c", "a", "b"]),
    ]
    together = audit.examine(manifest_of(songs))["together"]
    assert together == {"labels": ["b", "a", "c"], "counts": [[3, 2, 1], [2, 2, 1], [1, 1, 1]]}


def test_findings_begin_with_the_most_severe(tmp_path):
    songs = [song(index) for index in range(data_report.MAX_ROWS + 12)]
    for one in songs:
        one["facts"]["dc"] = 0.1
    songs[-1]["facts"]["silent_fraction"] = 1.0
    page, report = written(tmp_path, manifest_of(songs))
    rows = rows_of(page, "Accepted, with findings")
    assert len(rows) == data_report.MAX_ROWS and songs[-1]["name"] in rows[0]
    assert (
        f"The first {data_report.MAX_ROWS} of {len(songs):,}; all are in data_report.json." in page
    )
    assert len(report["findings"]) == len(songs)


def test_group_duplicates_joins_chains_in_any_order():
    names = [f"song {index}" for index in range(30)]
    pairs = [pair(a, b) for a, b in zip(names[:19], names[1:20], strict=True)]
    pairs += [pair(names[25], names[26], "exact", 1.0), pair(names[3], names[11], score=0.4)]
    for seed in range(5):
        random.Random(seed).shuffle(pairs)
        groups = audit.group_duplicates(pairs, {name: "train" for name in names[:25]})
        groups.sort(key=lambda group: -len(group["songs"]))
        assert [one["name"] for one in groups[0]["songs"]] == sorted(names[:20])
        assert groups[0]["kind"] == "near" and groups[0]["score"] == 0.4
        assert groups[1]["kind"] == "exact" and len(groups) == 2
        assert [one["split"] for one in groups[1]["songs"]] == ["left out"] * 2


def test_report_warns_of_missing_files_and_divided_groups(tmp_path):
    songs = [song(0, group="one choir"), song(1, group="one choir"), song(2)]
    pairs = [pair("song 0", "song 2"), pair("song 1", "left out")]
    page, report = written(tmp_path, manifest_of(songs, duplicates=pairs) | {"num_items": 5})
    assert report["warnings"] == [
        "2 files were neither accepted nor left out.",
        "1 leak group in more than one split: one choir",
        "1 group of duplicates in more than one split.",
    ]
    assert all(line in page for line in report["warnings"]) and 'class="verdict warn"' in page


def test_report_of_a_clean_collection_is_healthy(tmp_path):
    page, report = written(tmp_path, manifest_of([song(index) for index in range(9)]))
    assert report["healthy"] and 'class="verdict ok"' in page
    assert "9 files: 9 accepted, 0 left out. No song with findings" in page
    assert "Nothing was left out." in page and "No song is a copy of another." in page


@pytest.mark.parametrize("count", [0, 1])
def test_report_of_at_most_one_song_is_a_page(tmp_path, count):
    songs = [song(0, labels=[], captions=[], facts=None)][:count]
    page, report = written(tmp_path, manifest_of(songs))
    assert not Tags(page).open and report["accepted"] == count
    assert "No song has a label." in page and "Not measured." in page


def test_bars_are_proportional_to_their_counts():
    svg = render_macro("bars", lay_out_bars("heading", [("a", 40), ("b", 10), ("c", 0)]))
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"/>', svg)]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.2) and widths[2] == 0
    assert "Not measured." in render_macro("bars", lay_out_bars("heading", []))
