"""Statistics of a log-mel spectrogram: an embedder without weights, available everywhere.

It measures timbre, loudness and their rate of change, and neither harmony nor form.
"""

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import mel, stft
from specdiff_jax.evaluation.embedders.embedder import Embedder

SAMPLE_RATE, N_FFT, HOP, BANDS, FRAMES = 22050, 1024, 256, 32, 256
FLOOR = 1e-3  # the noise of 16 bits lies below it; a full-scale sine reaches 256
BATCH = 8


def load_logmel(place):
    """Return the embedder; `place` is empty."""
    window = stft.num_samples(FRAMES, HOP)
    return Embedder("logmel", None, 3 * BANDS, SAMPLE_RATE, window, BATCH, logmel_statistics)


@jax.jit
def logmel_statistics(waves):
    """Return of each band's level the mean, deviation, and root mean square of its steps.

    Args:
      waves: [B, N] at SAMPLE_RATE.

    Returns:
      [B, 3 * BANDS], in powers of ten.
    """
    magnitudes = jnp.abs(stft.stft(waves, N_FFT, HOP))
    bands = mel.magnitudes_to_mel(magnitudes, SAMPLE_RATE, N_FFT, BANDS)
    level = jnp.log10(bands + np.float32(FLOOR))  # [B, M, T]
    change = jnp.sqrt(jnp.square(jnp.diff(level, axis=2)).mean(axis=2))
    return jnp.concatenate([level.mean(axis=2), level.std(axis=2), change], axis=1)
