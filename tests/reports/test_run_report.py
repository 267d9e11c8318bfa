"""The page of a run shows what is in the workdir, escaped, and loads nothing from outside."""

import base64
import itertools
import json
import re
import shutil
import struct
import wave
import zlib

import pytest

from specdiff_jax.reports.run_report import write_run_report
from tests.helpers.html_page import Page

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script>'&\"", "\ud800"]
LEVELS = [0.125, 0.375, 0.625, 0.875]
MODEL = [0.01, 0.05, 0.11, 0.206]
BASELINES = {
    "constant": [0.9, 0.9, 0.9, 0.9],
    "linear_frame": [0.05, 0.15, 0.25, 0.39],
    "linear_patch": [0.005, 0.02, 0.05, 0.1],
    HOSTILE[1]: [0.1, 0.2, 0.3, 0.4],
}


def write_wav(path, seed):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<200h", *((seed * 7919 + 31 * i) % 999 for i in range(200))))


def write_png(path, seed):
    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(bytes([0, seed % 256])))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixel + chunk(b"IEND", b""))


def write_clip(folder, stem, seed):
    folder.mkdir(parents=True, exist_ok=True)
    write_wav(folder / f"{stem}.wav", seed)
    write_png(folder / f"{stem}.png", seed)


@pytest.fixture
def workdir(tmp_path):
    """Return the workdir of a whole run in which every name is hostile."""
    config = {"name": HOSTILE[0], "description": HOSTILE[1], HOSTILE[2]: HOSTILE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preflight.json").write_text(json.dumps({"lines": ["device: cpu", *HOSTILE]}))
    write_health(tmp_path, True)
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 501):
            train = {"kind": "train", "step": step, "loss": 1 / step, "grad_norm": 0.3}
            valid = {"kind": "valid", "step": step, "x0_error": 1.1 / step}
            for record in (train, valid) if step % 50 == 0 else (train,):
                file.write(json.dumps(record) + "\n")
    clips = []
    for index, name in enumerate(HOSTILE):
        stems = {"real": f"{index:03d}_real", "roundtrip": f"{index:03d}_roundtrip"}
        write_clip(tmp_path / "reference", stems["real"], index)
        write_clip(tmp_path / "reference", stems["roundtrip"], 50 + index)
        words = {"name": name, "artist": name, "captions": [name], "labels": [name]}
        clips.append({**words, **stems, "snr_db": -1.25, "log_spectral_distance_db": 4.5})
    reference = {"representation": HOSTILE[0], "snr_db": 1.5, "log_spectral_distance_db": 4.5}
    reference_json = json.dumps({**reference, "clips": clips})
    (tmp_path / "reference" / "reference.json").write_text(reference_json)
    for step in (9, 10, 200, 3000):
        for index in range(2):
            folder = tmp_path / "samples" / f"step_{step:08d}"
            write_clip(folder, f"{index:03d}", 100 + step + index)
            sidecar = {"seed": 7, "index": index, "sampler": HOSTILE[0], "nfe": HOSTILE[1]}
            sidecar |= {
                "ema": True,
                "checkpoint_sha256": "0" * 64,
                "request": {"prompt": HOSTILE[0]},
            }
            sidecar |= {"inferred_labels": {HOSTILE[0]: [HOSTILE[1]]}}
            (folder / f"{index:03d}.json").write_text(json.dumps(sidecar))
    return tmp_path


def write_health(workdir, healthy):
    health = {"step": 500, "healthy": healthy, "verdict": f"fine {HOSTILE[0]}", "levels": LEVELS}
    health |= {"x0_error": MODEL, "baselines": BASELINES}
    (workdir / "health.json").write_text(json.dumps(health))


def test_run_report_escapes_names(workdir):
    page = Page(write_run_report(workdir))
    allowed = re.compile(
        "html|head|meta|title|style|body|header|main|footer|section|div|h[123]|p|b|bdi|span"
        "|details|summary|article|img|audio|ul|li|figure|figcaption|svg|line|text|polyline|g|path"
        "|circle|dl|dt|dd|pre|table|thead|tbody|tr|th|td"
    )
    assert [tag for tag, _ in page.tags if not allowed.fullmatch(tag)] == []
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.named("img"))
    assert f"listening page {HOSTILE[0]} {HOSTILE[1]}" in page.text()
    for name in HOSTILE[:3]:
        assert page.text().count(" ".join(name.split())) >= 4


