"""The geometry of charts, drawn as inline SVG by macros.html.

A series of a line chart is (name, CSS class, [(x, y), ...]).
"""

import itertools
import math

CURVE_POINTS = 160  # a longer curve is drawn as means of as many groups


def mean(values):
    """Return the mean of an iterable of numbers."""
    values = list(values)
    return sum(values) / len(values)


def group_points(points):
    """Return at most CURVE_POINTS means of groups of points, and the size of a group."""
    size = max(1, -(-len(points) // CURVE_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(mean(x for x, _ in group), mean(y for _, y in group)) for group in groups], size


def lay_out_curves(series, x_label, y_label, caption=""):
    """Return the line chart of some series in two shapes, for wide and for narrow screens.

    Returns:
      dict for the macro `curves`, or a line of text where no value can be drawn.
    """
    drawn = [(*head, drawable(points)) for *head, points in series]
    drawn = [one for one in drawn if one[-1]]
    if not drawn:
        return "There is no finite positive value to draw."
    lost = sum(len(one[-1]) for one in series) - sum(len(one[-1]) for one in drawn)
    if lost:
        caption += f" {lost} points that are not finite and positive are not drawn."
    shapes = (("wide", (560, 350)), ("narrow", (360, 300)))
    return {
        "legend": [{"name": name, "css": css} for name, css, _ in drawn],
        "panels": [lay_out_panel(drawn, x_label, kind, size) for kind, size in shapes],
        "x_label": x_label,
        "y_label": y_label,
        "caption": caption.strip(),
    }


def lay_out_bars(heading, counts, left=128):
    """Return horizontal bars of [(name, count), ...]; names fill the `left` pixels of 340."""
    unit, rows = (340 - left - 46) / max((count for _, count in counts), default=1), []
    for top, (name, count) in zip(itertools.count(0, 20), counts, strict=False):
        length, most = max(count > 0, unit * count), left // 8
        rows.append(
            {
                "name": name,
                "short": name if len(name) <= most else name[: most - 1] + "…",
                "count": f"{count:,}",
                "y": top,
                "length": f"{length:.1f}",
                "end": f"{left + length + 6:.1f}",
            }
        )
    return {"heading": heading, "left": left, "height": 20 * len(counts), "rows": rows}


def lay_out_heat(names, counts):
    """Return a square table of counts; a cell's share is that of the diagonal one in its row."""
    rows = []
    for number, (name, line) in enumerate(zip(names, counts, strict=True), 1):
        whole = line[number - 1] or 1
        cells = [{"share": f"{n / whole:.3f}", "text": n or "·"} for n in line]
        rows.append({"number": number, "name": name, "cells": cells})
    return rows


def drawable(points):
    """Return the points that a logarithmic y axis has a place for."""
    return [(x, y) for x, y in points if math.isfinite(x) and 1e-30 < y < 1e30]


def lay_out_panel(series, x_label, kind, size):
    """Return the places of axes, ticks and curves of one chart with a logarithmic y axis."""
    width, height = size
    margin = 26 + 7 * min(18, max(len(name) for name, *_ in series))
    left, right, top, bottom = 46, width - margin, 26, height - 42
    xs, ys = zip(*(point for *_, points in series for point in points), strict=True)
    x_low, x_high = min(0, *xs), max(1, *xs)  # steps begin at 0, noise levels fill [0, 1]
    y_low, y_high = min(ys) / 1.1, max(ys) * 1.1
    place_x = scale(x_low, x_high, left, right)
    place_y = scale(math.log(y_low), math.log(y_high), bottom, top)
    pixels = [[(place_x(x), place_y(math.log(y))) for x, y in one[-1]] for one in series]
    labels = spread([line[-1][1] for line in pixels], 15, top, bottom)
    curves = zip(series, pixels, labels, strict=True)
    across = ticks(x_low, x_high, 4 if kind == "narrow" else 6)
    return {
        "kind": kind,
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "bottom": bottom,
        "y_ticks": [
            {"y": f"{place_y(math.log(value)):.1f}", "text": f"{value:.10g}"}
            for value in log_ticks(y_low, y_high)
        ],
        "x_ticks": [{"x": f"{place_x(value):.1f}", "text": f"{value:,.10g}"} for value in across],
        "curves": [lay_out_curve(*curve, right, x_label) for curve in curves][::-1],
    }


def lay_out_curve(one, pixels, label_y, right, x_label):
    """Return a line, its points with their values on hover, and its name at its right end."""
    name, css, points = one
    end_x, end_y = pixels[-1]
    axis = x_label.split(" (")[0]
    return {
        "name": name[:18],
        "css": css,
        "line": " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels),
        "leader": (
            f"M{end_x + 4:.1f} {end_y:.1f}L{right + 4} {end_y:.1f}L{right + 14} {label_y:.1f}"
        ),
        "label_x": right + 17,
        "label_y": f"{label_y:.1f}",
        "dots": len(points) <= 30,
        "points": [
            {
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "title": f"{name}: {value:.4g} at {axis} {where:,.4g}",
            }
            for (x, y), (where, value) in zip(pixels, points, strict=True)
        ],
    }


def scale(low, high, start, end):
    """Return the linear map that takes [low, high] to [start, end]."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low, high, count):
    """Return at most count + 1 round numbers in [low, high]."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * 0.999)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low, high):
    """Return round numbers of a logarithmic axis: 1 2 5 a decade, or fewer, or linear ones."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [k * 10.0**n for n in decades for k in (1, 2, 5) if low <= k * 10.0**n <= high]
    if len(fine) < 3:
        return ticks(low, high, 6)
    whole = [10.0**n for n in decades if low <= 10.0**n <= high]
    return fine if len(fine) <= 9 else whole[:: -(-len(whole) // 8)]


def spread(places, gap, low, high):
    """Return the places, shifted as little as needed to be `gap` apart within [low, high]."""
    order = sorted(range(len(places)), key=places.__getitem__)
    shifted = list(places)
    for before, here in itertools.pairwise(order):
        shifted[here] = max(shifted[here], shifted[before] + gap)
    edge = high
    for here in reversed(order):
        shifted[here] = min(shifted[here], edge)
        edge = shifted[here] - gap
    return shifted
