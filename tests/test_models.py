"""The network: the published count, convolutions that are convolutions, attention that agrees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from specdiff_jax import build
from specdiff_jax.models import attention, layers, positions
from specdiff_jax.models.dit import DiT, forward_flops, num_tokens

SMALL = {
    "shape": (16, 24, 2),
    "patch": (4, 8),
    "width": 32,
    "depth": 2,
    "heads": 4,
    "mlp_ratio": 2,
    "block": "pre_ln",
    "positions": "learned",
    "time_embedding": "dense",
    "attention": "plain",
    "remat": "none",
    "dtype": "float32",
}


def parameters(config):
    model = build.model(config, build.representation(config).shape)
    x_t = jnp.zeros((1, *model.shape))
    return jax.eval_shape(model.init, jax.random.key(0), x_t, jnp.zeros(1))["params"]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_base_has_the_published_number_of_parameters():
    params = parameters(base.get_config())
    assert count(params) == 5_388_802
    parts = {name: count(part) for name, part in params.items()}
    assert parts["patch_in"] == 33_024 and parts["positions"] == 2_097_152
    assert parts["time"] == 66_304 and parts["patch_out"] == 32_770
    assert [parts[f"block_{i}"] for i in range(4)] == [789_760] * 4


def test_flops_by_formula_are_the_slides():
    linear, attention = forward_flops(build.model(base.get_config(), (512, 1024, 2)))
    assert num_tokens((512, 1024, 2), (8, 8)) == 8192
    assert linear / 1e12 == pytest.approx(0.05, abs=0.005)
    assert attention / 1e12 == pytest.approx(0.28, abs=0.01)


def test_flops_by_formula_are_xla_s():
    model = DiT(**SMALL)
    x_t, t = jnp.zeros((1, *model.shape)), jnp.zeros(1)
    params = model.init(jax.random.key(0), x_t, t)
    compiled = jax.jit(model.apply).lower(params, x_t, t).compile()
    formula = sum(forward_flops(model))
    assert compiled.cost_analysis()["flops"] == pytest.approx(formula, rel=0.25)


def test_patch_in_is_a_strided_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 16, 24, 3))
    ours = layers.PatchIn((4, 8), 10)
    params = ours.init(jax.random.key(1), x)
    conv = nn.Conv(10, (4, 8), strides=(4, 8), padding="VALID")
    expected = conv.apply(params, x).reshape(2, -1, 10)
    np.testing.assert_allclose(ours.apply(params, x), expected, atol=1e-5)


def test_patch_out_is_a_strided_transposed_convolution():
    tokens = jax.random.normal(jax.random.key(0), (2, 4 * 3, 10))
    ours = layers.PatchOut((4, 8), (16, 24, 3))
    params = ours.init(jax.random.key(1), tokens)
    conv = nn.ConvTranspose(3, (4, 8), strides=(4, 8), padding="VALID", transpose_kernel=True)
    expected = conv.apply(params, tokens.reshape(2, 4, 3, 10))
    np.testing.assert_allclose(ours.apply(params, tokens), expected, atol=1e-5)


def test_products_and_their_gradients_are_the_plain_ones():
    """Both orders of widths, and through nn.Dense: the branch of the backward pass differs."""
    x, key = jax.random.normal(jax.random.key(0), (2, 5, 12)), jax.random.key(1)
    for width in (7, 20):
        ours, plain = layers.Dense(width), nn.Dense(width)
        params = plain.init(key, x)
        value = lambda layer: lambda p, x: jnp.sum(jnp.sin(layer.apply(p, x)))
        expected, found = (jax.grad(value(f), argnums=(0, 1))(params, x) for f in (plain, ours))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, found)
        np.testing.assert_allclose(ours.apply(params, x), plain.apply(params, x), atol=1e-6)


def test_blockwise_attention_equals_plain_with_its_gradient(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 16)
    q, k, v, out = jax.random.normal(jax.random.key(0), (4, 2, 48, 3, 8))
    value = lambda attend: lambda q, k, v: jnp.sum(attend(q, k, v) * out)
    plain, blockwise = (
        jax.value_and_grad(value(attend), argnums=(0, 1, 2))(q, k, v)
        for attend in (attention.plain, attention.blockwise)
    )
    np.testing.assert_allclose(plain[0], blockwise[0], rtol=1e-5)
    for expected, found in zip(plain[1], blockwise[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blockwise_attention_never_holds_the_whole_map():
    tokens = 4096
    q = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)
    loss = lambda q, k, v: attention.blockwise(q, k, v).sum()
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * tokens**2 / 2


@pytest.mark.parametrize("grid", [(1, 12), (3, 4)])
def test_rotary_scores_see_distances_alone(grid):
    """One query and one key at every place: equal steps apart, equal score; the length is kept."""
    angles = positions.axial_angles(grid, 8)
    one = lambda seed: jnp.broadcast_to(
        jax.random.normal(jax.random.key(seed), (8,)), (1, 12, 1, 8)
    )
    q, k = positions.rotate(one(0), angles)[0, :, 0], positions.rotate(one(1), angles)[0, :, 0]
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), jnp.linalg.norm(one(0)[0, 0, 0]), 1e-5)
    places = np.indices(grid).reshape(2, -1).T
    scores, seen = np.asarray(q @ k.T), {}
    for i in range(12):
        for j in range(12):
            step = tuple(places[i] - places[j])
            assert scores[i, j] == pytest.approx(seen.setdefault(step, scores[i, j]), abs=1e-5)
    assert np.std(list(seen.values())) > 0.1


def test_a_rotary_model_tells_places_apart_without_a_table():
    """Two equal patches see the others from different distances."""
    model = DiT(**(SMALL | {"positions": "rotary"}))
    x_t, t = jax.random.normal(jax.random.key(0), (1, 16, 24, 2)), jnp.array([0.5])
    x_t = x_t.at[:, :, 8:16].set(x_t[:, :, :8])
    params = model.init(jax.random.key(1), x_t, t)
    assert "positions" not in params["params"]
    output = model.apply(params, x_t, t)[0]
    assert float(jnp.abs(output[:, :, 8:16] - output[:, :, :8]).max()) > 1e-3


@pytest.mark.parametrize(
    "change", [{"remat": "block"}, {"remat": "dots"}, {"attention": "blockwise"}]
)
def test_ways_to_compute_change_no_result(change):
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    params = DiT(**SMALL).init(jax.random.key(1), x_t, t)

    def gradient(model):
        return jax.grad(lambda p: jnp.mean(model.apply(p, x_t, t)[0] ** 2))(params)

    expected, found = gradient(DiT(**SMALL)), gradient(DiT(**(SMALL | change)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, found)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters():
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    half = DiT(**(SMALL | {"dtype": "bfloat16"}))
    params = half.init(jax.random.key(1), x_t, t)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    full, found = DiT(**SMALL).apply(params, x_t, t)[0], half.apply(params, x_t, t)[0]
    assert found.dtype == jnp.float32
    assert float(jnp.abs(found - full).max() / jnp.abs(full).max()) < 0.05
    assert not jnp.array_equal(found, full)


def test_adaln_zero_blocks_are_the_identity_at_initialisation():
    model = DiT(**(SMALL | {"block": "adaln_zero", "time_embedding": "fourier"}))
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    params = model.init(jax.random.key(1), x_t, t)
    output, features = model.apply(params, x_t, t)
    tokens = layers.PatchIn((4, 8), 32).apply({"params": params["params"]["patch_in"]}, x_t)
    tokens += params["params"]["positions"]
    for feature in features:
        np.testing.assert_array_equal(feature, tokens)
    np.testing.assert_array_equal(output, 0)


@pytest.mark.parametrize("block", ["pre_ln", "adaln_zero"])
def test_the_output_learns_from_time_and_every_parameter_has_a_gradient(block):
    model = DiT(**(SMALL | {"block": block}))
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    params = model.init(jax.random.key(1), x_t, t)
    leaves, tree = jax.tree.flatten(params)  # moved away from the zeros of adaLN-zero
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, moved)
    grads = jax.grad(lambda p: jnp.mean((model.apply(p, x_t, t)[0] - x_t) ** 2))(params)
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not jnp.any(leaf != 0)
    ]
    assert not silent
    early, late = model.apply(params, x_t, t)[0], model.apply(params, x_t, t[::-1])[0]
    assert not jnp.allclose(early, late)


def moved(params, scale=0.1):
    """Parameters away from where they were made: zeros of adaLN-zero hide mistakes."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [p + scale * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


