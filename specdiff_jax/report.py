"""The listening page: one self-contained report.html from the files of a run's workdir.

Each file is read into plain checked values first (`parse_*`), then written as HTML (`*_html`):
whatever is wrong with a file is found, and the file named, before a line of the page exists.
"""

import base64
import html
import importlib.resources
import itertools
import json
import math
import pathlib
import re
import string

MAX_PAGE_BYTES = 60_000_000
STEPS_SHOWN = 3
CURVE_POINTS = 160  # a longer training curve is drawn as means of as many groups
MEDIA = {".wav": ("audio/wav", (b"RIFF", b"RF64")), ".png": ("image/png", (b"\x89PNG",))}
RATES = ("grad_norm", "learning_rate", "steps_per_second", "audio_per_second")
BASELINES = {
    "constant": "best constant",
    "band_wiener": "per-band Wiener",
    "linear_frame": "linear, frame",
    "linear_patch": "linear, patch",
}


def write_report(workdir, max_bytes=MAX_PAGE_BYTES):
    """Write `report.html` from what is in `workdir` and return its path.

    A missing file leaves one line in its place; a malformed one is a ValueError that names it.
    Clips that would take the page above `max_bytes` are left out, and the page says so.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such run directory")
    config = read_json(workdir / "config.json", parse_config)
    facts = read_json(workdir / "preflight.json", parse_preflight)
    health = read_json(workdir / "health.json", parse_health)
    reference = read_json(workdir / "reference" / "reference.json", parse_reference)
    metrics = read_metrics(workdir / "metrics.jsonl")
    steps = find_samples(workdir / "samples")
    kept = affordable(listening_order(steps, workdir / "reference", reference), max_bytes)
    template = importlib.resources.files(__package__).joinpath("report_template.html")
    page = string.Template(template.read_text("utf-8")).substitute(
        title=text((config or {}).get("name") or workdir.resolve().name),
        description=description_html(config),
        verdict=verdict_html(health),
        generated=generated_html(steps, kept),
        reference=reference_html(workdir / "reference", reference, kept),
        loss=loss_html(metrics),
        levels=levels_html(health),
        ratios=ratios_html(health),
        ceiling=ceiling_html(reference),
        facts=facts_html(facts),
        config=config_html(config),
    )
    partial = workdir / "report.html.partial"
    partial.write_bytes(page.encode("utf-8", errors="replace"))
    return partial.replace(workdir / "report.html")


# ---- reading: files -> checked values, or one line that names the file


def read_json(path, parse):
    """The parsed contents of a JSON file, or None where there is none."""
    if not path.is_file():
        return None
    return parse_named(f"{path.parent.name}/{path.name}", path.read_bytes(), parse)


def parse_named(name, raw, parse):
    """parse(JSON of raw); any fault becomes a one-line ValueError that begins with the name."""
    try:
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise ValueError(f"expected a JSON object, found {type(data).__name__}")
        return parse(data)
    except KeyError as error:
        raise ValueError(f"{name}: field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error


def parse_config(data):
    return data


def parse_preflight(data):
    return [str(line) for line in data["lines"]]


def parse_health(data):
    if not isinstance(data["healthy"], bool):
        raise ValueError("healthy must be true or false")
    health = {
        "step": int(data["step"]),
        "healthy": data["healthy"],
        "verdict": str(data["verdict"]),
        "levels": numbers(data["levels"]),
        "model": numbers(data["x0_error"]),
        "baselines": {str(name): numbers(row) for name, row in data["baselines"].items()},
    }
    for name, row in {"x0_error": health["model"], **health["baselines"]}.items():
        if not row or len(row) != len(health["levels"]):
            raise ValueError(f"{name} has {len(row)} values for {len(health['levels'])} levels")
    return health


def parse_reference(data):
    clips = [
        {
            "name": str(clip["name"]),
            "artist": str(clip.get("artist") or ""),
            "captions": [str(caption) for caption in clip.get("captions") or []],
            "labels": [str(label) for label in clip.get("labels") or []],
            "real": plain_name(clip["real"]),
            "roundtrip": plain_name(clip["roundtrip"]),
            "snr_db": number(clip.get("snr_db")),
            "log_spectral_distance_db": number(clip.get("log_spectral_distance_db")),
        }
        for clip in data["clips"]
    ]
    means = {key: number(data.get(key)) for key in ("snr_db", "log_spectral_distance_db")}
    return {"representation": str(data["representation"]), "clips": clips, **means}


def parse_metric(data):
    """(kind, step, value, rates); kind is None for a record this page does not show."""
    field = {"train": "loss", "valid": "x0_error"}.get(data.get("kind"))
    if field is None:
        return None, 0, 0.0, {}
    rates = {key: number(data[key]) for key in RATES if key in data}
    return data["kind"], int(data["step"]), number(data[field]), rates


def read_metrics(path):
    """{"train": {step: loss}, "valid": {step: x0 error}, "rates": the last ones}, or None.

    A resumed run may log a step twice: the later line counts. A torn last line is dropped.
    """
    if not path.is_file():
        return None
    metrics = {"train": {}, "valid": {}, "rates": {}}
    lines = path.read_bytes().rstrip().split(b"\n")
    for count, line in enumerate(lines, start=1):
        try:
            kind, step, value, rates = parse_named(f"{path.name} line {count}", line, parse_metric)
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
    """[(step, step folder, [stem, ...])], newest first, at most STEPS_SHOWN of them."""
    steps = []
    for path in folder.glob("step_*") if folder.is_dir() else ():
        match = re.fullmatch(r"step_(\d+)", path.name)
        stems = sorted({file.stem for file in path.glob("*") if file.suffix in MEDIA})
        if match and stems:
            steps.append((int(match[1]), path, stems))
    return sorted(steps, reverse=True)[:STEPS_SHOWN]


def listening_order(steps, folder, reference):
    """Clips as (folder, stem), most wanted first: newest samples and real clips in turn."""
    newest = [(path, stem) for _, path, stems in steps[:1] for stem in stems]
    older = [(path, stem) for _, path, stems in steps[1:] for stem in stems]
    clips = (reference or {"clips": []})["clips"]
    real = [(folder, clip[part]) for clip in clips for part in ("real", "roundtrip")]
    paired = itertools.chain.from_iterable(itertools.zip_longest(newest, real))
    return [clip for clip in paired if clip] + older


def affordable(clips, max_bytes):
    """The clips whose files, in this order, fit into max_bytes of base64."""
    kept, left = set(), max_bytes
    for folder, stem in clips:
        files = [folder / (stem + suffix) for suffix in MEDIA]
        cost = sum(-(-file.stat().st_size // 3) * 4 for file in files if file.is_file())
        if cost <= left:
            kept.add((folder, stem))
            left -= cost
    return kept


def plain_name(stem):
    if not isinstance(stem, str) or pathlib.PurePath(stem).name != stem:
        raise ValueError(f"{stem!r} is not the plain name of a clip")
    return stem


def number(value):
    return math.nan if value is None else float(value)


def numbers(values):
    return [number(value) for value in values]


# ---- the sections: checked values -> HTML


def text(value):
    """Anything as escaped text, safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def shown(value, places=3):
    """A number for a reader, to so many places or three digits; a dash where there is none."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    plain = value == 0 or 10 ** (1 - places) <= abs(value) < 1e5
    return (f"{value:.{places}f}" if plain else f"{value:.3g}").replace("-", "\N{MINUS SIGN}")


def absent(line):
    return f'<p class="absent">{text(line)}</p>'


def verdict_html(health):
    if health is None:
        return absent("health.json is missing: no health verdict yet.")
    tone, mark = ("ok", "✓") if health["healthy"] else ("warn", "!")
    line = text(" ".join(health["verdict"].split()))
    return f'<p class="verdict {tone}"><b aria-hidden="true">{mark}</b>{line}</p>'


def description_html(config):
    description = (config or {}).get("description")
    return f'<p class="lead">{text(description)}</p>' if description else ""


def card_html(folder, stem, kept, heading, body):
    """One clip: picture, player and words, or what is missing of them."""
    parts = []
    if (folder, stem) in kept:
        picture, sound = (data_uri(folder / (stem + suffix)) for suffix in (".png", ".wav"))
        if picture:
            parts.append(f'<img src="{picture}" alt="Spectrogram of {text(heading)}">')
        if sound:
            label = f'aria-label="{text(heading)}"'
            parts.append(f'<audio controls preload="metadata" {label} src="{sound}"></audio>')
        missing = [s for s, found in ((".png", picture), (".wav", sound)) if not found]
        parts += [absent(f"{stem}{suffix} is missing.") for suffix in missing]
    return (
        f'<article class="card">{"".join(parts)}<h3><bdi>{text(heading)}</bdi></h3>{body}</article>'
    )


def data_uri(path):
    """The very bytes of a WAV or PNG file as a data: URI; '' where there is no file."""
    if not path.is_file():
        return ""
    mime, magic = MEDIA[path.suffix]
    raw = path.read_bytes()
    if not raw.startswith(magic):
        raise ValueError(f"{path.parent.name}/{path.name}: not a {path.suffix[1:].upper()} file")
    return f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}"


def generated_html(steps, kept):
    """The newest samples, open, and the ones of earlier steps, folded."""
    if not steps:
        return absent("samples/ holds no samples yet.")
    sections = []
    for step, folder, stems in steps:
        cards = [sample_html(folder, stem, kept) for stem in stems if (folder, stem) in kept]
        dropped = dropped_html(len(stems) - len(cards), len(stems), f"samples/{folder.name}")
        state = "" if sections else " open"
        sections.append(
            f"<details{state}><summary>After step {step:,}</summary>{dropped}"
            f'<div class="cards">{"".join(cards)}</div></details>'
        )
    return "\n".join(sections)


def sample_html(folder, stem, kept):
    path = folder / f"{stem}.json"
    sidecar = read_json(path, parse_config)
    if sidecar is None:
        return card_html(folder, stem, kept, f"Sample {stem}", absent(f"{path.name} is missing."))
    facts = [f"seed {sidecar.get('seed', '?')}", f"{sidecar.get('sampler', '?')} sampler"]
    facts += [f"{sidecar.get('steps', '?')} steps", "EMA" if sidecar.get("ema") else "no EMA"]
    facts += [f"checkpoint {str(sidecar.get('checkpoint_sha256', '?'))[:10]}"]
    meta = f'<p class="meta">{text(" · ".join(facts))}</p>'
    return card_html(folder, stem, kept, f"Sample {stem}", meta)


def reference_html(folder, reference, kept):
    """Each held-out clip beside what is left of it after encode and decode."""
    if reference is None:
        return absent("reference/reference.json is missing: no real music to compare with.")
    cards, clips = [], reference["clips"]
    for clip in clips:
        if {(folder, clip["real"]), (folder, clip["roundtrip"])} <= kept:
            cards += clip_html(folder, clip, kept)
    left_out = dropped_html(len(clips) - len(cards) // 2, len(clips), folder.name)
    note = f"Each first as recorded, then through {reference['representation']} and back."
    note = f'<p class="note">{text(note)}</p>{left_out}'
    return f'{note}<div class="cards">{"".join(cards)}</div>'


def clip_html(folder, clip, kept):
    words = f'<p class="meta"><bdi>{text(clip["artist"])}</bdi></p>'
    words += "".join(f"<p>{text(caption)}</p>" for caption in clip["captions"][:1])
    chips = "".join(f"<li>{text(label)}</li>" for label in clip["labels"])
    words += f'<ul class="chips">{chips}</ul>' if chips else ""
    trip = f"SNR {shown(clip['snr_db'], 1)} dB · "
    trip += f"spectral distance {shown(clip['log_spectral_distance_db'], 1)} dB"
    trip = f'<p class="meta">{trip}</p>'
    return [
        card_html(folder, clip["real"], kept, clip["name"], words),
        card_html(folder, clip["roundtrip"], kept, "Its round trip", trip),
    ]


def dropped_html(dropped, total, folder):
    line = f"{dropped} of {total} left out to keep this page small; they are in {folder}/."
    return f'<p class="note">{text(line)}</p>' if dropped else ""


def loss_html(metrics):
    """Training and validation curves, and the last training record in words."""
    if metrics is None:
        return absent("metrics.jsonl is missing: no curves.")
    if not metrics["train"] and not metrics["valid"]:
        return absent("metrics.jsonl holds no training or validation record yet.")
    train, size = grouped(sorted(metrics["train"].items()))
    valid = sorted(metrics["valid"].items())
    rates = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in metrics["rates"].items()]
    caption = f"Each training point is the mean of {size} records. " if size > 1 else ""
    caption += f"Last record: {', '.join(rates)}." if rates else ""
    series = [("held out", "model", valid), ("train", "train", train)]
    return figure_html(series, "training step", "mean-square x₀ error (log)", caption)


def grouped(points):
    """Points averaged in groups of equal size, so that at most CURVE_POINTS are left."""
    size = max(1, -(-len(points) // CURVE_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(mean(x for x, _ in group), mean(y for _, y in group)) for group in groups], size


def levels_html(health):
    if health is None:
        return absent("health.json is missing: no error by noise level.")
    series = [("model", "model", list(zip(health["levels"], health["model"], strict=True)))]
    for index, (name, row) in enumerate(health["baselines"].items()):
        points = list(zip(health["levels"], row, strict=True))
        series.append((BASELINES.get(name, name), f"b{index % 5}", points))
    caption = (
        f"Held out, at step {health['step']:,}. A baseline that lies above the model is beaten."
    )
    return figure_html(series, "noise level t (0 = data, 1 = noise)", "x₀ error (log)", caption)


def ratios_html(health):
    """The mean over noise levels of each baseline, and the model's as a share of it."""
    if health is None:
        return absent("health.json is missing: nothing to compare.")
    model = mean(health["model"])
    rows = [f'<tr class="strong"><td>model</td><td class="n">{shown(model)}</td><td></td></tr>']
    for name, row in health["baselines"].items():
        ratio = model / mean(row) if mean(row) else math.nan
        tone = "good" if ratio < 1 else "poor"
        cells = f'<td class="n">{shown(mean(row))}</td><td class="n {tone}">{shown(ratio)}</td>'
        rows.append(f"<tr><td>{text(BASELINES.get(name, name))}</td>{cells}</tr>")
    note = "Mean over the noise levels; a ratio below 1 is a baseline beaten. "
    note += "Beating only the constant and the per-band filter shows nothing learned yet."
    return table_html(note, ("denoiser", "mean x₀ error", "model / baseline"), rows)


