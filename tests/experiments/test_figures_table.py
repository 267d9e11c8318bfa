"""experiments/README.md: every measured number is a cell of a result table."""

import re

import pytest

from experiments.lib import figures_table

FREE_COLUMNS = {"target", "command", "table"}  # text of the template


def test_page_equals_the_tables():
    page = figures_table.fill(figures_table.TEMPLATE.read_text())
    assert figures_table.PAGE.read_text() == page, "run python -m experiments.lib.figures_table"


def test_front_page_equals_the_tables():
    page = figures_table.FRONT_PAGE.read_text()
    assert figures_table.SECTION.search(page)
    assert page == figures_table.fill_front_page(), "run python -m experiments.lib.figures_table"


@pytest.mark.parametrize("name", ["TEMPLATE", "RESULTS_TEMPLATE"])
def test_results_of_the_template_are_references(name):
    header = None
    for line in getattr(figures_table, name).read_text().splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
            continue
        for name, cell in list(zip(header, cells, strict=True))[1:]:
            if name not in FREE_COLUMNS:
                assert not re.search(r"\d", figures_table.REFERENCE.sub("", cell)), line


@pytest.mark.parametrize(
    "reference, message",
    [
        ("generation/none.csv; t=mean; model; .2f", "has no generation/none.csv"),
        ("generation/tiny.csv; t=median; model; .2f", "matches 0 rows"),
        ("generation/tiny.csv; ; model; .2f", "matches 11 rows"),
        ("generation/tiny.csv; level=mean; model; .2f", "no column 'level'"),
        ("generation/tiny.csv; t=mean; modern; .2f", "no value 'modern'"),
        ("generation/tiny.csv; t=mean; model", "is not {FILE; WHERE; EXPRESSION; FORMAT}"),
    ],
)
def test_unknown_cell_is_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        figures_table.fill(f"{{{reference}}}")


def test_reference_takes_arithmetic_and_means():
    text = "{generation/tiny.csv; t=mean; 100*model/linear_patch; .0f} %"
    assert figures_table.fill(text) == "48 %"
    mean = figures_table.fill("{downstream/tagging_few.csv; way=scratch; mean seed; .1f}")
    assert mean == "2.0"


def test_halves_are_rounded_away_from_zero():
    values = [(0.995, ".2f"), (-3.05, ".1f"), (-0.0004, ".1f"), (2.5, ",.0f"), (0.25, "+.1f")]
    texts = [figures_table.format_number(value, form) for value, form in values]
    assert texts == ["1.00", "−3.1", "0.0", "3", "+0.3"]
