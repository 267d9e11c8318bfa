"""Matrix products: the gradients are autodiff's, and little is kept for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax import compiler
from specdiff_jax.models.layers import gated
from specdiff_jax.models.products import ROWS, matmul, same

FUNCTIONS = {"same": (same, 1), "gelu": (jax.nn.gelu, 1), "gated": (gated, 2)}


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


# Two blocks of rows, one, and a number of rows that no block divides.
@pytest.mark.parametrize("rows", [2 * ROWS, ROWS, 2 * ROWS + 6])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("widths", [(16, 40), (40, 16)])
def test_the_gradients_are_those_of_the_plain_product(name, rows, widths):
    function, times = FUNCTIONS[name]
    x, w = drawn(2, rows // 2, times * widths[0]), drawn(*widths, seed=1)
    toward = drawn(2, rows // 2, widths[1], seed=2)
    ours = lambda x, w: jnp.sum(toward * matmul(x, w, function))
    plain = lambda x, w: jnp.sum(toward * (function(x) @ w))
    for found, expected in zip(*(jax.grad(f, (0, 1))(x, w) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def peak(layer, depth=4, rows=8 * ROWS, width=64):
    """Temporary bytes of a gradient through `depth` layers, and of one hidden array."""
    weights = [(drawn(width, 4 * width), drawn(4 * width, width))] * depth

    def loss(weights, x):
        for first, second in weights:
            x = x + layer(matmul(x, first), second)
        return jnp.sum(x**2)

    step = jax.jit(jax.grad(loss), compiler_options=compiler.options())
    compiled = step.lower(weights, drawn(rows, width)).compile()
    return compiled.memory_analysis().temp_size_in_bytes, 4 * rows * 4 * width


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts a CPU's buffers")
def test_what_leaves_an_activation_is_not_kept():
    ours, hidden = peak(lambda h, w: matmul(h, w, jax.nn.gelu))
    plain, _ = peak(lambda h, w: matmul(jax.nn.gelu(h), w))
    # A layer keeps what enters GELU, and no longer its slope and what leaves it; x is a quarter.
    assert ours < (4 + 4 * 2 * 0.25 + 2) * hidden
    assert plain > ours + 4 * hidden