def ceiling_html(reference):
    """What encode and decode alone cost on real music: no model can score better."""
    if reference is None:
        return absent("reference/reference.json is missing: no ceiling.")
    rows = []
    for clip in [{**reference, "name": "mean", "artist": ""}, *reference["clips"]]:
        scores = (clip["snr_db"], clip["log_spectral_distance_db"])
        cells = "".join(f'<td class="n">{shown(score, 1)}</td>' for score in scores)
        name = f'<bdi>{text(clip["name"])}</bdi> <bdi class="meta">{text(clip["artist"])}</bdi>'
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    rows[0] = rows[0].replace("<tr>", '<tr class="strong">', 1)
    note = f"What a perfect model would score: real music through {reference['representation']} "
    note += "and back. A low SNR beside a small distance is a matter of phase, not of timbre."
    return table_html(note, ("held-out clip", "SNR, dB", "log-spectral distance, dB"), rows)


def table_html(note, names, rows):
    first, *others = (text(name) for name in names)
    head = f"<th>{first}</th>" + "".join(f'<th class="n">{name}</th>' for name in others)
    return (
        f'<p class="note">{text(note)}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def facts_html(lines):
    """The lines of the preflight, split at their first colon."""
    if lines is None:
        return absent("preflight.json is missing: no facts of the run.")
    rows = []
    for line in lines:
        name, colon, value = line.partition(": ")
        pair = f"<dt>{text(name)}</dt><dd>{text(value)}</dd>"
        rows.append(pair if colon else f'<dd class="whole">{text(line)}</dd>')
    return f"<dl>{''.join(rows)}</dl>"


def config_html(config):
    if config is None:
        return absent("config.json is missing: no configuration to show.")
    body = text(json.dumps(config, indent=2, ensure_ascii=False))
    return f"<details><summary>config.json</summary><pre>{body}</pre></details>"


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# ---- curves as inline SVG; a series is (name, css class, [(x, y), ...])


def figure_html(series, x_label, y_label, caption):
    """The chart in two shapes, for wide and for narrow screens, with a legend and a caption."""
    drawn = [(*head, drawable(points)) for *head, points in series]
    drawn = [one for one in drawn if one[-1]]
    if not drawn:
        return absent("There is no finite positive value to draw.")
    lost = sum(len(one[-1]) for one in series) - sum(len(one[-1]) for one in drawn)
    if lost:
        caption += f" {lost} points that are not finite and positive are not drawn."
    keys = "".join(
        f'<li class="c-{css}"><svg class="swatch" viewBox="0 0 26 6" aria-hidden="true">'
        f'<line x2="26" y1="3" y2="3"/></svg><span>{text(name)}</span></li>'
        for name, css, _ in drawn
    )
    charts = "".join(
        chart_svg(drawn, x_label, y_label, kind, size)
        for kind, size in (("wide", (560, 350)), ("narrow", (360, 300)))
    )
    return (
        f'<figure>{charts}<ul class="legend">{keys}</ul>'
        f"<figcaption>{text(caption.strip())}</figcaption></figure>"
    )


def drawable(points):
    return [(x, y) for x, y in points if math.isfinite(x) and 1e-30 < y < 1e30]


def chart_svg(series, x_label, y_label, kind, size):
    """One chart with a logarithmic y axis."""
    width, height = size
    margin = 26 + 7 * min(18, max(len(name) for name, *_ in series))
    left, right, top, bottom = 46, width - margin, 26, height - 42
    xs, ys = zip(*(point for *_, points in series for point in points), strict=True)
    x_low, x_high = min(0, *xs), max(1, *xs)  # steps begin at 0, noise levels fill [0, 1]
    y_low, y_high = min(ys) / 1.1, max(ys) * 1.1
    place_x = scale(x_low, x_high, left, right)
    place_y = scale(math.log(y_low), math.log(y_high), bottom, top)
    parts = []
    for tick in log_ticks(y_low, y_high):
        y = f"{place_y(math.log(tick)):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 7}" y="{y}" dy="4" text-anchor="end">{tick:.10g}</text>')
    for tick in ticks(x_low, x_high, 4 if kind == "narrow" else 6):
        x = f"{place_x(tick):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{tick:,.10g}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{right}" y="{height - 6}" text-anchor="end">{text(x_label)}</text>')
    parts.append(f'<text x="0" y="12">{text(y_label)}</text>')
    pixels = [[(place_x(x), place_y(math.log(y))) for x, y in one[-1]] for one in series]
    labels = spread([line[-1][1] for line in pixels], 15, top, bottom)
    curves = zip(series, pixels, labels, strict=True)
    parts += reversed([curve_svg(*curve, right, x_label) for curve in curves])
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text(y_label)} against {text(x_label)}">{"".join(parts)}</svg>'
    )


