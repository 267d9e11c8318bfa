"""Phases: found from magnitudes by Griffin-Lim, or integrated from instantaneous frequency."""

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.stft import istft, stft


def phase_factor(spec):
    """The phase factor exp(i angle) of a complex array; 1 where it is zero."""
    magnitude = jnp.abs(spec)
    return jnp.where(magnitude > 1e-12, spec / jnp.maximum(magnitude, 1e-12), 1.0)


def random_phase(shape):
    """Fixed pseudo-random phase factors, so that decoding is a function of its input alone."""
    key = jax.random.key(0)
    return jnp.exp(2j * jnp.pi * jax.random.uniform(key, (1, *shape[1:]))).astype(jnp.complex64)


def griffin_lim(magnitude, phase, n_fft, hop, iterations, momentum=0.99):
    """Fast Griffin-Lim (Perraudin, Balazs & Sondergaard 2013, algorithm 2).

    Args:
      magnitude: [B, F, T] non-negative STFT magnitudes.
      phase: [B, F, T] or [1, F, T] complex phase factors to start from.
      iterations: projections; 0 keeps `phase`.

    Returns:
      [B, (T - 1) * hop] wave whose STFT magnitudes are near `magnitude`.
    """
    length = (magnitude.shape[-1] - 1) * hop

    def project(carry, _):
        phase, previous = carry
        consistent = stft(istft(magnitude * phase, n_fft, hop, length), n_fft, hop)
        accelerated = consistent + momentum * (consistent - previous)
        return (phase_factor(accelerated), consistent), None

    start = magnitude * phase
    carry = (phase_factor(jnp.broadcast_to(phase, magnitude.shape).astype(start.dtype)), start)
    (phase, _), _ = jax.lax.scan(project, carry, length=iterations)
    return istft(magnitude * phase, n_fft, hop, length)


def expected_advance(bins, n_fft, hop):
    """Phase advance of a sinusoid at each bin's center over one hop, in radians.  # [1, F, 1]"""
    return (2 * np.pi * hop / n_fft * np.arange(bins) % (2 * np.pi)).astype(np.float32)[
        None, :, None
    ]


def wrap(angle):
    """Any angle -> [-pi, pi)."""
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def instantaneous_frequency(spec, n_fft, hop):
    """Deviation of each bin's phase advance from its center's (GANSynth, Engel et al. 2019).

    The first frame holds the phase itself, so that `integrate` gives it back.

    Args:
      spec: [B, F, T] complex.

    Returns:
      [B, F, T] in [-1, 1), in units of pi radians a hop.
    """
    angle = jnp.angle(spec)
    advance = angle[..., 1:] - angle[..., :-1] - expected_advance(spec.shape[1], n_fft, hop)
    return jnp.concatenate([wrap(angle[..., :1]), wrap(advance)], axis=-1) / jnp.pi


def integrate(frequency, n_fft, hop):
    """Inverse of `instantaneous_frequency`: [B, F, T] in units of pi -> phase factors."""
    advance = frequency * jnp.pi + expected_advance(frequency.shape[1], n_fft, hop)
    first = frequency[..., :1] * jnp.pi
    angle = jnp.cumsum(jnp.concatenate([first, advance[..., 1:]], axis=-1), axis=-1)
    return jnp.exp(1j * angle)
