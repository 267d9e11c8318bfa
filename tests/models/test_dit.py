"""The network: the published count, convolutions equal to Flax's, attention in equal forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from specdiff_jax.config import build
from specdiff_jax.models import attention, layers, matmul, positions
from specdiff_jax.models.dit import DiT, count_flops, count_tokens

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


X_T = np.random.default_rng(0).normal(size=(2, 16, 24, 2)).astype(np.float32)
T = np.float32([0.2, 0.9])


def draw_params(model, *inputs):
    """Return parameters of `model`, all away from zero, drawn by numpy so that nothing compiles.

    The initial zeros of adaLN-zero would hide mistakes.
    """
    rng, shapes = np.random.default_rng(1), jax.eval_shape(model.init, jax.random.key(0), *inputs)
    draw = lambda path, leaf: (
        np.float32(path[-1].key == "scale") + 0.2 * rng.normal(size=leaf.shape).astype(leaf.dtype)
    )
    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(model, params, *inputs):
    """Return the model's output, from one program instead of one for each operation."""
    return jax.jit(model.apply)(params, *inputs)


def parameters(config):
    model = build.model(config, build.representation(config).shape)
    x_t = jnp.zeros((1, *model.shape))
    return jax.eval_shape(model.init, jax.random.key(0), x_t, jnp.zeros(1))["params"]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_base_has_the_published_parameter_count():
    params = parameters(base.get_config())
    assert count(params) == 5_388_802
    parts = {name: count(part) for name, part in params.items()}
    assert parts["patch_in"] == 33_024 and parts["positions"] == 2_097_152
    assert parts["time"] == 66_304 and parts["patch_out"] == 32_770
    assert [parts[f"block_{i}"] for i in range(4)] == [789_760] * 4


def test_count_flops_equals_the_published_figures():
    linear, attention = count_flops(build.model(base.get_config(), (512, 1024, 2)))
    assert count_tokens((512, 1024, 2), (8, 8)) == 8192
    assert linear / 1e12 == pytest.approx(0.05, abs=0.005)
    assert attention / 1e12 == pytest.approx(0.28, abs=0.01)


def test_count_flops_equals_xla_cost_analysis():
    model = DiT(**SMALL)
    params = draw_params(model, X_T[:1], T[:1])
    compiled = jax.jit(model.apply).lower(params, X_T[:1], T[:1]).compile()
    formula = sum(count_flops(model))
    assert compiled.cost_analysis()["flops"] == pytest.approx(formula, rel=0.25)


def test_patch_embed_is_a_strided_convolution():
    x = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    ours = layers.PatchEmbed((4, 8), 10)
    params = draw_params(ours, x)
    conv = nn.Conv(10, (4, 8), strides=(4, 8), padding="VALID")
    expected = apply(conv, params, x).reshape(2, -1, 10)
    np.testing.assert_allclose(apply(ours, params, x), expected, atol=1e-5)


def test_patch_unembed_is_a_strided_transposed_convolution():
    tokens = np.random.default_rng(0).normal(size=(2, 4 * 3, 10)).astype(np.float32)
    ours = layers.PatchUnembed((4, 8), (16, 24, 3))
    params = draw_params(ours, tokens)
    conv = nn.ConvTranspose(3, (4, 8), strides=(4, 8), padding="VALID", transpose_kernel=True)
    expected = apply(conv, params, tokens.reshape(2, 4, 3, 10))
    np.testing.assert_allclose(apply(ours, params, tokens), expected, atol=1e-5)


def test_dense_and_its_gradient_equal_flax():
    """Both orders of widths, and through nn.Dense: the branch of the backward pass differs."""
    x = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    value = lambda layer: lambda p, x: jnp.sum(jnp.sin(layer.apply(p, x)))
    gradient = lambda layer: jax.jit(jax.grad(value(layer), argnums=(0, 1)))
    for width in (7, 20):
        ours, plain = layers.Dense(width), nn.Dense(width)
        params = draw_params(plain, x)
        expected, actual = (gradient(f)(params, x) for f in (plain, ours))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, actual)
        np.testing.assert_allclose(apply(ours, params, x), apply(plain, params, x), atol=1e-6)


def test_blockwise_attention_equals_plain_with_its_gradient(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 16)
    q, k, v, out = np.random.default_rng(0).normal(size=(4, 2, 48, 3, 8)).astype(np.float32)
    value = lambda attend: lambda q, k, v: jnp.sum(attend(q, k, v) * out)
    plain, blockwise = (
        jax.jit(jax.value_and_grad(value(attend), argnums=(0, 1, 2)))(q, k, v)
        for attend in (attention.plain, attention.blockwise)
    )
    np.testing.assert_allclose(plain[0], blockwise[0], rtol=1e-5)
    for expected, actual in zip(plain[1], blockwise[1], strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_blockwise_attention_allocates_no_full_map():
    tokens = 4096
    q = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)
    loss = lambda q, k, v: attention.blockwise(q, k, v).sum()
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * tokens**2 / 2