OPTIONS = [
    {"mlp": "swiglu"},
    {"norm": "rms"},
    {"qk_norm": True},
    {"bottleneck": 6},
    {"registers": 3},
    {"registers": 3, "positions": "rotary"},
    {"positions": "sincos"},
    {"long_skips": True, "depth": 5},
    {"scan": True, "block": "adaln_zero"},
    {"patch": (16, 4), "positions": "rotary"},
]


@pytest.mark.parametrize("change", OPTIONS)
def test_every_option_uses_all_its_parameters_and_its_input(change):
    model = DiT(**(SMALL | change))
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    params = moved(model.init(jax.random.key(1), x_t, t))
    value = lambda params, x_t: jnp.mean((model.apply(params, x_t, t)[0] - 1) ** 2)
    of_params, of_input = jax.grad(value, argnums=(0, 1))(params, x_t)
    unused = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(of_params)
        if not jnp.any(leaf != 0)
    ]
    assert not unused and bool(jnp.all(jnp.any(of_input != 0, axis=(0, 3))))
    compiled = jax.jit(model.apply).lower(params, x_t, t).compile()
    if not model.scan:  # XLA counts a scan's body once
        found = compiled.cost_analysis()["flops"] / len(x_t)
        assert found == pytest.approx(sum(forward_flops(model)), rel=0.35)


