"""A chart draws each value at its place on the axes and counts the values it cannot draw."""

import itertools
import math
import re

import pytest

from specdiff_jax.reports.charts import (
    CURVE_POINTS,
    group_points,
    lay_out_curves,
    log_ticks,
    spread,
    ticks,
)
from specdiff_jax.reports.html import render_macro


def draw(*curves):
    """Return the HTML of curves named 0, 1, ..."""
    series = [(f"{index}", "model", points) for index, points in enumerate(curves)]
    return render_macro("curves", lay_out_curves(series, "step", "error"))


def polylines(page):
    """Return [(x, y), ...] of each polyline, of the wide chart first, of later series first."""
    lines = re.findall(r'<polyline points="([^"]*)"', page)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


def test_chart_has_a_linear_x_axis_and_a_logarithmic_y_axis():
    page = draw([(0, 0.001), (1, 0.01), (2, 0.1), (3, 1.0)])
    for line in polylines(page):
        across = [b[0] - a[0] for a, b in itertools.pairwise(line)]
        up = [a[1] - b[1] for a, b in itertools.pairwise(line)]  # y points down
        assert across == pytest.approx([across[0]] * 3, abs=0.2) and across[0] > 50
        assert up == pytest.approx([up[0]] * 3, abs=0.2) and up[0] > 50


def test_chart_labels_lie_at_the_points_of_their_values():
    page = draw([(0, 0.01), (100, 0.1), (200, 1.0)])
    labels = dict(re.findall(r'<text x="[^"]*" y="([^"]*)" dy="4" text-anchor="end">([^<]*)', page))
    heights = {float(label): float(y) for y, label in labels.items()}
    for (_, y), value in zip(polylines(page)[1], (0.01, 0.1, 1.0), strict=True):  # the narrow one
        assert heights[value] == y


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_chart_counts_points_that_it_cannot_draw(bad):
    page = draw([(0, 1.0), (1, bad), (2, 0.5)], [(0, bad)])
    assert "2 points that are not finite and positive are not drawn" in page
    assert [len(line) for line in polylines(page)] == [2, 2]  # wide and narrow
    assert not polylines(draw([(0, bad)])) and "no finite positive value" in draw([(0, bad)])


def test_charts_escape_names():
    chart = lay_out_curves([("<script>", "model", [(0, 1.0)])], "<b>", "<i>", "<u>")
    page = render_macro("curves", chart)
    assert not {"<script>", "<b>", "<i>", "<u>"} & set(re.findall(r"<[^>]*>", page))
    assert page.count("&lt;script&gt;") >= 3


@pytest.mark.parametrize("count", [1, CURVE_POINTS, CURVE_POINTS + 1, 12_345])
def test_group_points_are_few_and_keep_the_mean(count):
    points = [(step, math.sin(step)) for step in range(count)]
    groups, size = group_points(points)
    assert len(groups) == math.ceil(count / size) <= CURVE_POINTS
    assert groups[0][1] == pytest.approx(sum(y for _, y in points[:size]) / size)
    sizes = [min(size, count - start) for start in range(0, count, size)]
    total = sum(n * y for n, (_, y) in zip(sizes, groups, strict=True))
    assert total == pytest.approx(sum(y for _, y in points), abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 7), (0, 123_456), (0.31, 0.42)])
def test_ticks_are_even_few_and_inside(low, high):
    values = ticks(low, high, 6)
    gaps = [b - a for a, b in itertools.pairwise(values)]
    assert 2 <= len(values) <= 7 and low <= values[0] and values[-1] <= high
    assert gaps == pytest.approx([gaps[0]] * len(gaps))


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (0.01, 1), (1e-4, 3), (1e-20, 1e20)])
def test_log_ticks_rise_and_are_few(low, high):
    values = log_ticks(low, high)
    assert 2 <= len(values) <= 9 and values == sorted(set(values))
    assert low <= values[0] and values[-1] <= high


@pytest.mark.parametrize("places", [[50, 50, 50], [10, 12, 99], [99, 98, 97], [20, 80, 50]])
def test_spread_separates_labels_and_keeps_their_order(places):
    shifted = spread(places, 15, 0, 100)
    ranked = sorted(shifted)
    assert all(b - a >= 15 for a, b in itertools.pairwise(ranked))
    assert ranked[0] >= 0 and ranked[-1] <= 100
    order = sorted(range(3), key=places.__getitem__)
    assert [shifted[index] for index in order] == ranked
    if places == [20, 80, 50]:
        assert shifted == places
