"""Print what differs between two runs: their configs and their results.

python -m experiments.ablations.compare runs/a runs/b
"""

import argparse
import json
import pathlib
import sys

import numpy as np

NOT_COMPARED = ("workdir", "name")


def flatten(section, prefix=""):
    """Return {"section.field": value} of nested dicts."""
    fields = {}
    for name, value in section.items():
        path = f"{prefix}{name}"
        fields |= flatten(value, path + ".") if isinstance(value, dict) else {path: value}
    return fields


def read(workdir, name):
    """Return the content of a JSON file of a run, or exit with one line."""
    path = workdir / name
    if not path.exists():
        sys.exit(f"error: {path} is missing; is {workdir} the workdir of a run that trained?")
    return json.loads(path.read_text())


def read_results(workdir):
    """Return {name: number} of what a run achieved and cost."""
    health = read(workdir, "health.json")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    trains = [r for r in map(json.loads, lines) if r["kind"] == "train"]
    results = {"steps": health["step"], "x0_error": float(np.mean(health["x0_error"]))}
    for name, errors in health["baselines"].items():
        results[f"x0_error over {name}"] = results["x0_error"] / float(np.mean(errors))
    last = max(1, len(trains) // 10)
    results["training loss"] = float(np.mean([r["loss"] for r in trains[-last:]]))
    results["steps per second"] = float(np.median([r["steps_per_second"] for r in trains]))
    facts = workdir / "preflight.json"
    if facts.exists():
        facts = json.loads(facts.read_text())
        results |= {name: facts[name] for name in ("parameters", "peak_bytes")}
    return results


def compare(title, left, right, show=str):
    """Return lines of the names whose values differ."""
    missing = "(none)"
    names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]
    cells = [(n, show(left.get(n, missing)), show(right.get(n, missing))) for n in names]
    if not cells:
        return [f"{title}: no difference"]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)) for row in cells)
    return [f"{title}:", *(f"  {row.rstrip()}" for row in rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, type=pathlib.Path)
    first, second = parser.parse_args().runs
    configs = [flatten(read(run, "config.json")) for run in (first, second)]
    configs = [{k: v for k, v in c.items() if k not in NOT_COMPARED} for c in configs]
    number = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    print(f"A: {first}\nB: {second}")
    print("\n".join(compare("config", *configs)))
    print("\n".join(compare("result", read_results(first), read_results(second), number)))


if __name__ == "__main__":
    main()