@pytest.mark.parametrize("grid", [(1, 12), (3, 4)])
def test_rotary_scores_depend_on_distances_alone(grid):
    """One query and one key at every position: equal distances, equal scores, equal lengths."""
    angles = positions.axial_angles(grid, 8)
    one = lambda seed: jnp.broadcast_to(
        jax.random.normal(jax.random.key(seed), (8,)), (1, 12, 1, 8)
    )
    q, k = positions.rotate(one(0), angles)[0, :, 0], positions.rotate(one(1), angles)[0, :, 0]
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), jnp.linalg.norm(one(0)[0, 0, 0]), 1e-5)
    coordinates = np.indices(grid).reshape(2, -1).T
    scores, seen = np.asarray(q @ k.T), {}
    for i in range(12):
        for j in range(12):
            step = tuple(coordinates[i] - coordinates[j])
            assert scores[i, j] == pytest.approx(seen.setdefault(step, scores[i, j]), abs=1e-5)
    assert np.std(list(seen.values())) > 0.1


def test_rotary_model_separates_positions_without_a_table():
    """Two equal patches are at different distances from the others."""
    model = DiT(**(SMALL | {"positions": "rotary"}))
    x_t, t = X_T[:1].copy(), T[:1]
    x_t[:, :, 8:16] = x_t[:, :, :8]
    params = draw_params(model, x_t, t)
    assert "positions" not in params["params"]
    output = apply(model, params, x_t, t)[0]
    assert float(np.abs(output[:, :, 8:16] - output[:, :, :8]).max()) > 1e-3


@pytest.mark.slow
def test_remat_that_saves_less_takes_less_memory(monkeypatch):
    """In a scan over blocks: without one XLA's CPU backend merges what is computed twice.

    Our matmuls compute norms and activations again by themselves, which leaves "dots" little to
    save. So it is compared with what autodiff saves for plain matmuls.
    """
    deep = SMALL | {"shape": (64, 64, 2), "depth": 8, "scan": True, "attention": "blockwise"}
    x_t = np.zeros((2, 64, 64, 2), np.float32)
    params = jax.eval_shape(DiT(**deep).init, jax.random.key(0), x_t, T)

    def memory(remat):
        model = DiT(**(deep | {"remat": remat}))
        gradient = jax.grad(lambda p: jnp.mean(model.apply(p, x_t, T)[0] ** 2))
        return jax.jit(gradient).lower(params).compile().memory_analysis().temp_size_in_bytes

    names = ("none", "dots", "attention", "block")
    none, dots, attention, block = (memory(remat) for remat in names)
    plain = lambda x, w, function=matmul.identity, args=(): function(x, *args) @ w
    for module in (layers, matmul):
        monkeypatch.setattr(module, "matmul", plain)
    autodiff = memory("none")
    assert block < 0.7 * dots < 0.5 * autodiff
    assert block < attention < 0.8 * dots
    assert dots < none < autodiff


