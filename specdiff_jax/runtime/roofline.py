"""What the device can do, measured: the ceiling that a step's speed is held against."""

import time

import jax

SIZES = {"cpu": 2048, "gpu": 8192}  # of the matrices: large enough to reach the ceiling
QUEUED = {"cpu": 1, "gpu": 20}  # products at a time, so that no gap between them counts
ROUNDS = 5


def measure_matmul_rate(dtype):
    """Floating-point operations a second of a square matrix product, the best of ROUNDS.

    Of random numbers: a GPU multiplies constants faster, for want of bits that change.
    """
    size, queued = SIZES.get(jax.default_backend(), 4096), QUEUED.get(jax.default_backend(), 1)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a, b: a @ b)
    product(matrix, matrix).block_until_ready()  # compiles
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready([product(matrix, matrix) for _ in range(queued)])
        best = min(best, time.perf_counter() - start)
    return 2 * queued * size**3 / best


def count_bytes(compiled):
    """Bytes that a compiled dispatch reads and writes in a step, as XLA counts.

    A loop's body counts once, whatever its length: a dispatch of K steps reads as one, and so does
    each attention block of a step.
    """
    costs = compiled.cost_analysis()
    return (costs[0] if isinstance(costs, list) else costs)["bytes accessed"]


def peak_bytes(compiled):
    """Memory that a compiled program takes while it runs, what it is given included."""
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes  # not in place of an input
    return int(memory.temp_size_in_bytes + memory.argument_size_in_bytes + kept)
