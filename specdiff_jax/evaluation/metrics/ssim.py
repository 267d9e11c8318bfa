"""Structural similarity of spectrograms (Wang et al. 2004, eq. 13), as scikit-image computes it."""

import numpy as np
from scipy import ndimage

SIGMA = 1.5  # bins and frames
RADIUS = 5  # of the window, 3.5 sigma: 11 x 11
K_1, K_2 = 0.01, 0.03


def ssim(a, b, data_range):
    """Return the mean structural similarity of each pair, over all whole windows.

        (2 m_a m_b + C_1) (2 cov + C_2) / ((m_a^2 + m_b^2 + C_1) (var_a + var_b + C_2))

    with Gaussian-weighted moments and C_i = (K_i data_range)^2. It equals skimage.metrics.
    structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).

    Args:
      a: [B, F, T] real.
      b: [B, F, T], as a.
      data_range: largest minus smallest possible value, the same for all pairs of a table, not
        that of one pair.

    Returns:
      [B] float64, 1 for equal pairs.

    Raises:
      ValueError: on other or unequal shapes, below 11 bins or frames, data_range not positive,
        or numbers that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"pairs are [B, F, T] and alike, not {list(a.shape)} and {list(b.shape)}")
    if min(a.shape[1:]) <= 2 * RADIUS:
        raise ValueError(f"{a.shape[1]} bins x {a.shape[2]} frames: the window takes 11 of both")
    if not data_range > 0:
        raise ValueError(f"data_range is {data_range}: give the positive range of possible values")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a spectrogram holds numbers that are not finite: leave its clip out")
    c_1, c_2 = (K_1 * data_range) ** 2, (K_2 * data_range) ** 2
    m_a, m_b = window_means(a), window_means(b)
    var_a, var_b = window_means(a * a) - m_a**2, window_means(b * b) - m_b**2
    cov = window_means(a * b) - m_a * m_b
    similarity = (2 * m_a * m_b + c_1) * (2 * cov + c_2)
    similarity /= (m_a**2 + m_b**2 + c_1) * (var_a + var_b + c_2)
    return similarity.mean(axis=(1, 2))


def window_means(x):
    """Return Gaussian means of all whole windows.  # [B, F, T] -> [B, F - 10, T - 10]"""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        x = ndimage.correlate1d(x, weights, axis)
    return x[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