@pytest.mark.parametrize(
    "change",
    [{"remat": "block"}, {"remat": "attention"}, {"remat": "dots"}, {"attention": "blockwise"}],
)
def test_remat_and_attention_change_no_gradient(change):
    params = draw_params(DiT(**SMALL), X_T, T)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: jnp.mean(model.apply(p, X_T, T)[0] ** 2)))(params)

    expected, actual = gradient(DiT(**SMALL)), gradient(DiT(**(SMALL | change)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, actual)


def test_bfloat16_output_is_near_float32_with_float32_parameters():
    half = DiT(**(SMALL | {"dtype": "bfloat16"}))
    shapes = jax.eval_shape(half.init, jax.random.key(0), X_T, T)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params = draw_params(half, X_T, T)
    full, output = (apply(model, params, X_T, T)[0] for model in (DiT(**SMALL), half))
    assert output.dtype == jnp.float32
    assert float(jnp.abs(output - full).max() / jnp.abs(full).max()) < 0.05
    assert not jnp.array_equal(output, full)


def test_adaln_zero_blocks_are_the_identity_at_initialization():
    model = DiT(**(SMALL | {"block": "adaln_zero", "time_embedding": "fourier"}))
    params = jax.jit(model.init)(jax.random.key(1), X_T, T)
    output, features = apply(model, params, X_T, T)
    tokens = apply(layers.PatchEmbed((4, 8), 32), {"params": params["params"]["patch_in"]}, X_T)
    tokens += params["params"]["positions"]
    for feature in features:
        np.testing.assert_array_equal(feature, tokens)
    np.testing.assert_array_equal(output, 0)


@pytest.mark.parametrize("block", ["pre_ln", "adaln_zero"])
def test_output_depends_on_time_and_on_every_parameter(block):
    model = DiT(**(SMALL | {"block": block}))
    params = draw_params(model, X_T, T)
    loss = lambda p: jnp.mean((model.apply(p, X_T, T)[0] - X_T) ** 2)
    assert not zero_gradients(jax.jit(jax.grad(loss))(params))
    early, late = apply(model, params, X_T, T)[0], apply(model, params, X_T, T[::-1])[0]
    assert not np.allclose(early, late)


def zero_gradients(gradient):
    """Return the names of the parameters whose gradient is zero."""
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    return [jax.tree_util.keystr(path) for path, leaf in leaves if not np.any(leaf)]


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
def test_option_uses_all_its_parameters_and_its_input(change):
    model = DiT(**(SMALL | change))
    params = draw_params(model, X_T, T)
    value = lambda params, x_t: jnp.mean((model.apply(params, x_t, T)[0] - 1) ** 2)
    of_params, of_input = jax.jit(jax.grad(value, argnums=(0, 1)))(params, X_T)
    assert not zero_gradients(of_params) and np.all(np.any(of_input, axis=(0, 3)))
    if not model.scan:  # XLA counts a scan's body once
        compiled = jax.jit(model.apply).lower(params, X_T, T).compile()
        flops = compiled.cost_analysis()["flops"] / len(X_T)
        assert flops == pytest.approx(sum(count_flops(model)), rel=0.35)


def test_scan_over_blocks_equals_the_loop():
    loop, scan = (DiT(**(SMALL | {"scan": scan})) for scan in (False, True))
    params = draw_params(loop, X_T, T)["params"]
    blocks = [params.pop(f"block_{index}") for index in range(2)]
    stacked = {**params, "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}
    params |= {f"block_{index}": block for index, block in enumerate(blocks)}
    expected, by_loop = apply(loop, {"params": params}, X_T, T)
    output, by_scan = apply(scan, {"params": stacked}, X_T, T)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_allclose(by_scan, by_loop, atol=1e-5)


def test_qk_norm_ignores_the_length_of_queries_and_keys():
    """Scaling their weights changes no output with the norm, and does without it."""
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    for qk_norm in (True, False):
        layer = layers.SelfAttention(2, attention.plain, qk_norm)
        params = draw_params(layer, x)
        scaled = jax.tree.map(np.copy, params)
        scaled["params"]["qkv"]["kernel"][:, :16] *= 7.0  # queries and keys
        scaled["params"]["qkv"]["bias"][:16] *= 7.0
        same = np.allclose(apply(layer, params, x), apply(layer, scaled, x), atol=1e-4)
        assert same == qk_norm


def test_swiglu_has_as_many_parameters_as_the_mlp_and_is_zero_where_its_gate_is():
    x = np.random.default_rng(0).normal(size=(1, 5, 96)).astype(np.float32)
    closed, plain = draw_params(layers.SwiGlu(4), x), draw_params(layers.Mlp(4), x)
    assert count(closed) == pytest.approx(count(plain), rel=0.02)
    width = layers.swiglu_width(4, 96)
    first = closed["params"]["Dense_0"]
    first["kernel"][:, :width] = 0.0
    first["bias"][:width] = 0.0
    closed["params"]["Dense_1"]["bias"][:] = 0.0
    np.testing.assert_allclose(apply(layers.SwiGlu(4), closed, x), 0.0, atol=1e-6)


def test_sincos_positions_differ_and_are_similar_where_near():
    table = positions.sincos((3, 8), 16)
    similarity = table @ table.T
    others = similarity - 100 * np.eye(24)
    assert table.shape == (24, 16) and (others.max(axis=1) < 0.99 * np.diag(similarity)).all()
    first_row = similarity[0, :8]
    assert first_row[0] > first_row[1] > first_row[2]


@pytest.mark.parametrize("name", ["sincos", "rotary"])
def test_model_without_a_table_takes_any_length(name):
    short = DiT(**(SMALL | {"positions": name}))
    long = DiT(**(SMALL | {"positions": name, "shape": (16, 48, 2)}))
    x_t = np.concatenate([X_T[:1], X_T[1:]], axis=2)
    params = draw_params(short, X_T[:1], T[:1])
    whole, alone = apply(long, params, x_t, T[:1])[0], apply(short, params, X_T[:1], T[:1])[0]
    assert whole.shape == (1, 16, 48, 2)
    assert not np.allclose(whole[:, :, :24], alone)  # it depends on the rest


def test_resize_positions_interpolates_the_table_and_logs_it():
    short, long = (DiT(**(SMALL | {"shape": (16, frames, 2)})) for frames in (24, 48))
    params, lines = draw_params(short, X_T[:1], T[:1])["params"], []
    resized = positions.resize_positions(params, long, short, lines.append)
    assert resized["positions"].shape == (1, 4 * 6, 32) and "(4, 3) patches" in lines[0]
    unchanged = positions.resize_positions(params, short, short, lines.append)
    assert unchanged is params and len(lines) == 1
