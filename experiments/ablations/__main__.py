"""Train names x seeds of configs/ablations.py; write a table, a figure and a page with sound.

    python -m experiments.ablations --names v_prediction muon --seeds 0 1 2 [--steps 600]

Finished runs are kept in runs/ablations and skipped. On several GPUs each takes one run at a
time. Hosts that share runs/ablations divide the work when all run the same command. The table
covers all finished runs of that size and number of steps, whatever command trained them. Writes
results/ablations/ablations.csv (every run), results/ablations/ablations_summary.csv (mean, 95 %
interval, difference from the control by seed), figures/ablations.png and
runs/ablations/ablations.html.
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
METRIC = "over_linear_frame"  # x_0 error over that of the linear denoiser of a frame
GIT = ["git", "rev-parse", "--short", "HEAD"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(ablations.names())
    parser.add_argument("--names", nargs="+", default=names, help="combine with commas")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of the control; compute is equal")
    parser.add_argument("--size", default="tiny", choices=["tiny", "base"])
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f"--steps {args.steps} is not at least 1")
    for name in args.names:
        if unknown := set(name.split(",")) - set(names):
            parser.error(f"unknown {unknown.pop()!r}; known: {', '.join(names)}")
    return args


def workdir_of(args, name, seed):
    """Return the folder of one arm."""
    return RUNS / f"{args.size}_{args.steps}" / f"{name.replace(',', '+')}_{seed}"


def list_gpus():
    """Return the numbers of the visible GPUs, or [None] for a CPU: one run at a time."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return [None]
    return list(range(len(listed.splitlines()))) or [None]


def run_arm(args, name, seed, free):
    """Return the row of one arm: finished before, trained now, or trained by another host."""
    workdir = workdir_of(args, name, seed)
    with claimed(workdir) as is_ours:
        if (workdir / "row.json").exists():
            return json.loads((workdir / "row.json").read_text())
        if not is_ours:
            return {"name": name, "seed": seed, "elsewhere": True}
        return train_arm(args, name, seed, workdir, free)


def train_arm(args, name, seed, workdir, free):
    """Train and measure one arm on a free device, and return its row."""
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
    """Return all rows, seed by seed: an interrupted table has whole seeds."""
    jobs = [(name, seed) for seed in args.seeds for name in dict.fromkeys(["control", *args.names])]
    free = queue.Queue()
    for device in list_gpus():
        free.put(device)
    with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
        rows = pool.map(lambda job: run_arm(args, *job, free), jobs)
        return list(tqdm.tqdm(rows, total=len(jobs), desc="ablations", unit="run"))


def interval(values):
    """Return the mean and half of the 95 % t-interval, NaN for a single value."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values[0]) if len(values) else float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def summarize(rows):
    """Return one row a name, best first; differences from the control are between equal seeds."""
    control = {row["seed"]: row for row in rows if row["name"] == "control"}
    summary = []
    for name in dict.fromkeys(row["name"] for row in rows):
        runs = [row for row in rows if row["name"] == name]
        line = {"name": name, "seeds": len(runs), "steps": runs[0]["steps"]}
        for key in (METRIC, "bound_nats", "x0_error"):
            line[key], line[f"{key}_half"] = interval([row[key] for row in runs])
        paired = [row for row in runs if row["seed"] in control]  # where the control did not fail
        changes = [row[METRIC] / control[row["seed"]][METRIC] - 1 for row in paired]
        line["change"], line["change_half"] = interval(changes)
        line["seconds"] = float(np.mean([row["seconds"] for row in runs]))
        line["parameters"] = runs[0]["parameters"]
        line["question"] = "; ".join(
            ablations.names()[part].__doc__.strip() for part in name.split(",")
        )
        summary.append(line)
    rounded = lambda value: float(f"{value:.4g}") if isinstance(value, float) else value
    summary = [{key: rounded(value) for key, value in line.items()} for line in summary]
    return sorted(summary, key=lambda line: line[METRIC])


def main():
    args = parse_arguments()
    ran = run_all(args)
    failed = [row for row in ran if "failed" in row]
    if elsewhere := sum("elsewhere" in row for row in ran):
        print(
            f"{elsewhere} runs belong to another host; run the same command again to include them"
        )
    for row in failed:
        print(f"failed: {row['name']} seed {row['seed']}: {row['failed']}", file=sys.stderr)
    finished = sorted((RUNS / f"{args.size}_{args.steps}").glob("*/row.json"))
    rows = [json.loads(path.read_text()) for path in finished]
    if not rows:
        sys.exit("error: no run finished; see output.txt of each run in " + str(RUNS))
    commit = subprocess.check_output(GIT, cwd=HERE, text=True).strip()
    flat = [{k: v for k, v in row.items() if k != "x0_error_by_log_snr"} for row in rows]
    write_csv(RESULTS / "ablations" / "ablations.csv", [row | {"commit": commit} for row in flat])
    summary = summarize(rows)
    write_csv(RESULTS / "ablations" / "ablations_summary.csv", summary)
    draw(HERE / "figures" / "ablations.png", summary)
    first = min(row["seed"] for row in rows)
    folders = {line["name"]: workdir_of(args, line["name"], first) for line in summary}
    page = write_page(RUNS / "ablations.html", summary, folders)
    for line in summary:
        print(f"{line[METRIC]:.4f} ± {line[f'{METRIC}_half']:.4f}  {line['name']}")
    print(f"listen: {page}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
