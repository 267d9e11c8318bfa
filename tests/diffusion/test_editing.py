"""Inpainting, slerp and windows of a denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specdiff_jax.diffusion import editing, samplers, time_grids
from specdiff_jax.models import positions
from tests.helpers.gaussian import MAKERS, MEAN, STD, exact_denoiser

SCHEDULE = MAKERS["cosine"]()


def draw(denoise, shape, name="ddpm", steps=200, items=16):
    keys, times = samplers.item_keys(0, range(items)), time_grids.log_snr(SCHEDULE, steps)
    x_T = samplers.item_noise(keys, 0, shape)
    return np.asarray(samplers.SAMPLERS[name](denoise, x_T, times, SCHEDULE, keys))


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m"])
def test_inpaint_keeps_the_known_and_the_distribution_of_the_rest(name):
    shape = (8, 40, 2)
    known = jax.random.normal(jax.random.key(5), (16, *shape)) * 3
    mask = np.zeros(shape[:2])
    mask[2:, 10:30] = 1
    denoise = editing.inpaint(exact_denoiser(SCHEDULE), SCHEDULE, known, mask)
    x_0 = draw(denoise, shape, name)
    np.testing.assert_allclose(x_0[:, mask == 0], np.asarray(known)[:, mask == 0], atol=1e-4)
    free = x_0[:, mask == 1]
    assert free.mean() == pytest.approx(MEAN, abs=0.02)
    assert free.std() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("amount", [0.0, 0.2, 0.5, 1.0])
def test_slerp_ends_at_its_points_keeps_their_length_and_is_symmetric(amount):
    first, second = np.random.default_rng(0).normal(size=(2, 1, 8, 40, 1))
    second *= np.linalg.norm(first) / np.linalg.norm(second)
    point = editing.slerp(first, second, amount)
    assert np.linalg.norm(point) == pytest.approx(np.linalg.norm(first))
    np.testing.assert_allclose(editing.slerp(second, first, 1 - amount), point, atol=1e-12)
    angle = lambda x: np.arccos(np.vdot(x, first) / np.linalg.norm(x) / np.linalg.norm(first))
    assert angle(point) == pytest.approx(amount * angle(second), abs=1e-6)
    np.testing.assert_allclose(editing.slerp(first, first, amount), first)
    if amount in (0.0, 1.0):
        np.testing.assert_allclose(point, [first, second][int(amount)], atol=1e-12)


def test_denoise_windows_of_an_elementwise_denoiser_equals_it():
    """A model that ignores neighbors gives equal outputs in all windows, whatever their number."""
    whole = exact_denoiser(SCHEDULE)
    x_t, t = jax.random.normal(jax.random.key(0), (2, 4, 37, 1)), jnp.array([0.3, 0.8])
    parts = editing.denoise_windows(whole, SCHEDULE, frames=16, hop=8)
    for expected, actual in zip(whole(x_t, t), parts(x_t, t), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_denoise_windows_blends_windows_that_differ_without_a_jump():
    """Each window outputs its own mean: 1/4 and 3/4; between them a linear ramp."""
    output_mean = lambda x_t, t: (jnp.full_like(x_t, x_t.mean()), x_t)
    x_t = jnp.concatenate([jnp.zeros((1, 1, 12, 1)), jnp.ones((1, 1, 12, 1))], axis=2)
    denoise = editing.denoise_windows(output_mean, SCHEDULE, frames=16, hop=8)
    x_0 = np.asarray(denoise(x_t, jnp.array([0.5]))[0][0, 0, :, 0])
    np.testing.assert_allclose(x_0[[0, -1]], [0.25, 0.75])
    steps = np.diff(x_0)
    assert (steps >= -1e-6).all() and steps.max() < 0.5 / 6


@pytest.mark.parametrize(("length", "frames", "hop"), [(16, 16, 8), (17, 16, 8), (100, 16, 8)])
def test_window_starts_cover_every_frame_and_end_with_the_clip(length, frames, hop):
    starts = editing.window_starts(length, frames, hop)
    count = np.zeros(length)
    for start in starts:
        count[start : start + frames] += 1
    assert (count > 0).all() and starts[-1] + frames == length
    assert (np.diff(starts) <= hop).all()


def test_resize_table_is_the_identity_on_its_own_grid_and_linear_between():
    table = jnp.arange(12.0)[None, :, None] * jnp.ones((1, 1, 3))
    np.testing.assert_array_equal(positions.resize_table(table, (1, 12), (1, 12)), table)
    twice = np.asarray(positions.resize_table(table, (1, 12), (1, 24)))[0, :, 0]
    np.testing.assert_allclose(np.diff(twice)[1:-1], 0.5, atol=1e-5)
