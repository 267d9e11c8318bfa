"""What a training step costs beside PyTorch, with each model option, and a clip with each sampler.

python -m experiments.performance.benchmark [--settings base short tiny] [--rounds N]
    [--device cpu] [--out CSV]
    [--costs tiny] [--changes heads=2 remat=dots]

base@16 is base at a batch of 16. A step is: draw t and noise, forward, backward, Adam, moving
average of the parameters; float32 on a CPU, bfloat16 with float32 parameters on a CUDA GPU. The JAX
arm is the library's own train step, which also guards against non-finite gradients, as many of them
in a program as the config's training has (tiny 20, base one). Beside it stand
its twin in PyTorch, which is the same function, and the DiT of diffusers of equal depth and width,
which is not; both are needed for this script only: pip install -e '.[benchmark]'. Options and
samplers are timed at the settings of --costs. Each arm runs alone in a process of its own, so that
its peak memory is its own and threads do not fight; this parent stays small, for a child's
ru_maxrss begins at its parent's. On a CPU a framework starts twice, as what it compiled is read
from disk in all runs of a config but the first: compile_s and peak_gb are of the first start, all
else of the second. --together saves a GPU the starts: then name the settings by memory, the least
first, for a peak is the process's. Rows of what is not asked for, and of other kinds of device,
stay in the CSV.
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
PARTS = ("options", "samplers")  # of what a setting's costs are
NAMES = ("base", "modern", "short", "tiny")
AGAIN = {"compile_s": "again_s", "peak_gb": "again_gb"}  # what a second start has less of
CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
QUIET = 0.2  # cores; above it, numbers are of a busy machine and OpenMP's suffer most
COLUMNS = (
    "setting framework change parameters:, tokens batch dtype examples_per_s:.3g slowest:.3g "
    "fastest:.3g peak_gb:.2f again_gb:.2f compile_s:.1f again_s:.1f jax_over_this:.2f "
    "time_over_none:.3f real_time:.1f other_cores:.1f note"
)
ROOT = pathlib.Path(__file__).parents[2]


def main():
    args = arguments()
    if args.arm:
        from experiments.performance.benchmark_arms import ARMS

        asked = (args.rounds, args.device, *([args.changes] if args.arm == "options" else []))
        print(json.dumps([tried(ARMS[args.arm], name, *asked) for name in args.settings]))
        return
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: the benchmark needs PyTorch: pip install -e '.[benchmark]'")
    (about,) = child("probe", ["tiny"], args)
    args.device = about["device"]
    if args.together and args.device == "cpu":
        sys.exit("error: --together is for a GPU: a CPU's peak memory needs a process an arm")
    facts = about | {"commit": provenance.commit(), "date": datetime.date.today().isoformat()}
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:  # empty: what a start compiles, it compiles
        os.environ |= {name: folder for name in CACHES}
        rows = measure(args)
    rows = [row | facts for row in rows]
    print(table(rows))
    write_csv(args.out, rows + kept(read_csv(args.out), rows))


def measure(args):
    """All rows that were asked for."""
    groups = [args.settings] if args.together else [[name] for name in args.settings]
    rows = [row for group in groups for row in beside_torch(group, args)]
    costs = [(arm, [name]) for name in args.costs for arm in args.parts]
    return rows + [row for asked in costs for row in measured(*asked, args)]


def tried(arm, *asked):
    """What an arm returns, or a note that the device has too little memory for it."""
    try:
        return arm(*asked)
    except RuntimeError as error:  # both frameworks' is one
        if not any(words in str(error).lower() for words in ("out of memory", "exhausted")):
            raise
        return {"note": "does not fit the device's memory"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["base", "short", "tiny"]
    parser.add_argument("--settings", nargs="*", type=setting, default=usual, help="NAME[@BATCH]")
    parser.add_argument("--costs", nargs="*", type=setting, default=["tiny"], help="whose options")
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


def setting(text):
    """A NAME of NAMES, or NAME@BATCH."""
    name, _, batch = text.partition("@")
    if name not in NAMES or ("@" in text and not (batch.isdigit() and int(batch))):
        raise argparse.ArgumentTypeError(f"not {' | '.join(NAMES)}, or one with @BATCH: {text!r}")
    return text


def child(arm, settings, args, rounds=None):
    """What an arm returns for each setting, run in a fresh process; its errors stop all."""
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
        told = " ".join(settings)
        sys.exit(f"error: {arm} at {told} failed with exit code {done.returncode}, see above")
    return json.loads(done.stdout.splitlines()[-1])


def beside_torch(settings, args):
    """Rows of the same steps in each framework, once both are known to be the same function."""
    for name, found in zip(settings, child("check", settings, args), strict=True):
        error = found["relative_error"]
        print(f"{name}: the forward passes agree to {error:.1e} of the largest output")
    rows = [row for arm in args.frameworks for row in measured(arm, settings, args)]
    ours = {row["setting"]: row.get("examples_per_s") for row in rows if row["framework"] == "jax"}
    for row in rows:
        if "examples_per_s" in row and ours.get(row["setting"]):  # above one: JAX is faster
            row["jax_over_this"] = ours[row["setting"]] / row["examples_per_s"]
    return rows


def measured(arm, settings, args):
    """The rows of an arm; where there are several of a setting, beside what changes nothing."""
    rows = []
    print(f"{' '.join(settings)}: {arm} ...", end=" ", flush=True)
    for name, found in zip(settings, started(arm, settings, args), strict=True):
        rows += rows_of(arm, name, found)
    busy = max(row.get("other_cores") or 0.0 for row in rows)
    warning = f" (not quiet: other programs used {busy:.1f} cores)" if busy > QUIET else ""
    seconds = sum(row["batch"] / row["examples_per_s"] for row in rows if "batch" in row)
    print(rows[0].get("note") or f"{seconds:.3g} s a round{warning}", flush=True)
    return rows


def started(arm, settings, args):
    """What an arm returns: of a framework on a CPU, at its second start and with AGAIN."""
    if args.device != "cpu" or arm not in FRAMEWORKS:
        return child(arm, settings, args)
    firsts, seconds = child(arm, settings, args, rounds=1), child(arm, settings, args)
    return [twice(*both) for both in zip(firsts, seconds, strict=True)]


def twice(first, second):
    """The row of two starts of an arm."""
    again = {new: second[old] for old, new in AGAIN.items() if old in second}
    return second | {name: first[name] for name in AGAIN if name in first} | again


def rows_of(arm, setting, found):
    """The rows of what an arm returned for a setting."""
    framework = arm if arm in FRAMEWORKS else "jax"
    rows = [{"setting": setting, "framework": framework} | row for row in as_list(found)]
    plain = next((row["seconds"] for row in rows if row.get("change") == "none"), None)
    for row in rows:
        summarise(row, plain)
    return rows


def as_list(rows):
    return rows if isinstance(rows, list) else [rows]


def summarise(row, plain):
    """Replaces the seconds of a row by what its table says of them, in place."""
    seconds = row.pop("seconds", None)
    if seconds is None:
        return
    batch, middle = row["batch"], statistics.median(seconds)
    row |= {"steps": len(seconds), "examples_per_s": batch / middle}
    row |= {"slowest": batch / max(seconds), "fastest": batch / min(seconds)}
    if plain is not None:
        row["time_over_none"] = middle / statistics.median(plain)
    if clip_seconds := row.pop("clip_seconds", None):
        row["real_time"] = clip_seconds * batch / middle


def kept(old, new):
    """The old rows of what was not measured again, with their date."""
    again = {part(row) for row in new}
    return [row for row in old if part(row) not in again]


def part(row):
    """What is measured as one: a framework, all options or all samplers, at a setting."""
    change = row.get("change") or ""
    which = row["framework"] if not change else PARTS[change.startswith("sampler=")]
    return row["setting"], row["device"], which


def table(rows):
    """The rows as text in columns, each with its format."""
    columns = [column.partition(":")[::2] for column in COLUMNS.split()]
    show = lambda row, name, form: "" if row.get(name) is None else format(row[name], form)
    cells = [[name for name, _ in columns]]
    cells += [[show(row, *column) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


if __name__ == "__main__":
    main()
