"""How far two waves are apart to the ear: their spectra at several resolutions."""

import jax.numpy as jnp

from specdiff_jax.audio.stft import stft

SIZES = (256, 1024, 4096)  # samples a window; a quarter of it between frames
FLOOR = 1e-2  # magnitude of a bin that nobody hears: a full-scale sine has 64 and more


def spectral_loss(found, real):
    """Multi-resolution STFT loss (Yamamoto et al. 2020, arXiv 1910.11480, eq. 3 to 6).

    Spectral convergence plus the mean difference of log-magnitudes, averaged over SIZES.

    Args:
      found, real: [B, A, N] waves.

    Returns:
      [B].
    """
    total = 0.0
    for size in SIZES:
        hop = size // 4
        length = found.shape[-1] // hop * hop
        a, b = (magnitudes(wave[..., :length], size, hop) for wave in (found, real))
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
