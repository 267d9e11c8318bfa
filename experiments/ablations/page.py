"""The figure of an ablation table, and a page with clips of all arms from the same noise."""

import html
import math
import string

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from specdiff_jax.reports.run_files import encode_data_uri

AXIS_END = 60.0  # %, the largest change that the figure shows
PAGE = string.Template("""<!doctype html><html lang="en"><meta charset="utf-8">
<title>Ablations</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.4em .6em;text-align:left;
border-bottom:1px solid #ddd;vertical-align:top}th{position:sticky;top:0;background:#fff}
img{width:200px;display:block}audio{width:200px}.n{text-align:right;white-space:nowrap}
.q{color:#666;font-size:.9em}</style>
<h1>Ablations</h1><p>$note</p>
<table><tr><th>change<th class="n">error over linear<th class="n">change$heads</tr>
$rows</table></html>
""")


def draw(path, summary):
    """Write the figure of changes against the control with their intervals, best at the top.

    The change is that of x_0 error over the error of each arm's own linear denoiser of a frame, so
    that arms with another representation are comparable.
    """
    figure = Figure(figsize=(9, 1 + 0.3 * len(summary)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, line in enumerate(reversed(summary)):
        change, half = 100 * line["change"], 100 * line["change_half"]
        significant = math.isfinite(half) and abs(change) > half
        color = "#888" if not significant else "#2a7" if change < 0 else "#c43"
        mark = "o" if change <= AXIS_END else ">"  # outside the axis
        face = "white" if math.isnan(half) else color
        style = {"fmt": mark, "color": color, "markerfacecolor": face, "capsize": 3}
        xerr = 0 if math.isnan(half) or change > AXIS_END else half
        axes.errorbar(min(change, AXIS_END), place, xerr=xerr, **style)
    axes.set_yticks(range(len(summary)), [line["name"] for line in reversed(summary)])
    axes.axvline(0, color="#888", linewidth=1)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(
        "change of held-out x₀ error over each arm's own linear denoiser of a frame,\n"
        "against the control, % (95 % interval; hollow: one seed)"
    )
    figure.savefig(path)


def write_page(path, summary, folders, clips=3):
    """Write a page with a row an arm: error, interval, and clips from the same noises."""
    rows = []
    for line in summary:
        cells = [
            f"<b>{html.escape(line['name'])}</b><p class=q>{html.escape(line['question'])}</p>"
        ]
        numbers = with_interval(line["over_linear_frame"], line["over_linear_frame_half"], "{:.3f}")
        change = with_interval(100 * line["change"], 100 * line["change_half"], "{:+.1f} %")
        samples = max((folders[line["name"]] / "samples").glob("step_*"), default=None)
        players = "".join(f"<td>{player(samples, index)}" for index in range(clips))
        rows.append(f"<tr><td>{cells[0]}<td class=n>{numbers}<td class=n>{change}{players}</tr>")
    heads = "".join(f"<th>noise {index}" for index in range(clips))
    note = "x₀ error on held-out songs at common noise levels, over the error of the best linear "
    note += "denoiser of a frame; every column starts from the same noise."
    path.write_text(PAGE.substitute(note=note, heads=heads, rows="\n".join(rows)))
    return path


def with_interval(value, half, form):
    """Return a number as text, with its interval where there is more than one seed."""
    if math.isnan(value):
        return "no control of that seed"
    if math.isnan(half):
        return f"{form.format(value)}, one seed"
    return f"{form.format(value)} ± {abs(half):.{2 if half >= 0.1 else 3}f}"


def player(folder, index):
    """Return the HTML of picture and sound of one clip, empty where there are none."""
    if folder is None:
        return ""
    picture, sound = (
        encode_data_uri(folder / f"{index:03d}{suffix}") for suffix in (".png", ".wav")
    )
    return f'<img src="{picture}" alt=""><audio controls src="{sound}"></audio>' if sound else ""
