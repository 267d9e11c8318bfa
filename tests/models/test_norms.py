"""Norms: what they promise of their result, and Flax's as the oracle."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.models.norms import NORMS

FLAX = {
    "layer": nn.LayerNorm(use_bias=False, use_scale=False),
    "rms": nn.RMSNorm(use_scale=False),
}


def tokens():
    return 3 + 2 * np.random.default_rng(0).standard_normal((2, 5, 64), np.float32)


@pytest.mark.parametrize("kind", NORMS)
def test_each_norm_is_flax_s_moved_by_example(kind):
    x, rng = tokens(), np.random.default_rng(1)
    scale, shift = rng.standard_normal((2, 2, 1, 64), np.float32)
    found = NORMS[kind](jnp.asarray(x), scale, shift)
    np.testing.assert_allclose(found, FLAX[kind].apply({}, x) * scale + shift, atol=1e-5)


def test_a_layer_norm_forgets_level_and_size_and_an_rms_norm_size_alone():
    x, ones = tokens(), np.ones((1, 1, 64), np.float32)
    layer, rms = NORMS["layer"](x, ones, 0 * ones), NORMS["rms"](x, ones)
    np.testing.assert_allclose(layer, NORMS["layer"](7 * x - 5, ones, 0 * ones), atol=1e-4)
    np.testing.assert_allclose(rms, NORMS["rms"](7 * x, ones), atol=1e-4)
    assert np.abs(rms - NORMS["rms"](x - 5, ones)).max() > 0.1
    np.testing.assert_allclose(layer.var(axis=-1), 1.0, rtol=1e-3)
    np.testing.assert_allclose((rms**2).mean(axis=-1), 1.0, rtol=1e-3)


@pytest.mark.parametrize("kind", NORMS)
def test_half_precision_is_moved_before_it_is_rounded(kind):
    """A scale near one, in float32, is not lost in the eight bits of bfloat16."""
    x = jnp.asarray(tokens(), jnp.bfloat16)
    scale = np.full((1, 1, 64), 1.003, np.float32)
    found = NORMS[kind](x, scale, np.zeros((1, 1, 64), np.float32))
    exact = NORMS[kind](x.astype(jnp.float32), scale, 0 * scale)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