def curve_svg(one, pixels, label_y, right, x_label):
    """A line, its points with their values on hover, and its name at its right end."""
    name, css, points = one
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    dots = ""
    for (x, y), (at, value) in zip(pixels, points, strict=True):
        title = text(f"{name}: {value:.4g} at {x_label.split(' (')[0]} {at:,.4g}")
        visible = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>'
        dots += visible if len(points) <= 30 else ""
        dots += (
            f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="7"><title>{title}</title></circle>'
        )
    end_x, end_y = pixels[-1]
    leader = f"M{end_x + 4:.1f} {end_y:.1f}L{right + 4} {end_y:.1f}L{right + 14} {label_y:.1f}"
    return (
        f'<g class="c-{css}"><polyline points="{line}"/><path class="leader" d="{leader}"/>{dots}'
        f'<text class="name" x="{right + 17}" y="{label_y:.1f}" dy="4">{text(name[:18])}</text></g>'
    )


def scale(low, high, start, end):
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low, high, count):
    """At most count + 1 round numbers in [low, high]."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * 0.999)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low, high):
    """Round numbers for a logarithmic axis: 1 2 5 in each decade, or fewer, or linear ones."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [k * 10.0**n for n in decades for k in (1, 2, 5) if low <= k * 10.0**n <= high]
    if len(fine) < 3:
        return ticks(low, high, 6)
    whole = [10.0**n for n in decades if low <= 10.0**n <= high]
    return fine if len(fine) <= 9 else whole[:: -(-len(whole) // 8)]


def spread(places, gap, low, high):
    """The places moved as little as needed to lie at least `gap` apart within [low, high]."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for before, here in itertools.pairwise(order):
        moved[here] = max(moved[here], moved[before] + gap)
    edge = high
    for here in reversed(order):
        moved[here] = min(moved[here], edge)
        edge = moved[here] - gap
    return moved
