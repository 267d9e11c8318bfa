"""SSIM against its formula, window by window, and against scikit-image where it is installed."""

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics.ssim import ssim


def pairs(count, seed=0, shape=(24, 31)):
    """Return structured spectrograms and noisy versions of them.  # [B, F, T] twice"""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((count, *shape)).cumsum(axis=1).cumsum(axis=2)
    a /= np.abs(a).max(axis=(1, 2), keepdims=True)
    noise = rng.uniform(0.01, 1, (count, 1, 1)) * rng.standard_normal(a.shape)
    return a, a * rng.uniform(0.5, 1.5, (count, 1, 1)) + noise


def by_hand(a, b, data_range):
    """Return SSIM by weighted sums over each 11 x 11 window (Wang et al. 2004, eq. 13)."""
    across = np.arange(-5, 6)[:, None] ** 2 + np.arange(-5, 6)[None, :] ** 2
    weights = np.exp(-across / (2 * 1.5**2))
    weights /= weights.sum()
    c_1, c_2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for f in range(a.shape[0] - 10):
        for t in range(a.shape[1] - 10):
            x, y = a[f : f + 11, t : t + 11], b[f : f + 11, t : t + 11]
            m_x, m_y = np.sum(weights * x), np.sum(weights * y)
            var_x, var_y = np.sum(weights * (x - m_x) ** 2), np.sum(weights * (y - m_y) ** 2)
            cov = np.sum(weights * (x - m_x) * (y - m_y))
            top = (2 * m_x * m_y + c_1) * (2 * cov + c_2)
            values.append(top / ((m_x**2 + m_y**2 + c_1) * (var_x + var_y + c_2)))
    return np.mean(values)


def test_ssim_equals_the_formula():
    a, b = pairs(4)
    exact = [by_hand(*pair, 2.0) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b, 2.0), exact, atol=1e-12)
    assert np.ptp(exact) > 0.1


def test_ssim_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pairs(100, seed=1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = [
        metrics.structural_similarity(*pair, data_range=2.0, **settings)
        for pair in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b, 2.0), theirs, atol=1e-5)


def test_ssim_is_one_for_equals_symmetric_and_invariant_to_scale():
    a, b = pairs(6, seed=2)
    plain = ssim(a, b, 2.0)
    np.testing.assert_allclose(ssim(a, a, 2.0), 1.0, atol=1e-12)
    np.testing.assert_allclose(ssim(b, a, 2.0), plain, atol=1e-12)
    np.testing.assert_allclose(ssim(5 * a, 5 * b, 10.0), plain, atol=1e-12)
    np.testing.assert_allclose(ssim(a[:, ::-1, ::-1], b[:, ::-1, ::-1], 2.0), plain, atol=1e-12)
    assert (plain < 1).all() and (np.abs(ssim(a, b, 4.0) - plain) > 1e-4).all()


def test_ssim_of_constants_depends_on_their_means_alone():
    a, b = np.full((1, 11, 11), 0.5), np.full((1, 11, 11), 0.25)
    exact = (2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    np.testing.assert_allclose(ssim(a, b, 1.0), exact, rtol=1e-9)


def test_ssim_refuses_invalid_input():
    a = np.zeros((1, 16, 16))
    for x, y, data_range, line in (
        (a, a[:, :15], 1.0, "alike"),
        (a[0], a[0], 1.0, "B, F, T"),
        (a[:, :10], a[:, :10], 1.0, "10 bins x 16 frames"),
        (a, a, 0.0, "data_range is 0"),
        (a, a + np.nan, 1.0, "not finite"),
    ):
        with pytest.raises(ValueError, match=line):
            ssim(x, y, data_range)
