"""Self-contained pages: a template filled in, its style inside it; tables, cards to listen to."""

import importlib.resources
import math
import pathlib
import string

from specdiff_jax.reports.charts import absent, text
from specdiff_jax.reports.run_files import encode_data_uri

BASELINES = {  # health.NAMES, short enough for a chart
    "constant": "best constant",
    "band_wiener": "per-band Wiener",
    "linear_frame": "linear, frame",
    "linear_patch": "linear, patch",
}


def filled(template, **parts):
    """The text of a page: a template of this package with its parts, the common head and style."""
    read = lambda name: (
        importlib.resources.files(__package__).joinpath("templates", name).read_text("utf-8")
    )
    parts["style"] = read("page.css")
    parts["head"] = string.Template(read("page_head.html")).safe_substitute(parts)
    return string.Template(read(template)).substitute(parts)


def write_page(path, page):
    """Writes a page whole or not at all and returns its path."""
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(page.encode("utf-8", errors="replace"))
    return partial.replace(path)


def shown(value, places=3):
    """A number for a reader, to so many places or three digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    plain = value == 0 or 10 ** (1 - places) <= abs(value) < 1e5
    return (f"{value:.{places}f}" if plain else f"{value:.3g}").replace("-", "\N{MINUS SIGN}")


def card_html(folder, stem, kept, heading, body):
    """One clip: picture, player and words, or what is missing of them."""
    parts = []
    if (folder, stem) in kept:
        picture, sound = (encode_data_uri(folder / (stem + suffix)) for suffix in (".png", ".wav"))
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


def table_html(note, names, rows):
    first, *others = (text(name) for name in names)
    head = f"<th>{first}</th>" + "".join(f'<th class="n">{name}</th>' for name in others)
    return (
        f'<p class="note">{text(note)}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
