"""Time forward and gradient of each attention by number of tokens, and its memory.

    python -m experiments.performance.attention [--tokens 64 1024 8192 32768] [--heads 4]
        [--together 65536]

Queries, keys and values have the width of base, 256 in --heads heads, and --together tokens in all;
float32 on a CPU, bfloat16 elsewhere. Writes the rows of this device to
results/performance/attention.csv: time, the rate of the FLOPs that the formula counts (a backward
pass as twice the forward, without recomputation) and the temporary memory by XLA's account.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp

from experiments.lib.stopwatch import time_fastest
from experiments.lib.tables import RESULTS, write_device_rows
from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.matmul import resolve_dtype

WIDTH = 256
ROUNDS = 10
MAX_BYTES = 16e9  # a form that needs more is not run; no score matrix that large is compiled


def compile_parts(attend, x):
    """Return {part: the compiled forward pass, and forward with gradient} for queries like x."""
    grad = jax.grad(lambda *qkv: jnp.sum(attend(*qkv).astype(jnp.float32) ** 2), (0, 1, 2))
    parts = {"forward": attend, "gradient": grad}
    return {name: jax.jit(part).lower(x, x, x).compile() for name, part in parts.items()}


def measure(name, tokens, heads, together):
    """Yield a row for each part of one form of attention."""
    dtype = resolve_dtype("auto")
    shape = (max(1, together // tokens), tokens, heads, WIDTH // heads)
    keys = jax.random.split(jax.random.key(0), 3)
    if name == "plain" and 4 * shape[0] * heads * tokens**2 > MAX_BYTES:
        return
    qkv = [jax.random.normal(key, shape, dtype) for key in keys]
    for part, program in compile_parts(ATTENTIONS[name], qkv[0]).items():
        temporary = program.memory_analysis().temp_size_in_bytes
        row = {"device": jax.devices()[0].device_kind, "attention": name, "part": part}
        row |= {
            "tokens": tokens,
            "heads": heads,
            "batch": shape[0],
            "dtype": dtype,
            "temporary_gb": round(temporary / 1e9, 3),
        }
        if temporary < MAX_BYTES:
            run = lambda program=program: jax.block_until_ready(program(*qkv))
            seconds = time_fastest(run, 1 + ROUNDS)
            flop = 4 * shape[0] * tokens**2 * WIDTH * (1 if part == "forward" else 3)
            row |= {"ms": round(1e3 * seconds, 3), "gflop_per_s": round(flop / seconds / 1e9, 1)}
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 1024, 8192, 32768])
    parser.add_argument("--heads", type=int, nargs="+", default=[4])
    parser.add_argument("--together", type=int, default=65536)
    args = parser.parse_args()
    names = [name for name in ATTENTIONS if name != "auto"]
    if jax.default_backend() != "gpu":
        names.remove("cudnn")
    rows = []
    for name in names:
        for tokens, heads in itertools.product(args.tokens, args.heads):
            for row in measure(name, tokens, heads, args.together):
                print(row, flush=True)
                rows.append(row)
        write_device_rows(RESULTS / "performance" / "attention.csv", rows)


if __name__ == "__main__":
    main()
