"""Norms: their invariances, and Flax's as the oracle."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.models.layers import NormDense
from specdiff_jax.models.norms import NORMS, Norm

FLAX = {
    "layer": nn.LayerNorm(use_bias=False, use_scale=False),
    "rms": nn.RMSNorm(use_scale=False),
}


def tokens():
    return 3 + 2 * np.random.default_rng(0).standard_normal((2, 5, 64), np.float32)


@pytest.mark.parametrize("kind", NORMS)
def test_norm_equals_flax_with_a_scale_and_shift_of_each_example(kind):
    x, rng = tokens(), np.random.default_rng(1)
    scale, shift = rng.standard_normal((2, 2, 1, 64), np.float32)
    output = NORMS[kind](jnp.asarray(x), scale, shift)
    np.testing.assert_allclose(output, FLAX[kind].apply({}, x) * scale + shift, atol=1e-5)


def test_layer_norm_ignores_offset_and_size_and_rms_norm_size_alone():
    x, ones = tokens(), np.ones((1, 1, 64), np.float32)
    layer, rms = NORMS["layer"](x, ones, 0 * ones), NORMS["rms"](x, ones)
    np.testing.assert_allclose(layer, NORMS["layer"](7 * x - 5, ones, 0 * ones), atol=1e-4)
    np.testing.assert_allclose(rms, NORMS["rms"](7 * x, ones), atol=1e-4)
    assert np.abs(rms - NORMS["rms"](x - 5, ones)).max() > 0.1
    np.testing.assert_allclose(layer.var(axis=-1), 1.0, rtol=1e-3)
    np.testing.assert_allclose((rms**2).mean(axis=-1), 1.0, rtol=1e-3)


@pytest.mark.parametrize("kind", NORMS)
def test_norm_in_half_precision_is_scaled_before_it_is_rounded(kind):
    """A scale near one, in float32, is not lost in the eight bits of bfloat16."""
    x = jnp.asarray(tokens(), jnp.bfloat16)
    scale = np.full((1, 1, 64), 1.003, np.float32)
    output = NORMS[kind](x, scale, np.zeros((1, 1, 64), np.float32))
    exact = NORMS[kind](x.astype(jnp.float32), scale, 0 * scale)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(("kind", "flax"), [("layer", nn.LayerNorm()), ("rms", nn.RMSNorm())])
def test_norm_dense_equals_flax_norm_then_dense(kind, flax):
    """Same parameters, output and gradient."""
    x, rng = tokens(), np.random.default_rng(2)
    names = ("scale", "bias") if kind == "layer" else ("scale",)
    norm = {name: rng.standard_normal(64, np.float32) for name in names}
    kernel, bias = rng.standard_normal((64, 7), np.float32), rng.standard_normal(7, np.float32)
    params = {"norm": norm, "dense": {"kernel": kernel, "bias": bias}}

    def ours(params, x):
        normed = Norm(kind).apply({"params": params["norm"]}, x)
        return NormDense(7).apply({"params": params["dense"]}, normed)

    def plain(params, x):
        y = flax.apply({"params": params["norm"]}, x)
        return nn.Dense(7).apply({"params": params["dense"]}, y)

    (output, gradient), (expected, plain_gradient) = (
        (f(params, x), jax.grad(lambda p, x, f=f: jnp.sin(f(p, x)).sum(), (0, 1))(params, x))
        for f in (ours, plain)
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(output, expected)
    jax.tree.map(close, gradient, plain_gradient)
