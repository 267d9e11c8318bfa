"""Distances of two waves: SNR, log-spectral distance, multi-resolution STFT loss."""

import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.stft import stft

FLOOR_DB = -80.0  # bins quieter than this below full scale count as equal
SIZES = (256, 1024, 4096)  # samples a window; a quarter of it between frames
FLOOR = 1e-2  # magnitude of a bin that nobody hears: a full-scale sine has 64 and more


def signal_to_noise_db(reference, estimate):
    """10 log10 of the reference's energy over the error's.  # [N], [N] -> dB"""
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    error = np.sum((reference - estimate) ** 2)
    return float(10 * np.log10(np.sum(reference**2) / np.maximum(error, 1e-20)))


def log_spectral_distance_db(reference, estimate, n_fft=1024, hop=256):
    """Root mean square over bins of the level difference, mean over frames (Gray & Markel 1976).

    Levels are in dB below a full-scale sinusoid, floored at FLOOR_DB.  # [N] or [A, N], as it -> dB
    """

    def levels(wave):
        magnitude = jnp.abs(stft(jnp.atleast_2d(wave), n_fft, hop)) / (n_fft / 4)
        return 20 * jnp.log10(jnp.maximum(magnitude, 10 ** (FLOOR_DB / 20)))  # [A, F, T]

    difference = levels(reference) - levels(estimate)
    return float(jnp.mean(jnp.sqrt(jnp.mean(difference**2, axis=1))))


def spectral_loss(estimate, real):
    """Multi-resolution STFT loss (Yamamoto et al. 2020, arXiv 1910.11480, eq. 3 to 6).

    Spectral convergence plus the mean difference of log-magnitudes, averaged over SIZES.

    Args:
      estimate, real: [B, A, N] waves.

    Returns:
      [B].
    """
    total = 0.0
    for size in SIZES:
        hop = size // 4
        length = estimate.shape[-1] // hop * hop
        a, b = (magnitudes(wave[..., :length], size, hop) for wave in (estimate, real))
        axes = (1, 2, 3)
        # Magnitudes are never under FLOOR, so nothing is divided by zero.
        off = jnp.sqrt((jnp.mean((a - b) ** 2, axes) + 1e-12) / jnp.mean(b**2, axes))
        total += off + jnp.mean(jnp.abs(jnp.log(a) - jnp.log(b)), axes)
    return total / len(SIZES)


def magnitudes(wave, size, hop):
    """[B, A, N] -> [B, A, F, T], never zero so that its gradient stays finite."""
    spec = stft(wave.reshape(-1, wave.shape[-1]), size, hop)
    power = spec.real**2 + spec.imag**2
    return jnp.sqrt(power + FLOOR**2).reshape(*wave.shape[:2], *spec.shape[1:])
