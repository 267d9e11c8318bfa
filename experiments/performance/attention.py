"""Which attention is fastest, and what it keeps: forward and gradient, by tokens.

    python -m experiments.performance.attention [--tokens 64 1024 8192 32768] [--heads 4]
        [--together 65536]

Queries, keys and values of base's width, 256 numbers in --heads heads, as many examples as make
--together tokens; float32 on a CPU, bfloat16 elsewhere. Writes the rows of this device to
results/attention.csv: seconds, the rate of the products that the formula counts (a backward pass as
twice the forward, whatever is recomputed) and the memory between input and output by XLA's account.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp

from experiments.lib.stopwatch import fastest
from experiments.lib.tables import RESULTS, write_of_device
from specdiff_jax.models.attention import ATTENTIONS
from specdiff_jax.models.matmul import resolve_dtype

WIDTH = 256
ROUNDS = 10
MOST = 16e9  # bytes: a form that keeps more is not run, and no map of scores that large compiled


def programs(attend, x):
    """{part: the compiled forward pass, and forward with gradient} on queries like x."""
    grad = jax.grad(lambda *qkv: jnp.sum(attend(*qkv).astype(jnp.float32) ** 2), (0, 1, 2))
    parts = {"forward": attend, "gradient": grad}
    return {name: jax.jit(part).lower(x, x, x).compile() for name, part in parts.items()}


def rows_of(name, tokens, heads, together):
    """A row for each part of one form of attention."""
    dtype = resolve_dtype("auto")
    shape = (max(1, together // tokens), tokens, heads, WIDTH // heads)
    keys = jax.random.split(jax.random.key(0), 3)
    if name == "plain" and 4 * shape[0] * heads * tokens**2 > MOST:
        return
    qkv = [jax.random.normal(key, shape, dtype) for key in keys]
    for part, program in programs(ATTENTIONS[name], qkv[0]).items():
        kept = program.memory_analysis().temp_size_in_bytes
        row = {"device": jax.devices()[0].device_kind, "attention": name, "part": part}
        row |= {
            "tokens": tokens,
            "heads": heads,
            "batch": shape[0],
            "dtype": dtype,
            "kept_gb": round(kept / 1e9, 3),
        }
        if kept < MOST:
            run = lambda program=program: jax.block_until_ready(program(*qkv))
            seconds = fastest(run, 1 + ROUNDS)
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
            for row in rows_of(name, tokens, heads, args.together):
                print(row, flush=True)
                rows.append(row)
        write_of_device(RESULTS / "performance" / "attention.csv", rows)


if __name__ == "__main__":
    main()
