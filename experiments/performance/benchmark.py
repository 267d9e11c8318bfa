"""Benchmark a training step beside PyTorch, with each model option, and each sampler.

python -m experiments.performance.benchmark [--settings base short tiny] [--rounds N]
    [--device cpu] [--out CSV]
    [--costs tiny] [--changes heads=2 remat=dots]

base@16 is base at a batch of 16. A step is: draw t and noise, forward, backward, Adam, EMA;
float32 on a CPU, bfloat16 with float32 parameters on a CUDA GPU. The JAX arm is the train step of
the package, which also guards against non-finite gradients, with train.steps_per_dispatch steps in
a program (tiny 20, base 1). The PyTorch twin computes the same function; the DiT of diffusers has
equal depth and width, but is another function. Both need pip install -e '.[benchmark]'. Options and
samplers are timed at the settings of --costs.

Each arm runs alone in a process, so that its peak memory is its own and threads do not compete. The
parent stays small, since ru_maxrss of a child starts at its parent's. On a CPU a framework starts
twice, because later starts read compiled programs from disk: compile_s and peak_gb belong to the
first start, all else to the second. --together runs all settings of a framework in one process, to
save start-up time on a GPU: name the settings by memory, the smallest first, since the peak is that
of the process. Rows of other settings and devices stay in the CSV.
"""

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from experiments.lib.tables import RESULTS, read_csv, write_csv
from specdiff_jax.runtime import provenance

FRAMEWORKS = (
    "jax",
    "torch eager",
    "torch compile",
    "diffusers eager",
    "diffusers compile",
)
PARTS = ("options", "samplers")  # of --costs
NAMES = ("base", "modern", "short", "tiny")
WARM_START = {"compile_s": "warm_start_s", "peak_gb": "warm_start_gb"}  # of a second start
CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
QUIET = 0.2  # cores of other programs; a busier machine slows OpenMP most
COLUMNS = (
    "setting framework change parameters:, tokens batch dtype examples_per_s:.3g slowest:.3g "
    "fastest:.3g peak_gb:.2f warm_start_gb:.2f compile_s:.1f warm_start_s:.1f "
    "jax_speedup:.2f time_over_unchanged:.3f real_time:.1f other_cores:.1f note"
)
ROOT = pathlib.Path(__file__).parents[2]


def main():
    args = parse_arguments()
    if args.arm:
        from experiments.performance.benchmark_arms import ARMS

        settings = (args.rounds, args.device, *([args.changes] if args.arm == "options" else []))
        print(json.dumps([run_arm(ARMS[args.arm], name, *settings) for name in args.settings]))
        return
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: the benchmark needs PyTorch: pip install -e '.[benchmark]'")
    (about,) = run_child("probe", ["tiny"], args)
    args.device = about["device"]
    if args.together and args.device == "cpu":
        sys.exit("error: --together is for a GPU: a CPU's peak memory needs a process an arm")
    facts = about | {"commit": provenance.read_commit(), "date": datetime.date.today().isoformat()}
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:  # empty: the first start compiles everything
        os.environ |= {name: folder for name in CACHES}
        rows = measure(args)
    rows = [row | facts for row in rows]
    print(format_table(rows))
    write_csv(args.out, rows + keep_rows(read_csv(args.out), rows))


def measure(args):
    """Return all requested rows."""
    groups = [args.settings] if args.together else [[name] for name in args.settings]
    rows = [row for group in groups for row in compare_frameworks(group, args)]
    costs = [(arm, [name]) for name in args.costs for arm in args.parts]
    return rows + [row for arm, names in costs for row in measure_arm(arm, names, args)]


def run_arm(arm, *settings):
    """Return the result of an arm, or a note that the device has too little memory for it."""
    try:
        return arm(*settings)
    except RuntimeError as error:  # of either framework
        if not any(words in str(error).lower() for words in ("out of memory", "exhausted")):
            raise
        return {"note": "does not fit the device's memory"}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["base", "short", "tiny"]
    parser.add_argument(
        "--settings", nargs="*", type=parse_setting, default=usual, help="NAME[@BATCH]"
    )
    parser.add_argument(
        "--costs",
        nargs="*",
        type=parse_setting,
        default=["tiny"],
        help="settings whose options are timed",
    )
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=FRAMEWORKS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of the costs")
    parser.add_argument("--changes", nargs="+", help="only these options; all where unset")
    parser.add_argument("--together", action="store_true", help="a process a framework")
    parser.add_argument("--rounds", type=int, help="timed steps of every arm")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda if both see a GPU")
    parser.add_argument("--out", default=RESULTS / "performance" / "benchmark.csv")
    parser.add_argument("--arm", help=argparse.SUPPRESS)  # inside a child
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def parse_setting(text):
    """Return a NAME of NAMES or NAME@BATCH, or raise an error."""
    name, _, batch = text.partition("@")
    if name not in NAMES or ("@" in text and not (batch.isdigit() and int(batch))):
        raise argparse.ArgumentTypeError(f"not {' | '.join(NAMES)}, or one with @BATCH: {text!r}")
    return text


