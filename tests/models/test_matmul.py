"""Matmuls: their gradients are autodiff's, and little is saved for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.models.layers import swiglu
from specdiff_jax.models.matmul import BRANCH_ROWS, identity, matmul
from specdiff_jax.models.norms import layer_norm
from specdiff_jax.runtime import xla_options

# name: (function, width of its input over that of its output, examples in each of its args)
FUNCTIONS = {
    "identity": (identity, 1, ()),
    "gelu": (jax.nn.gelu, 1, ()),
    "swiglu": (swiglu, 2, ()),
    "norm of all": (layer_norm, 1, (1, 1)),
    "norm of each": (layer_norm, 1, (2, 2)),
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("tokens", [BRANCH_ROWS + 6, BRANCH_ROWS // 2])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("widths", [(16, 40), (40, 16)])
def test_matmul_gradient_equals_autodiff(name, tokens, widths):
    function, times, examples = FUNCTIONS[name]
    x, w = draw(2, tokens, times * widths[0]), draw(*widths, seed=1)
    args = tuple(1 + draw(count, 1, widths[0], seed=3 + count) for count in examples)
    cotangent = draw(2, tokens, widths[1], seed=2)
    ours = lambda x, w, args: jnp.sum(cotangent * matmul(x, w, function, args))
    plain = lambda x, w, args: jnp.sum(cotangent * (function(x, *args) @ w))
    actual, expected = (jax.jit(jax.grad(f, (0, 1, 2)))(x, w, args) for f in (ours, plain))
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * np.abs(other).max())


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, -1])
def test_matmul_gradient_that_is_not_finite_stays_so(broken, at):
    """The train step tests for one, and then leaves its state unchanged."""
    x, w = draw(1, BRANCH_ROWS + 6, 8), draw(8, 8, seed=1)
    cotangent = draw(1, BRANCH_ROWS + 6, 8, seed=2).at[0, at, at].set(broken)
    gradient = jax.grad(lambda w: jnp.sum(cotangent * matmul(x, w, jax.nn.gelu)))(w)
    assert not np.isfinite(gradient).all()


def measure_memory(layer, depth=4, rows=8 * BRANCH_ROWS, width=64):
    """Return temporary bytes of a gradient through `depth` layers, and bytes of a hidden array."""
    weights = [(draw(width, 4 * width), draw(4 * width, width))] * depth

    def loss(weights, x):
        for first, second in weights:
            x = x + layer(matmul(x, first), second)
        return jnp.sum(x**2)

    step = jax.jit(jax.grad(loss), compiler_options=xla_options.compiler_options())
    compiled = step.lower(weights, draw(1, rows, width)).compile()
    return compiled.memory_analysis().temp_size_in_bytes, 4 * rows * 4 * width


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts a CPU's buffers")
def test_matmul_does_not_save_the_output_of_an_activation():
    ours, hidden = measure_memory(lambda h, w: matmul(h, w, jax.nn.gelu))
    plain, _ = measure_memory(lambda h, w: matmul(jax.nn.gelu(h), w))
    # A layer saves the input of GELU, and neither its slope nor its output; twice x, which is a
    # quarter of that; and one layer's gradient is three more.
    assert ours < (4 + 4 * 2 * 0.25 + 3) * hidden
    assert plain > ours + 4 * hidden
