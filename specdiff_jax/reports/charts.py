"""Charts as inline SVG; a series of a curve is (name, css class, [(x, y), ...])."""

import html
import itertools
import math

CURVE_POINTS = 160  # a longer curve is drawn as means of as many groups


def text(value):
    """Anything as escaped text, safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def absent(line):
    return f'<p class="absent">{text(line)}</p>'


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def grouped(points):
    """Points averaged in groups of equal size, so that at most CURVE_POINTS are left."""
    size = max(1, -(-len(points) // CURVE_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(mean(x for x, _ in group), mean(y for _, y in group)) for group in groups], size


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


def bars_html(heading, rows, left=128):
    """Horizontal bars of counts, [(name, count), ...]; names fill the `left` pixels of 340."""
    unit, parts = (340 - left - 46) / max((count for _, count in rows), default=1), []
    for top, (name, count) in zip(itertools.count(0, 20), rows, strict=False):
        length, most = max(count > 0, unit * count), left // 8
        name, short = text(name), text(name if len(name) <= most else name[: most - 1] + "…")
        parts.append(
            f'<g><title>{name}: {count:,}</title><rect x="{left}" y="{top + 3}" height="14" '
            f'width="{length:.1f}"/><text x="{left - 8}" y="{top + 14}" text-anchor="end">{short}'
            f'</text><text x="{left + length + 6:.1f}" y="{top + 14}">{count:,}</text></g>'
        )
    chart = f'<svg viewBox="0 0 340 {20 * len(rows)}" role="img">{"".join(parts)}</svg>'
    body = chart if rows else absent("Not measured.")
    return f'<figure class="bars"><h3>{text(heading)}</h3>{body}</figure>'


def heat_html(names, counts):
    """A square table of counts; a cell's tone is its share of the diagonal one in its row."""
    rows = ""
    for number, (name, line) in enumerate(zip(names, counts, strict=True), 1):
        whole = line[number - 1] or 1
        cells = (f'<td style="--share:{n / whole:.3f}">{n or "·"}</td>' for n in line)
        rows += f"<tr><th>{number} <bdi>{text(name)}</bdi></th>{''.join(cells)}</tr>"
    head = "".join(f"<th>{number}</th>" for number in range(1, len(names) + 1))
    return (
        f'<div class="scroll" tabindex="0"><table class="heat"><thead><tr><th></th>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
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
