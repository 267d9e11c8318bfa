"""The PyTorch twin of the benchmark is the same function, with the same gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.models.dit import DiT

torch = pytest.importorskip("torch")
from experiments.performance import torch_dit  # noqa: E402

SMALL = {"shape": (16, 12, 2), "patch": (8, 4), "width": 24, "depth": 2, "heads": 3, "mlp_ratio": 4}
KINDS = [("pre_ln", "dense", "learned"), ("adaln_zero", "fourier", "rotary")]
NEWER = {"mlp": "swiglu", "qk_norm": True, "bottleneck": 10}


@pytest.mark.parametrize(("block", "time_embedding", "positions"), KINDS)
def test_twin_has_same_output_and_gradient(block, time_embedding, positions):
    options = {"block": block, "time_embedding": time_embedding, "positions": positions}
    options |= NEWER if block == "adaln_zero" else {}
    model = DiT(**SMALL, **options, attention="plain", remat="none", dtype="float32")
    rng = np.random.default_rng(0)
    x_0, x_t = rng.standard_normal((2, 3, 16, 12, 2), np.float32)
    t = np.float32([0.1, 0.5, 0.9])
    params = model.init(jax.random.key(0), x_t, t)["params"]
    noisy = lambda p: np.asarray(p) + 0.1 * rng.standard_normal(p.shape, np.float32)
    params = jax.tree.map(noisy, params)
    twin = torch_dit.DiT(model)
    torch_dit.copy_from_flax(twin, params)

    @jax.value_and_grad
    def ours(params):
        return jnp.mean((model.apply({"params": params}, x_t, t)[0] - x_0) ** 2)

    loss, gradient = ours(params)
    to_torch = lambda x: torch.from_numpy(x).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.mse_loss(twin(to_torch(x_t), torch.from_numpy(t)), to_torch(x_0))
    theirs.backward()
    assert theirs.item() == pytest.approx(float(loss), rel=1e-5)

    step = torch_dit.DiT(model)  # holds the Flax gradient, laid out as the twin's
    torch_dit.copy_from_flax(step, jax.tree.map(np.asarray, gradient))
    for expected, parameter in zip(step.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, expected.detach(), rtol=2e-3, atol=2e-5)


def test_tables_are_the_schedule():
    from specdiff_jax.diffusion.schedules import ddpm_linear

    alpha, sigma = torch_dit.ddpm_linear(1000, 1e-4, 0.02, "cpu")
    schedule, t = ddpm_linear(), jnp.arange(1, 1001) / 1000
    np.testing.assert_allclose(alpha, schedule.alpha(t), rtol=1e-3)
    np.testing.assert_allclose(sigma, schedule.sigma(t), rtol=1e-3)