def test_run_report_is_self_contained(workdir):
    path = write_run_report(workdir)
    page = Page(path)
    links = [
        a[key] for _, a in page.tags for key in ("src", "href", "srcset", "action") if key in a
    ]
    assert links and all(link.startswith("data:") for link in links)
    style = path.read_text("utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = [a for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(maxsplit=1) for rule in policy[0]["content"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert not {"script-src", "connect-src", "frame-src"} & set(rules)


def test_run_report_embeds_the_bytes_of_media_newest_first(workdir):
    page = Page(write_run_report(workdir))
    folders = [workdir / "samples" / f"step_{step:08d}" for step in (3000, 200, 10)]
    stems = [folder / f"{index:03d}" for folder in folders for index in range(2)]
    for index in range(len(HOSTILE)):
        stems += [workdir / "reference" / f"{index:03d}_{part}" for part in ("real", "roundtrip")]
    for tag, suffix in (("audio", ".wav"), ("img", ".png")):
        media = [base64.b64decode(a["src"].split(",")[1]) for a in page.named(tag)]
        assert media == [stem.with_name(stem.name + suffix).read_bytes() for stem in stems]
    opened = ["open" in attributes for attributes in page.named("details")]
    assert opened == [True, False, False, False]  # three steps and the configuration


def test_ratio_table_divides_the_means(workdir):
    rows = {row[0].strip(): row[1:] for row in Page(write_run_report(workdir)).rows}
    model = sum(MODEL) / 4
    assert float(rows["model"][0]) == pytest.approx(model, abs=5e-4)
    names = ("best constant", "linear, frame", "linear, patch", HOSTILE[1])
    for name, errors in zip(names, BASELINES.values(), strict=True):
        base = sum(errors) / 4
        assert float(rows[name][0]) == pytest.approx(base, abs=5e-4)
        assert float(rows[name][1]) == pytest.approx(model / base, abs=5e-4)
    assert rows["mean"] == ["1.5", "4.5"]


@pytest.mark.parametrize(("healthy", "tone"), [(True, "ok"), (False, "warn")])
def test_verdict_comes_first_and_is_colored(workdir, healthy, tone):
    write_health(workdir, healthy)
    page = Page(write_run_report(workdir))
    classes = [attributes.get("class") or "" for _, attributes in page.tags]
    assert classes.index(f"verdict {tone}") < classes.index("generated")
    assert sum(name.startswith("verdict") for name in classes) == 1
    assert f"fine {HOSTILE[0]}" in page.text()


def curves(path):
    """Return [(width, height, points)] of every polyline of the page."""
    lines = []
    for svg in re.findall(r"<svg class=\"(?:wide|narrow)\".*?</svg>", path.read_text("utf-8")):
        width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
        for line in re.findall(r'<polyline points="([^"]*)"', svg):
            points = [tuple(map(float, pair.split(","))) for pair in line.split()]
            lines.append((width, height, points))
    return lines


def test_run_report_curves_lie_inside_the_frame_and_follow_the_error(workdir):
    lines = curves(write_run_report(workdir))
    assert len(lines) == 2 * (2 + 1 + len(BASELINES))  # a wide and a narrow chart of each
    for width, height, points in lines:
        xs, ys = zip(*points, strict=True)
        assert all(before < after for before, after in itertools.pairwise(xs))
        assert all(0 <= x <= width for x in xs) and all(0 <= y <= height for y in ys)
    losses, held_out = [line for *_, line in lines[:2]]
    assert {len(losses), len(held_out)} == {10, 125}  # 500 records as means of four
    for line in (losses, held_out):  # y points down, so a falling loss has a growing y
        assert all(a[1] <= b[1] for a, b in itertools.pairwise(line))


@pytest.mark.parametrize(
    "name",
    ["config.json", "preflight.json", "metrics.jsonl", "health.json", "reference/reference.json"],
)
def test_run_report_names_missing_files(workdir, name):
    assert f"{name} is missing" not in Page(write_run_report(workdir)).text()
    (workdir / name).unlink()
    assert f"{name} is missing" in Page(write_run_report(workdir)).text()


def test_run_report_of_an_empty_workdir_names_every_missing_file(workdir, tmp_path_factory):
    page = Page(write_run_report(tmp_path_factory.mktemp("empty")))
    assert page.text().count(" is missing") == 8  # each section names its file
    assert "samples/ holds no samples yet" in page.text()
    assert not page.named("audio") and not page.named("svg")
    with pytest.raises(ValueError, match="no such run directory"):
        write_run_report(workdir / "nowhere")


def test_cards_name_missing_media(workdir):
    shutil.rmtree(workdir / "samples" / "step_00000200")
    newest = workdir / "samples" / "step_00003000"
    for name in ("000.png", "001.wav", "001.json"):
        (newest / name).unlink()
    page = Page(write_run_report(workdir))
    for name in ("000.png", "001.wav", "001.json"):
        assert f"{name} is missing." in page.text()
    assert len(page.named("audio")) == 1 + 4 + 2 * len(HOSTILE)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", b"{", "config.json: Expecting"),
        ("config.json", b"[1]", "config.json: expected a JSON object"),
        ("preflight.json", b"{}", "preflight.json: field 'lines' is missing"),
        ("preflight.json", b"\xff\xfe\xfa", "preflight.json: "),
        ("health.json", b'{"step": 1, "healthy": "no"}', "health.json: healthy must be"),
        (
            "health.json",
            b'{"step": 1, "healthy": true, "verdict": "", "levels": [0.5], "x0_error": [1, 2],'
            b' "baselines": {}}',
            "health.json: x0_error has 2 values for 1 levels",
        ),
        ("metrics.jsonl", b'{"kind": \n{"kind": "new"}\n', "metrics.jsonl line 1: "),
        ("metrics.jsonl", b'{"kind": "train", "step": 1}\n', "metrics.jsonl line 1: field 'loss'"),
        ("reference/reference.json", b'{"clips": 3}', "reference.json: "),
        ("samples/step_00003000/001.wav", b"", "step_00003000/001.wav: not a WAV file"),
        ("samples/step_00003000/001.json", b"3", "step_00003000/001.json: expected"),
        ("reference/000_real.png", b"<svg/>", "reference/000_real.png: not a PNG file"),
    ],
)
def test_malformed_file_is_refused_and_the_old_page_kept(workdir, name, content, complaint):
    before = write_run_report(workdir).read_bytes()
    (workdir / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        write_run_report(workdir)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert (workdir / "report.html").read_bytes() == before


def test_clip_name_outside_its_folder_is_refused(workdir):
    path = workdir / "reference" / "reference.json"
    path.write_text(path.read_text().replace("000_real", "../samples/step_00003000/000"))
    with pytest.raises(ValueError, match="not the plain name of a clip"):
        write_run_report(workdir)


def test_read_metrics_drops_a_torn_line_and_replaces_a_repeated_step(workdir):
    whole = curves(write_run_report(workdir))
    path = workdir / "metrics.jsonl"
    again = [line for line in path.read_text().splitlines() if '"step": 500,' in line]
    path.write_text(path.read_text() + "\n".join(again) + '\n{"kind": "train", "st')
    assert curves(write_run_report(workdir)) == whole


def test_run_report_counts_clips_left_out_for_size(workdir):
    clip = [workdir / "reference" / f"000_real{suffix}" for suffix in (".wav", ".png")]
    one = sum(len(base64.b64encode(file.read_bytes())) for file in clip)
    page = Page(write_run_report(workdir, max_bytes=4 * one + 100))
    assert len(page.named("audio")) == 4  # sample 0, clip 0, sample 1, its round trip
    assert "3 of 4 left out to keep this page small; they are in reference/" in page.text()
    assert (
        "2 of 2 left out to keep this page small; they are in samples/step_00000200/" in page.text()
    )
