"""One training step of specdiff_jax beside the same model in PyTorch, on the same machine.

python -m experiments.benchmark [--settings base short tiny] [--steps N] [--device cpu] [--out CSV]

A step is: draw t and noise, forward, backward, Adam, moving average of the parameters; float32 on a
CPU, bfloat16 with float32 parameters on a CUDA GPU. The JAX arm is the library's own train step,
which also guards against non-finite gradients. Each arm runs alone in a process of its own, so that
its peak memory is its own and threads do not fight. This parent stays small: a child's ru_maxrss
begins at its parent's. PyTorch is needed for this script only: pip install -e '.[benchmark]'.
"""

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

from experiments.tables import RESULTS, write_csv

# name: (config of configs/base.py, frames or None for the config's, batch, timed steps)
SETTINGS = {
    "base": ("base", None, 1, 3),  # 5,388,802 parameters, 8192 tokens
    "base16": ("base", None, 16, 10),  # the same at a GPU's batch
    "short": ("base", 128, 4, 7),  # 1024 tokens
    "tiny": ("tiny", None, 16, 30),  # 64 tokens of 128 x 4
}
WARMUP = 2  # steps before the clock starts, beside compiling
TOLERANCE = 2e-5  # of the largest output: float32 rounding through four blocks
QUIET = 0.2  # cores; above it, numbers are of a busy machine and OpenMP's suffer most
COLUMNS = (
    "setting framework parameters:, tokens batch dtype examples_per_s:.3g slowest:.3g fastest:.3g "
    "peak_gb:.2f compile_s:.1f jax_over_this:.2f other_cores:.1f note"
)
GIT = ["git", "describe", "--always", "--dirty"]
ROOT = pathlib.Path(__file__).parents[1]


def main():
    args = arguments()
    if args.arm:
        print(json.dumps(ARMS[args.arm](args.settings[0], args.steps, args.device)))
        return
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: the benchmark needs PyTorch: pip install -e '.[benchmark]'")
    about = child("probe", "tiny", args)
    args.device = about["device"]
    git = subprocess.run(GIT, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    facts = about | {"commit": git, "date": datetime.date.today().isoformat()}
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)

    rows = []
    for setting in args.settings:
        same = child("check", setting, args)
        error, parameters = same["relative_error"], {"parameters": same["parameters"]}
        print(f"{setting}: the forward passes agree to {error:.1e} of the largest output")
        arms = [measured(name, setting, args) for name in ("jax", "torch eager", "torch compile")]
        for row in arms:
            if "examples_per_s" in row:  # above one: JAX is faster
                row["jax_over_this"] = arms[0]["examples_per_s"] / row["examples_per_s"]
            rows.append(row | parameters | facts)
    print(table(rows))
    write_csv(args.out, rows)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["base", "short", "tiny"]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual)
    parser.add_argument("--steps", type=int, help="timed steps of every arm")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda if both see a GPU")
    parser.add_argument("--out", default=RESULTS / "benchmark.csv")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)  # inside a child
    args = parser.parse_args()
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be at least 1")
    return args


def child(arm, setting, args):
    """What an arm returns, run in a fresh process; its errors stop the benchmark."""
    command = [sys.executable, "-m", "experiments.benchmark", "--arm", arm, "--settings", setting]
    command += ["--steps", str(args.steps)] if args.steps else []
    command += ["--device", args.device] if args.device else []
    hide = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    env = os.environ | (hide if args.device == "cpu" or arm == "check" else {})
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {arm} at {setting} failed with exit code {done.returncode}, see above")
    return json.loads(done.stdout.splitlines()[-1])


def measured(arm, setting, args):
    """A row of the table."""
    print(f"{setting}: {arm} ...", end=" ", flush=True)
    row = {"setting": setting, "framework": arm} | child(arm, setting, args)
    seconds = row.pop("seconds", None)
    if seconds is None:
        print(row["note"], flush=True)
        return row
    middle, batch = statistics.median(seconds), SETTINGS[setting][2]
    row |= {"steps": len(seconds), "examples_per_s": batch / middle}
    row |= {"slowest": batch / max(seconds), "fastest": batch / min(seconds)}
    busy = row.get("other_cores") or 0.0
    warning = f" (not quiet: other programs used {busy:.1f} cores)" if busy > QUIET else ""
    print(f"{middle:.3g} s a step{warning}", flush=True)
    return row


def job(setting, device):
    """(Flax model, config, x_0 shape): the setting's model under the base's noise and optimiser."""
    from configs import base
    from specdiff_jax import build

    size, frames, batch, _ = SETTINGS[setting]
    config, common = base.get_config(size), base.get_config()
    for section in ("schedule", "diffusion", "optimizer"):
        config[section] = common[section]
    config.representation.frames = frames or config.representation.frames
    config.model.dtype = "bfloat16" if device == "cuda" else "float32"
    shape = build.representation(config).shape
    return build.model(config, shape), config, (batch, *shape)


def probe(setting, steps, device):
    """The device both frameworks will use, and versions."""
    import flax
    import jax
    import torch

    both = jax.default_backend() == "gpu" and torch.cuda.is_available()
    if device == "cuda" and not both:
        sys.exit("error: --device cuda needs a GPU that both JAX and PyTorch see")
    device = device or ("cuda" if both else "cpu")
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    versions = {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}
    return {"device": device, "device_name": name} | versions


