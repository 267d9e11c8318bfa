"""Measure how the cost of a training step grows with tokens, width, depth and batch.

    python -m experiments.scaling.growth [--axes tokens width depth batch] [--most-tokens 32768]
        [--rounds 2] [--at-once 1]

Forward and backward pass of the network of configs/modern.py on noise, each axis alone from one
middle point; float32 on a CPU, bfloat16 elsewhere. Writes the rows of this device to
results/scaling/growth.csv, and figures/growth_cpu.png or growth_gpu.png: measured seconds beside
the seconds of the FLOPs of models/dit.py at the rate of the middle point. --at-once: programs of an
axis that are compiled in parallel; they are timed one by one afterwards.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from configs import modern
from experiments.lib.stopwatch import time_fastest
from experiments.lib.tables import RESULTS, write_device_rows
from specdiff_jax.config import build
from specdiff_jax.models.dit import count_flops

MIDDLE = {"tokens": 1024, "width": 256, "depth": 4, "batch": 4}
AXES = {
    "tokens": (512, 1024, 2048, 4096, 8192, 16384, 32768),
    "width": (128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16),
    "batch": (1, 2, 4, 8, 16),
}
PATCH = (64, 8)


def build_network(tokens, width, depth):
    """Return a DiT of so many tokens."""
    config = modern.get_config()
    heads = max(width // 64, 1)
    config.model.update(width=width, depth=depth, heads=heads, patch=PATCH, bottleneck=None)
    bands = 512 // PATCH[0]
    return build.model(config, (512, PATCH[1] * tokens // bands, 2))


def compile_gradient(point):
    """Return the compiled gradient of one point, its parameters and its FLOPs."""
    model = build_network(point["tokens"], point["width"], point["depth"])
    x, t = jnp.ones((point["batch"], *model.shape)), jnp.full(point["batch"], 0.5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[:1], t[:1], None)["params"]
    rng = np.random.default_rng(0)  # random weights: compiling model.init takes longer
    draw = lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape, np.float32))
    params = jax.tree.map(draw, shapes)
    loss = lambda params: jnp.mean(jnp.square(model.apply({"params": params}, x, t, None)[0] - 1))
    flops = 3 * point["batch"] * sum(count_flops(model))
    return jax.jit(jax.grad(loss)).lower(params).compile(), params, flops


def measure(point, step, params, flops, rounds):
    """Return a row: seconds, memory and FLOPs of a step."""
    seconds = time_fastest(lambda: jax.block_until_ready(step(params)), rounds)
    return point | {
        "gflop": round(flops / 1e9, 2),
        "seconds": round(seconds, 5),
        "gflop_per_s": round(flops / seconds / 1e9, 1),
        "temporary_gb": round(step.memory_analysis().temp_size_in_bytes / 1e9, 3),
    }


def draw_figure(rows):
    """Write the figure, a panel an axis."""
    names = [axis for axis in AXES if any(row["axis"] == axis for row in rows)]
    figure = Figure(figsize=(2.75 * len(names), 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, axis in zip(panels, names, strict=True):
        panel = [row for row in rows if row["axis"] == axis]
        middle = next((row for row in panel if row[axis] == MIDDLE[axis]), panel[0])
        x = [row[axis] for row in panel]
        formula = [row["gflop"] / middle["gflop_per_s"] for row in panel]
        axes.loglog(x, [row["seconds"] for row in panel], marker="o", label="measured")
        axes.loglog(x, formula, "--", color="#777", label="FLOPs at the rate of the middle point")
        axes.set_xlabel(axis)
        axes.set_xticks(x, [str(value) for value in x], rotation=45)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("seconds a step")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(RESULTS.parent / "figures" / f"growth_{jax.default_backend()}.png")


def list_points(axis, most_tokens):
    """Return all points of an axis."""
    if axis == "tokens":  # the longest fit at batch 1 only
        return [MIDDLE | {axis: n, "batch": 1} for n in AXES[axis] if n <= most_tokens]
    return [MIDDLE | {axis: value} for value in AXES[axis]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--most-tokens", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    args = parser.parse_args()
    device, rows = jax.devices()[0].device_kind, []
    with ThreadPoolExecutor(args.at_once) as pool:
        for axis in args.axes:
            chosen = list_points(axis, args.most_tokens)
            programs = list(pool.map(compile_gradient, chosen))
            for point, step in zip(chosen, programs, strict=True):
                row = {"device": device, "axis": axis, **measure(point, *step, rounds=args.rounds)}
                print(row, flush=True)
                rows.append(row)
            write_device_rows(RESULTS / "scaling" / "growth.csv", rows)
    draw_figure(rows)


if __name__ == "__main__":
    main()
