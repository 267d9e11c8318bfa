"""What XLA is told changes memory and no result; freed memory goes back to the system."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.models.matmul import BRANCH_ROWS, matmul
from specdiff_jax.runtime import xla_options

CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a CPU's options")


@CPU
def test_a_lean_program_gives_the_same_gradient_in_less_memory():
    drawn = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    x, weights = drawn(0, 1, BRANCH_ROWS, 64), [(drawn(1, 64, 256) / 8, drawn(2, 256, 64) / 16)] * 4

    def loss(weights):
        y = x
        for first, second in weights:
            y = y + matmul(jnp.tanh(matmul(jnp.tanh(y), first)), second)
        return jnp.sum(y**2)

    programs = [
        jax.jit(jax.grad(loss), compiler_options=options).lower(weights).compile()
        for options in (None, xla_options.compiler_options())
    ]
    usual, lean = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert lean < 0.8 * usual
    result = (jax.tree.leaves(program(weights)) for program in programs)
    for one, other in zip(*result, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


@CPU
def test_an_option_that_this_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setitem(xla_options.MEMORY_OPTIONS, "cpu", {"xla_cpu_of_another_year": "yes"})
    xla_options.supported_options.cache_clear()
    assert xla_options.compiler_options() is None
    monkeypatch.undo()
    xla_options.supported_options.cache_clear()
    assert xla_options.compiler_options() == xla_options.MEMORY_OPTIONS["cpu"]


def resident():
    return 4096 * int(pathlib.Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_goes_back_to_the_system():
    pieces = [np.ones(100_000, np.uint8) for _ in range(1000)]  # small: on the heap
    last, full = pieces[-1], resident()  # the last stays on top, so nothing goes back by itself
    del pieces
    xla_options.release_memory()
    assert resident() < full - 50_000_000 and last.all()