def check(setting, steps, device):
    """Equal parameter counts and equal outputs of the two models, in float32 on the CPU."""
    import jax
    import numpy as np
    import torch

    from experiments import torch_dit

    model, _, shape = job(setting, "cpu")
    rng = np.random.default_rng(0)
    x_t, t = rng.standard_normal((1, *shape[1:]), np.float32), np.float32([0.3])
    params = jax.jit(model.init)(jax.random.key(0), x_t, t)["params"]
    noisy = lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape, np.float32)
    params = jax.tree.map(noisy, params)  # so that nothing is zero or one
    torch_dit.copy_from_flax(twin := torch_dit.DiT(model), params)
    count = sum(p.size for p in jax.tree.leaves(params))
    assert count == sum(p.numel() for p in twin.parameters())
    assert count == 5_388_802 or not setting.startswith("base")

    ours = np.asarray(jax.jit(model.apply)({"params": params}, x_t, t)[0])
    with torch.inference_mode():
        theirs = twin(torch.from_numpy(x_t).permute(0, 3, 1, 2), torch.from_numpy(t))
    difference = np.abs(ours - theirs.permute(0, 2, 3, 1).numpy()).max() / np.abs(ours).max()
    if difference > TOLERANCE:
        sys.exit(f"error: JAX and PyTorch differ by {difference:.1e} of the largest output")
    return {"relative_error": float(difference), "parameters": count}


def jax_arm(setting, steps, device):
    """The library's train step on random x_0."""
    import jax

    from specdiff_jax import build, optimizers
    from specdiff_jax.diffusion.losses import diffusion_loss
    from specdiff_jax.state import make_train_step

    model, config, shape = job(setting, device)
    schedule, tx = build.schedule(config), optimizers.optimizer(config, steps=1)
    goal = build.objective(config, build.representation(config), schedule)
    before = peak_rss()

    def loss(params, x_0, key):
        network = lambda x_t, t: model.apply({"params": params}, x_t, t)[0]
        return diffusion_loss(network, x_0, key, schedule, goal)

    state = build.init(config, model, tx, shape[1:])
    x_0, key = jax.random.normal(jax.random.key(1), shape), jax.random.key(2)
    train_step = make_train_step(loss, tx, optimizers.averaging(config))
    start = time.perf_counter()
    train_step = jax.jit(train_step, donate_argnums=0).lower(state, 0, x_0, key).compile()
    compile_seconds = time.perf_counter() - start

    def one(index):
        nonlocal state
        state, metrics = train_step(state, index, x_0, key)
        assert jax.block_until_ready((state, metrics))[1]["finite"]

    times = timed(one, steps or SETTINGS[setting][3])
    memory = jax.devices()[0].memory_stats() if device == "cuda" else None
    peak = memory["peak_bytes_in_use"] if memory else peak_rss() - before
    return row_of(model, shape, peak, compile_seconds) | times


def torch_arm(setting, steps, device, compiled=False):
    """The same step of the twin."""
    import torch

    from experiments import torch_dit

    model, config, shape = job(setting, device)
    before = peak_rss()
    one = torch_dit.train_step(model, config, shape, device, compiled)
    start = time.perf_counter()
    try:
        one(0)
    except Exception as error:  # no C++ compiler, an unsupported Python: a row that says so
        if not compiled:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return {"note": f"torch.compile failed: {reason}"}
    first = time.perf_counter() - start  # compiling and one step
    times = timed(one, steps or SETTINGS[setting][3])
    compile_seconds = max(0.0, first - min(times["seconds"])) if compiled else None
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_rss() - before
    return row_of(model, shape, peak, compile_seconds) | times


def timed(step, count):
    """Seconds of `count` steps after the warm-up, and the cores that other programs used."""
    for index in range(WARMUP):
        step(index)
    marks, others = [time.perf_counter()], other_seconds()
    for index in range(WARMUP, WARMUP + count):
        step(index)
        marks.append(time.perf_counter())
    seconds = [end - start for start, end in itertools.pairwise(marks)]
    others = None if others is None else (other_seconds() - others) / sum(seconds)
    return {"seconds": seconds, "other_cores": others}


def other_seconds():
    """CPU seconds that all programs but this one have used since the start; None where unknown."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, soft = map(int, stat.read_text().split()[1:8])
    own = os.times()
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def row_of(model, shape, peak_bytes, compile_seconds):
    from specdiff_jax.models.dit import num_tokens

    memory = {"peak_gb": peak_bytes / 1e9, "compile_s": compile_seconds}
    tokens = num_tokens(model.shape, model.patch)
    return {"tokens": tokens, "batch": shape[0], "dtype": model.dtype} | memory


def peak_rss():
    """The most memory this process has held so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_name():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {os.cpu_count()} cores"


def table(rows):
    """The rows as text in columns, each with its format."""
    columns = [column.partition(":")[::2] for column in COLUMNS.split()]
    show = lambda row, name, form: "" if row.get(name) is None else format(row[name], form)
    cells = [[name for name, _ in columns]]
    cells += [[show(row, *column) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


ARMS = {
    "probe": probe,
    "check": check,
    "jax": jax_arm,
    "torch eager": torch_arm,
    "torch compile": lambda *args: torch_arm(*args, compiled=True),
}

if __name__ == "__main__":
    main()