def run_child(arm, settings, args, rounds=None):
    """Return the result of an arm for each setting from a fresh process, or exit on its error."""
    command = [
        sys.executable,
        "-m",
        "experiments.performance.benchmark",
        "--arm",
        arm,
        "--settings",
        *settings,
    ]
    rounds = rounds or args.rounds
    command += ["--rounds", str(rounds)] if rounds else []
    command += ["--device", args.device] if args.device else []
    command += ["--changes", *args.changes] if args.changes else []
    hide = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    env = os.environ | (hide if args.device == "cpu" or arm == "check" else {})
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        names = " ".join(settings)
        sys.exit(f"error: {arm} at {names} failed with exit code {done.returncode}, see above")
    return json.loads(done.stdout.splitlines()[-1])


def compare_frameworks(settings, args):
    """Return rows of the same steps in each framework, after a check of equal outputs."""
    for name, result in zip(settings, run_child("check", settings, args), strict=True):
        error = result["relative_error"]
        print(f"{name}: the forward passes agree to {error:.1e} of the largest output")
    rows = [row for arm in args.frameworks for row in measure_arm(arm, settings, args)]
    ours = {row["setting"]: row.get("examples_per_s") for row in rows if row["framework"] == "jax"}
    for row in rows:
        if "examples_per_s" in row and ours.get(row["setting"]):  # above 1: JAX is faster
            row["jax_speedup"] = ours[row["setting"]] / row["examples_per_s"]
    return rows


def measure_arm(arm, settings, args):
    """Return the rows of an arm, options with their ratio to the unchanged model."""
    rows = []
    print(f"{' '.join(settings)}: {arm} ...", end=" ", flush=True)
    for name, result in zip(settings, start(arm, settings, args), strict=True):
        rows += make_rows(arm, name, result)
    busy = max(row.get("other_cores") or 0.0 for row in rows)
    warning = f" (other programs used {busy:.1f} cores)" if busy > QUIET else ""
    seconds = sum(row["batch"] / row["examples_per_s"] for row in rows if "batch" in row)
    print(rows[0].get("note") or f"{seconds:.3g} s a round{warning}", flush=True)
    return rows


def start(arm, settings, args):
    """Return the results of an arm; a framework on a CPU starts twice."""
    if args.device != "cpu" or arm not in FRAMEWORKS:
        return run_child(arm, settings, args)
    firsts, seconds = run_child(arm, settings, args, rounds=1), run_child(arm, settings, args)
    return [merge_starts(*both) for both in zip(firsts, seconds, strict=True)]


def merge_starts(first, second):
    """Return the row of two starts of an arm."""
    warm = {new: second[old] for old, new in WARM_START.items() if old in second}
    return second | {name: first[name] for name in WARM_START if name in first} | warm


def make_rows(arm, setting, result):
    """Return the rows of what an arm returned for a setting."""
    framework = arm if arm in FRAMEWORKS else "jax"
    rows = [{"setting": setting, "framework": framework} | row for row in as_list(result)]
    plain = next((row["seconds"] for row in rows if row.get("change") == "none"), None)
    for row in rows:
        summarize(row, plain)
    return rows


def as_list(rows):
    """Return rows, or one row as a list."""
    return rows if isinstance(rows, list) else [rows]


def summarize(row, plain):
    """Replace the seconds of a row by rates and ratios, in place."""
    seconds = row.pop("seconds", None)
    if seconds is None:
        return
    batch, middle = row["batch"], statistics.median(seconds)
    row |= {"steps": len(seconds), "examples_per_s": batch / middle}
    row |= {"slowest": batch / max(seconds), "fastest": batch / min(seconds)}
    if plain is not None:
        row["time_over_unchanged"] = middle / statistics.median(plain)
    if clip_seconds := row.pop("clip_seconds", None):
        row["real_time"] = clip_seconds * batch / middle


def keep_rows(old, new):
    """Return the old rows that no new measurement replaces."""
    replaced = {part_of(row) for row in new}
    return [row for row in old if part_of(row) not in replaced]


def part_of(row):
    """Return (setting, device, framework or part): what one measurement replaces."""
    change = row.get("change") or ""
    which = row["framework"] if not change else PARTS[change.startswith("sampler=")]
    return row["setting"], row["device"], which


def format_table(rows):
    """Return the rows as text in columns, each with its format."""
    columns = [column.partition(":")[::2] for column in COLUMNS.split()]
    show = lambda row, name, form: "" if row.get(name) is None else format(row[name], form)
    cells = [[name for name, _ in columns]]
    cells += [[show(row, *column) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


if __name__ == "__main__":
    main()
