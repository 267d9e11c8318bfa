"""The listening page: one self-contained report.html from the files of a run's workdir.

The files are read into plain checked values first (workdir), then written as HTML (`*_html`):
whatever is wrong with a file is found, and the file named, before a line of the page exists.
"""

import json
import math
import pathlib

from specdiff_jax.reports.charts import absent, figure_html, grouped, mean, text
from specdiff_jax.reports.html import BASELINES, card_html, filled, shown, table_html, write_page
from specdiff_jax.reports.run_files import order_clips, read_json, read_run, select_clips

MAX_PAGE_BYTES = 60_000_000


def run(config):
    path = write_run_report(config.workdir)
    from specdiff_jax.runtime.logs import log

    log(f"listen: {path}")


def write_run_report(workdir, max_bytes=MAX_PAGE_BYTES):
    """Write `report.html` from what is in `workdir` and return its path.

    A missing file leaves one line in its place; a malformed one is a ValueError that names it.
    Clips that would take the page above `max_bytes` are left out, and the page says so.
    """
    workdir = pathlib.Path(workdir)
    found = read_run(workdir)
    config, health, reference = found["config"], found["health"], found["reference"]
    clips = order_clips(found["steps"], workdir / "reference", reference)
    kept = select_clips(clips, max_bytes)
    page = filled(
        "run_report.html",
        title=text((config or {}).get("name") or workdir.resolve().name),
        description=description_html(config),
        verdict=verdict_html(health),
        generated=generated_html(found["steps"], kept),
        reference=reference_html(workdir / "reference", reference, kept),
        loss=loss_html(found["metrics"]),
        levels=levels_html(health),
        ratios=ratios_html(health),
        ceiling=ceiling_html(reference),
        facts=facts_html(found["facts"]),
        config=config_html(config),
    )
    return write_page(workdir / "report.html", page)


# ---- the sections: checked values -> HTML


def verdict_html(health):
    if health is None:
        return absent("health.json is missing: no health verdict yet.")
    tone, mark = ("ok", "✓") if health["healthy"] else ("warn", "!")
    line = text(" ".join(health["verdict"].split()))
    return f'<p class="verdict {tone}"><b aria-hidden="true">{mark}</b>{line}</p>'


def description_html(config):
    description = (config or {}).get("description")
    return f'<p class="lead">{text(description)}</p>' if description else ""


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
    sidecar = read_json(path)
    if sidecar is None:
        return card_html(folder, stem, kept, f"Sample {stem}", absent(f"{path.name} is missing."))
    facts = [f"seed {sidecar.get('seed', '?')}", f"{sidecar.get('sampler', '?')} sampler"]
    facts += [f"{sidecar.get('steps', '?')} steps", "EMA" if sidecar.get("ema") else "no EMA"]
    facts += [f"checkpoint {str(sidecar.get('checkpoint_sha256', '?'))[:10]}"]
    asked = [f"{name}: {value}" for name, value in (sidecar.get("wish") or {}).items()]
    words = "".join(f"<p><bdi>{text(line)}</bdi></p>" for line in asked)
    meta = f'{words}<p class="meta">{text(" · ".join(facts))}</p>'
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
