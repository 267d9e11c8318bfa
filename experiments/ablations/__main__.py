"""Names x seeds of configs/ablations.py -> a table with intervals, a figure and a page with sound.

    python -m experiments.ablations --names v_prediction muon --seeds 0 1 2 [--steps 600]

Finished runs are kept in runs/ablations and skipped; on several GPUs one run goes to each, and
hosts that share runs/ablations divide the work when all are given the same command. A table
is of all finished runs of that size and number of steps, whatever command made them. Writes
results/ablations.csv (every run), results/ablations_summary.csv (mean, 95 % interval, difference
from the control by seed), figures/ablations.png and runs/ablations/ablations.html.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys

import numpy as np
import tqdm
from scipy import stats

from configs import ablations
from experiments.ablations.claims import claimed
from experiments.ablations.page import draw, write_page
from experiments.lib.tables import RESULTS, write_csv

HERE = pathlib.Path(__file__).parents[1]
ROOT = HERE.parent
RUNS = ROOT / "runs" / "ablations"
GIT = ["git", "rev-parse", "--short", "HEAD"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(ablations.names())
    parser.add_argument("--names", nargs="+", default=known, help="combine with commas")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of the control; compute is equal")
    parser.add_argument("--size", default="tiny", choices=["tiny", "base"])
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f"--steps {args.steps} is not at least 1")
    for name in args.names:
        if unknown := set(name.split(",")) - set(known):
            parser.error(f"unknown {unknown.pop()!r}; known: {', '.join(known)}")
    return args


def workdir_of(args, name, seed):
    return RUNS / f"{args.size}_{args.steps}" / f"{name.replace(',', '+')}_{seed}"


def gpus():
    """The numbers of the visible GPUs, or [None] for a CPU: one run at a time."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return [None]
    return list(range(len(listed.splitlines()))) or [None]


def run_arm(args, name, seed, free):
    """One arm's row: of a finished run, of one on a free device, or that another host has it."""
    workdir = workdir_of(args, name, seed)
    with claimed(workdir) as mine:
        if (workdir / "row.json").exists():
            return json.loads((workdir / "row.json").read_text())
        if not mine:
            return {"name": name, "seed": seed, "elsewhere": True}
        return trained_arm(args, name, seed, workdir, free)


def trained_arm(args, name, seed, workdir, free):
    """Trains and measures one arm on a free device; its row."""
    command = [sys.executable, "-m", "experiments.ablations.arm", name, f"--workdir={workdir}"]
    command += [f"--size={args.size}", f"--seed={seed}", f"--steps={args.steps}"]
    device = free.get()
    env = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": str(device)})
    with open(workdir / "output.txt", "w") as output:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
    free.put(device)
    if done.returncode:
        lines = (workdir / "output.txt").read_text().strip().splitlines() or ["no output"]
        return {"name": name, "seed": seed, "failed": lines[-1]}
    return json.loads((workdir / "row.json").read_text())


def run_all(args):
    """All rows, seed by seed, so that an interrupted table has whole seeds."""
    jobs = [(name, seed) for seed in args.seeds for name in dict.fromkeys(["control", *args.names])]
    free = queue.Queue()
    for device in gpus():
        free.put(device)
    with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
        rows = pool.map(lambda job: run_arm(args, *job, free), jobs)
        return list(tqdm.tqdm(rows, total=len(jobs), desc="ablations", unit="run"))


def interval(values):
    """Mean and half of the 95 % t-interval; NaN where so few values cannot have one."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values[0]) if len(values) else float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def summarise(rows):
    """One row a name, best first; differences from the control are between equal seeds."""
    control = {row["seed"]: row for row in rows if row["name"] == "control"}
    summary = []
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        line = {"name": name, "seeds": len(mine), "steps": mine[0]["steps"]}
        for key in ("of_frame", "bound_nats", "x0_error"):
            line[key], line[f"{key}_half"] = interval([row[key] for row in mine])
        known = [row for row in mine if row["seed"] in control]  # where the control did not fail
        paired = [row["of_frame"] / control[row["seed"]]["of_frame"] - 1 for row in known]
        line["change"], line["change_half"] = interval(paired)
        line["seconds"] = float(np.mean([row["seconds"] for row in mine]))
        line["parameters"] = mine[0]["parameters"]
        line["question"] = "; ".join(
            ablations.names()[part].__doc__.strip() for part in name.split(",")
        )
        summary.append(line)
    rounded = lambda value: float(f"{value:.4g}") if isinstance(value, float) else value
    summary = [{key: rounded(value) for key, value in line.items()} for line in summary]
    return sorted(summary, key=lambda line: line["of_frame"])


def main():
    args = arguments()
    ran = run_all(args)
    failed = [row for row in ran if "failed" in row]
    if elsewhere := sum("elsewhere" in row for row in ran):
        print(f"{elsewhere} runs are another host's; the same command again counts them in")
    for row in failed:
        print(f"failed: {row['name']} seed {row['seed']}: {row['failed']}", file=sys.stderr)
    finished = sorted((RUNS / f"{args.size}_{args.steps}").glob("*/row.json"))
    rows = [json.loads(path.read_text()) for path in finished]
    if not rows:
        sys.exit("error: no run ended well; their output is beside them, in " + str(RUNS))
    commit = subprocess.check_output(GIT, cwd=HERE, text=True).strip()
    flat = [{k: v for k, v in row.items() if k != "x0_error_by_log_snr"} for row in rows]
    write_csv(RESULTS / "ablations" / "ablations.csv", [row | {"commit": commit} for row in flat])
    summary = summarise(rows)
    write_csv(RESULTS / "ablations" / "ablations_summary.csv", summary)
    draw(HERE / "figures" / "ablations.png", summary)
    first = min(row["seed"] for row in rows)
    folders = {line["name"]: workdir_of(args, line["name"], first) for line in summary}
    page = write_page(RUNS / "ablations.html", summary, folders)
    for line in summary:
        print(f"{line['of_frame']:.4f} ± {line['of_frame_half']:.4f}  {line['name']}")
    print(f"listen: {page}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
