"""The files of a run's workdir as plain checked values.

Whatever is wrong with a file becomes a one-line ValueError that names it.
"""

import base64
import itertools
import json
import math
import pathlib
import re

from specdiff_jax.runtime.files import parse_json, read_json

STEPS_SHOWN = 3
MEDIA = {".wav": ("audio/wav", (b"RIFF", b"RF64")), ".png": ("image/png", (b"\x89PNG",))}
RATES = ("grad_norm", "learning_rate", "steps_per_second", "audio_per_second")


def read_run(workdir):
    """Return the checked files of a run by name: None for a missing file, [] without samples."""
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such run directory")
    return {
        "config": read_json(workdir / "config.json"),
        "facts": read_json(workdir / "preflight.json", parse_preflight),
        "health": read_json(workdir / "health.json", parse_health),
        "reference": read_json(workdir / "reference" / "reference.json", parse_reference),
        "metrics": read_metrics(workdir / "metrics.jsonl"),
        "steps": find_samples(workdir / "samples"),
    }


def parse_preflight(data):
    """Return the lines of preflight.json."""
    return [str(line) for line in data["lines"]]


def parse_health(data):
    """Return the checked values of health.json."""
    if not isinstance(data["healthy"], bool):
        raise ValueError("healthy must be true or false")
    health = {
        "step": int(data["step"]),
        "healthy": data["healthy"],
        "verdict": str(data["verdict"]),
        "levels": parse_numbers(data["levels"]),
        "model": parse_numbers(data["x0_error"]),
        "baselines": {str(name): parse_numbers(row) for name, row in data["baselines"].items()},
    }
    for name, row in {"x0_error": health["model"], **health["baselines"]}.items():
        if not row or len(row) != len(health["levels"]):
            raise ValueError(f"{name} has {len(row)} values for {len(health['levels'])} levels")
    return health


def parse_reference(data):
    """Return the checked clips and means of reference.json."""
    clips = [
        {
            "name": str(clip["name"]),
            "artist": str(clip.get("artist") or ""),
            "captions": [str(caption) for caption in clip.get("captions") or []],
            "labels": [str(label) for label in clip.get("labels") or []],
            "real": check_clip_name(clip["real"]),
            "roundtrip": check_clip_name(clip["roundtrip"]),
            "snr_db": parse_number(clip.get("snr_db")),
            "log_spectral_distance_db": parse_number(clip.get("log_spectral_distance_db")),
        }
        for clip in data["clips"]
    ]
    means = {key: parse_number(data.get(key)) for key in ("snr_db", "log_spectral_distance_db")}
    return {"representation": str(data["representation"]), "clips": clips, **means}


def parse_sidecar(data):
    """Return {"lines": prompt, inferred labels and edit, "facts": settings} of a sample."""
    lines = [f"{name}: {value}" for name, value in data["request"].items()]
    for text, labels in data["inferred_labels"].items():
        lines.append(f"labels inferred from {text!r}: {', '.join(labels)}")
    lines += [f"edit.{name}: {value}" for name, value in data.get("edit", {}).items()]
    facts = [f"seed {data['seed']}", f"{data['sampler']} sampler", f"{data['nfe']} NFE"]
    facts += ["EMA" if data["ema"] else "no EMA", f"checkpoint {data['checkpoint_sha256'][:10]}"]
    return {"lines": lines, "facts": facts}


def parse_metric(data):
    """Return (kind, step, value, rates); kind is None for a record that the page does not show."""
    field = {"train": "loss", "valid": "x0_error"}.get(data.get("kind"))
    if field is None:
        return None, 0, 0.0, {}
    rates = {key: parse_number(data[key]) for key in RATES if key in data}
    return data["kind"], int(data["step"]), parse_number(data[field]), rates


def read_metrics(path):
    """Return {"train": {step: loss}, "valid": {step: x0 error}, "rates": the last}, or None.

    A resumed run may log a step twice: the later line counts. A torn last line is dropped.
    """
    if not path.is_file():
        return None
    metrics = {"train": {}, "valid": {}, "rates": {}}
    lines = path.read_bytes().rstrip().split(b"\n")
    for count, line in enumerate(lines, start=1):
        try:
            kind, step, value, rates = parse_json(f"{path.name} line {count}", line, parse_metric)
        except ValueError as error:
            torn = isinstance(error.__cause__, json.JSONDecodeError | UnicodeDecodeError)
            if not line.strip() or (torn and count == len(lines)):
                continue
            raise
        if kind:
            metrics[kind][step] = value
            metrics["rates"] = rates or metrics["rates"]
    return metrics


def find_samples(folder):
    """Return [(step, step folder, [stem, ...])], newest first, at most STEPS_SHOWN of them."""
    steps = []
    for path in folder.glob("step_*") if folder.is_dir() else ():
        match = re.fullmatch(r"step_(\d+)", path.name)
        stems = sorted({file.stem for file in path.glob("*") if file.suffix in MEDIA})
        if match and stems:
            steps.append((int(match[1]), path, stems))
    return sorted(steps, reverse=True)[:STEPS_SHOWN]


def order_clips(steps, folder, reference):
    """Return (folder, stem) of clips by priority: newest samples and real clips in turn."""
    newest = [(path, stem) for _, path, stems in steps[:1] for stem in stems]
    older = [(path, stem) for _, path, stems in steps[1:] for stem in stems]
    clips = (reference or {"clips": []})["clips"]
    real = [(folder, clip[part]) for clip in clips for part in ("real", "roundtrip")]
    paired = itertools.chain.from_iterable(itertools.zip_longest(newest, real))
    return [clip for clip in paired if clip] + older


def select_clips(clips, max_bytes):
    """Return the clips whose files, in this order, fit into max_bytes of base64."""
    kept, left = set(), max_bytes
    for folder, stem in clips:
        files = [folder / (stem + suffix) for suffix in MEDIA]
        cost = sum(-(-file.stat().st_size // 3) * 4 for file in files if file.is_file())
        if cost <= left:
            kept.add((folder, stem))
            left -= cost
    return kept


def check_clip_name(stem):
    """Return a clip's name, or raise ValueError where it contains a folder."""
    if not isinstance(stem, str) or pathlib.PurePath(stem).name != stem:
        raise ValueError(f"{stem!r} is not the plain name of a clip")
    return stem


def parse_number(value):
    """Return a float, NaN for None."""
    return math.nan if value is None else float(value)


def parse_numbers(values):
    """Return floats, NaN for None."""
    return [parse_number(value) for value in values]


def encode_data_uri(path):
    """Return the bytes of a WAV or PNG file as a data: URI, '' where there is no file."""
    if not path.is_file():
        return ""
    mime, magic = MEDIA[path.suffix]
    raw = path.read_bytes()
    if not raw.startswith(magic):
        raise ValueError(f"{path.parent.name}/{path.name}: not a {path.suffix[1:].upper()} file")
    return f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}"
