"""The mel filter bank and its non-negative inverse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

LINEAR_HZ = 200.0 / 3  # Slaney's scale: linear below 1 kHz, logarithmic above
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz):
    """Slaney's mel scale (Auditory Toolbox, 1998), as in librosa with htk=False."""
    hz = np.asarray(hz, np.float64)
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel):
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    break_mel = BREAK_HZ / LINEAR_HZ
    above = BREAK_HZ * np.exp(LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * LINEAR_HZ, above)


def center_frequencies(sample_rate, n_mels):
    """The frequency in Hz at the top of each filter.  # [M]"""
    return mel_to_hz(np.linspace(0, hz_to_mel(sample_rate / 2), n_mels + 2))[1:-1]


def triangles(sample_rate, n_fft, n_mels):
    """Filters of height one between neighbouring centers, and their widths.  # [M, F], [M] Hz"""
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    edges = mel_to_hz(np.linspace(0, hz_to_mel(sample_rate / 2), n_mels + 2))
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)), edges[2:] - edges[:-2]


@functools.lru_cache
def filterbank(sample_rate, n_fft, n_mels):
    """Triangular filters from 0 Hz to the Nyquist frequency, each summing to one.

    A band is thus the mean magnitude of its bins; equals librosa.filters.mel(norm=1).

    Returns:
      [M, F] float32, F = n_fft // 2 + 1.

    Raises:
      ValueError: a filter so narrow that no bin lies under it.
    """
    filters, _ = triangles(sample_rate, n_fft, n_mels)
    if not filters.sum(axis=1).all():
        raise ValueError(f"n_mels={n_mels} leaves empty filters at n_fft={n_fft}; use fewer bands")
    return (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.lru_cache
def _pseudo_inverse(sample_rate, n_fft, n_mels):
    return np.linalg.pinv(filterbank(sample_rate, n_fft, n_mels)).astype(np.float32)  # [F, M]


def magnitudes_to_mel(magnitude, sample_rate, n_fft, n_mels):
    """[B, F, T] -> [B, M, T]."""
    return jnp.einsum("mf,bft->bmt", filterbank(sample_rate, n_fft, n_mels), magnitude)


def mel_to_magnitudes(mel, sample_rate, n_fft, iterations=50):
    """[B, M, T] -> [B, F, T]: a non-negative least-squares inverse of `magnitudes_to_mel`.

    Starts at the clipped pseudo-inverse and descends by multiplicative updates
    (Lee & Seung 2001, eq. 4), which keep every magnitude positive.
    """
    filters = filterbank(sample_rate, n_fft, mel.shape[1])
    start = jnp.einsum("fm,bmt->bft", _pseudo_inverse(sample_rate, n_fft, mel.shape[1]), mel)
    start = jnp.maximum(start, 1e-3 * jnp.mean(mel, axis=1, keepdims=True) + 1e-8)
    upward = jnp.einsum("mf,bmt->bft", filters, mel)

    def update(magnitude, _):
        downward = jnp.einsum("mf,mg,bgt->bft", filters, filters, magnitude)
        return magnitude * upward / (downward + 1e-8), None

    return jax.lax.scan(update, start, length=iterations)[0]
