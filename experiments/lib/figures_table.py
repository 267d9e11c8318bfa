"""Fill README.template.md with cells of the result tables: every measured number is in a CSV.

    python -m experiments.lib.figures_table

A reference is {FILE; WHERE; EXPRESSION; FORMAT}. FILE is a CSV or JSON file under
experiments/results. WHERE is COLUMN=VALUE, several with commas between them, empty for the only
row; a pair with a comma inside has single quotes. EXPRESSION is arithmetic over columns of the row,
or "mean" and such arithmetic for the mean over all matching rows; nested names of JSON files are
joined by "_". FORMAT is that of Python. Writes experiments/README.md, and the results in README.md.
"""

import ast
import csv
import decimal
import functools
import json
import operator
import pathlib
import re
import statistics

from experiments.lib.tables import RESULTS

HERE = pathlib.Path(__file__).parents[1]
TEMPLATE, PAGE = HERE / "README.template.md", HERE / "README.md"
RESULTS_TEMPLATE, FRONT_PAGE = HERE / "results.template.md", HERE.parent / "README.md"
SECTION = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
REFERENCE = re.compile(r"\{([^{}]+)\}")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def fill(template):
    """Return the template with every reference replaced by its number.

    Raises:
      ValueError: a reference names no cell, or more than one.
    """
    return REFERENCE.sub(lambda match: read_cell(match.group(1)), template)


def read_cell(reference):
    """Return the formatted number of a reference."""
    parts = [part.strip() for part in reference.split(";")]
    if len(parts) != 4:
        raise ValueError(f"{{{reference}}} is not {{FILE; WHERE; EXPRESSION; FORMAT}}")
    name, where, expression, form = parts
    rows = [row for row in read_rows(name) if matches(row, where, reference)]
    take_mean = expression.startswith("mean ")
    if not rows or (len(rows) > 1 and not take_mean):
        raise ValueError(f"{{{reference}}} matches {len(rows)} rows of {name}")
    formula = ast.parse(expression.removeprefix("mean "), mode="eval").body
    value = statistics.fmean(evaluate(formula, row, reference) for row in rows)
    return format_number(value, form)


def format_number(value, form):
    """Return a number as text, halves rounded away from zero as in print."""
    if form.endswith("f"):
        places = decimal.Decimal(1).scaleb(-int(form[:-1].rpartition(".")[2]))
        value = decimal.Decimal(repr(value)).quantize(places, decimal.ROUND_HALF_UP) + 0
    return format(value, form).replace("-", "−")


@functools.cache
def read_rows(name):
    """Return the rows of a table; a JSON file is one row."""
    path = RESULTS / name
    if not path.exists():
        raise ValueError(f"experiments/results has no {name}")
    if path.suffix == ".json":
        return [flatten(json.loads(path.read_text()))]
    with path.open(newline="") as file:
        return [
            {key.replace("-", "_"): v for key, v in row.items()} for row in csv.DictReader(file)
        ]


def flatten(tree, prefix=""):
    """Return {joined name: value} of nested dicts."""
    fields = {}
    for name, value in tree.items():
        inner = flatten(value, f"{prefix}{name}_") if isinstance(value, dict) else None
        fields |= {f"{prefix}{name}": value} if inner is None else inner
    return fields


def matches(row, where, reference):
    """Return whether a row has all values of a WHERE."""
    for condition in next(csv.reader([where], quotechar="'", skipinitialspace=True), ()):
        column, _, value = condition.partition("=")
        if column not in row:
            raise ValueError(f"{{{reference}}}: no column {column!r}")
        if row[column] != value:
            return False
    return True


def evaluate(formula, row, reference):
    """Return the value of arithmetic over the columns of a row."""
    if isinstance(formula, ast.BinOp):
        left, right = (evaluate(side, row, reference) for side in (formula.left, formula.right))
        return OPERATORS[type(formula.op)](left, right)
    if isinstance(formula, ast.Constant):
        return formula.value
    if isinstance(formula, ast.Name) and row.get(formula.id) not in (None, ""):
        return float(row[formula.id])
    raise ValueError(f"{{{reference}}}: no value {ast.unparse(formula)!r}")


def fill_front_page():
    """Return README.md with its table of results filled."""
    table = fill(RESULTS_TEMPLATE.read_text())
    return SECTION.sub(lambda match: match[1] + table + match[2], FRONT_PAGE.read_text())


def main():
    PAGE.write_text(fill(TEMPLATE.read_text()))
    FRONT_PAGE.write_text(fill_front_page())
    print(PAGE, FRONT_PAGE)


if __name__ == "__main__":
    main()
