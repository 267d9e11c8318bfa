"""How near two waves are."""

import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.stft import stft

FLOOR_DB = -80.0  # bins quieter than this below full scale count as equal


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