def test_a_scan_over_blocks_is_the_loop():
    x_t, t = jax.random.normal(jax.random.key(0), (2, 16, 24, 2)), jnp.array([0.2, 0.9])
    loop, scan = (DiT(**(SMALL | {"scan": scan})) for scan in (False, True))
    params = moved(loop.init(jax.random.key(1), x_t, t))["params"]
    blocks = [params.pop(f"block_{index}") for index in range(2)]
    stacked = {**params, "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}
    params |= {f"block_{index}": block for index, block in enumerate(blocks)}
    expected, by_loop = loop.apply({"params": params}, x_t, t)
    found, by_scan = scan.apply({"params": stacked}, x_t, t)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(by_scan, by_loop, atol=1e-5)


def test_normed_queries_and_keys_have_no_length():
    """Scaling what makes them changes nothing; without the norm it does."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 8))
    for qk_norm in (True, False):
        layer = layers.SelfAttention(2, attention.plain, qk_norm)
        params = layer.init(jax.random.key(1), x)
        louder = jax.tree.map(jnp.copy, params)
        kernel = louder["params"]["qkv"]["kernel"]
        louder["params"]["qkv"]["kernel"] = kernel.at[:, :16].multiply(7.0)  # queries and keys
        same = np.allclose(layer.apply(params, x), layer.apply(louder, x), atol=1e-4)
        assert same == qk_norm


def test_a_swiglu_is_as_large_as_the_mlp_and_silent_where_its_gate_is():
    x = jax.random.normal(jax.random.key(0), (1, 5, 96))
    params = layers.SwiGlu(4).init(jax.random.key(1), x)
    plain = layers.Mlp(4).init(jax.random.key(1), x)
    assert count(params) == pytest.approx(count(plain), rel=0.02)
    closed = jax.tree.map(jnp.copy, params)
    width = layers.swiglu_width(4, 96)
    first = closed["params"]["Dense_0"]
    first["kernel"] = first["kernel"].at[:, :width].set(0.0)
    np.testing.assert_allclose(layers.SwiGlu(4).apply(closed, x), 0.0, atol=1e-6)


def test_sincos_places_are_all_different_and_alike_where_near():
    table = positions.sincos((3, 8), 16)
    likeness = table @ table.T
    others = likeness - 100 * np.eye(24)
    assert table.shape == (24, 16) and (others.max(axis=1) < 0.99 * np.diag(likeness)).all()
    by_column = likeness[0, :8]
    assert by_column[0] > by_column[1] > by_column[2]


@pytest.mark.parametrize("name", ["sincos", "rotary"])
def test_a_model_without_a_table_takes_any_length(name):
    short = DiT(**(SMALL | {"positions": name}))
    long = DiT(**(SMALL | {"positions": name, "shape": (16, 48, 2)}))
    x_t, t = jax.random.normal(jax.random.key(0), (1, 16, 48, 2)), jnp.array([0.4])
    params = moved(short.init(jax.random.key(1), x_t[:, :, :24], t))
    assert long.apply(params, x_t, t)[0].shape == (1, 16, 48, 2)
    alone = short.apply(params, x_t[:, :, :24], t)[0]
    assert not jnp.allclose(long.apply(params, x_t, t)[0][:, :, :24], alone)  # it hears the rest


def test_a_learned_table_is_stretched_and_it_is_said_aloud():
    short, long = (DiT(**(SMALL | {"shape": (16, frames, 2)})) for frames in (24, 48))
    x_t, t = jnp.zeros((1, 16, 24, 2)), jnp.zeros(1)
    params, said = short.init(jax.random.key(1), x_t, t)["params"], []
    found = positions.resized_to(params, long, short, said.append)
    assert found["positions"].shape == (1, 4 * 6, 32) and "(4, 3) patches" in said[0]
    assert positions.resized_to(params, short, short, said.append) is params and len(said) == 1
