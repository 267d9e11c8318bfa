"""The perceptual loss is zero for equal sounds, deaf to sign, and known in closed form for gain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.audio.distances import spectral_loss
from specdiff_jax.data import prepare
from specdiff_jax.sampling import check_config
from specdiff_jax.training import train

WAVE = 0.3 * jax.random.normal(jax.random.key(0), (2, 1, 8192))


def test_spectral_loss_of_equal_waves_is_zero_whatever_the_sign():
    np.testing.assert_allclose(spectral_loss(WAVE, WAVE), 0.0, atol=1e-6)
    np.testing.assert_allclose(spectral_loss(-WAVE, WAVE), 0.0, atol=1e-5)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_gain_costs_its_distance_from_one_and_its_logarithm(gain):
    """Spectral convergence |g - 1| and mean log distance |log g|, at every resolution."""
    expected = abs(gain - 1) + abs(np.log(gain))
    np.testing.assert_allclose(spectral_loss(gain * WAVE, WAVE), expected, rtol=1e-2)


def test_its_gradient_is_finite_for_silence_and_leads_to_the_sound():
    silent = jnp.zeros_like(WAVE)
    slope = jax.jit(jax.grad(lambda x: spectral_loss(x, WAVE).sum()))
    assert bool(jnp.isfinite(slope(silent)).all())
    result, loss = 0.5 * WAVE, lambda x: float(spectral_loss(x, WAVE).sum())
    before = loss(result)
    for _ in range(20):
        step = slope(result)
        result = result - 0.02 * step / jnp.linalg.norm(step) * jnp.linalg.norm(WAVE)
    assert loss(result) < 0.8 * before


@pytest.mark.slow
def test_a_run_trains_by_it(nano):
    nano.representation.update(kind="complex", power=0.5, floor_db=None)
    nano.representation.update(n_mels=None, griffin_lim_iters=None)
    nano.model.patch = (32, 4)
    nano.diffusion.update(stft_loss_weight=0.1)
    nano.train.update(num_steps=2, eval_every=2, checkpoint_every=2)
    prepare.run(nano)
    train.run(nano)
    nano.representation.kind = "log_mel"
    nano.representation.update(n_mels=32, floor_db=-80.0, griffin_lim_iters=4, power=None)
    with pytest.raises(ValueError, match="stft_loss_weight=0.1 needs"):
        check_config.check(nano)
