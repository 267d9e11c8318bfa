"""The short-time Fourier transform and its inverse, pure and jitted with whatever calls them.

Framing is librosa's `center=True, pad_mode="constant"`: frame t is centered on sample t * hop, the
signal is zero-padded by n_fft / 2 on both sides, so N samples give 1 + N // hop frames and
`istft(stft(wave)) == wave` to rounding on every sample, the first and the last included.
"""

import functools

import jax.numpy as jnp
import numpy as np


def num_frames(samples, hop):
    """Frames that `stft` makes of `samples` samples."""
    return 1 + samples // hop


def num_samples(frames, hop):
    """The shortest wave that fills `frames` frames: the crop length of a training example."""
    return (frames - 1) * hop


@functools.lru_cache
def hann(n_fft):
    """The periodic Hann window, float32.  # [n_fft]"""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def check_framing(n_fft, hop):
    """Raises ValueError unless `hop` divides `n_fft` at least twice (else Hann has holes)."""
    if n_fft % hop or n_fft // hop < 2 or n_fft % 2:
        raise ValueError(f"hop={hop} must divide an even n_fft={n_fft} two times or more")


def frame(wave, n_fft, hop):
    """[B, N] -> [B, T, n_fft]: overlapping frames cut by reshaping, cheaper than a gather."""
    check_framing(n_fft, hop)
    batch, samples = wave.shape
    frames, overlap = num_frames(samples, hop), n_fft // hop
    length = (frames - 1 + overlap) * hop
    padded = jnp.pad(wave, ((0, 0), (n_fft // 2, n_fft // 2)))[:, :length]
    blocks = padded.reshape(batch, frames - 1 + overlap, hop)
    shifted = [blocks[:, k : k + frames] for k in range(overlap)]
    return jnp.concatenate(shifted, axis=-1)  # [B, T, n_fft]


def overlap_add(frames, hop):
    """[B, T, n_fft] -> [B, (T - 1) * hop + n_fft]: shifted sums, much faster than a scatter."""
    batch, count, n_fft = frames.shape
    overlap = n_fft // hop
    blocks = frames.reshape(batch, count, overlap, hop)
    shifted = [
        jnp.pad(blocks[:, :, k], ((0, 0), (k, overlap - 1 - k), (0, 0))) for k in range(overlap)
    ]
    return sum(shifted).reshape(batch, -1)


def stft(wave, n_fft, hop):
    """Short-time Fourier transform with a periodic Hann window.

    Args:
      wave: [B, N] float, any N >= 1.
      n_fft: window and transform length in samples, a multiple of `hop`.
      hop: samples between frames.

    Returns:
      [B, F, T] complex64 with F = n_fft // 2 + 1 and T = 1 + N // hop; librosa's scale.
    """
    spectrum = jnp.fft.rfft(frame(wave, n_fft, hop) * hann(n_fft)[None, None])  # [B, T, F]
    return spectrum.transpose(0, 2, 1)


def istft(spec, n_fft, hop, length):
    """Least-squares inverse of `stft` (Griffin & Lim 1984, eq. 6).

    Args:
      spec: [B, F, T] complex with F = n_fft // 2 + 1.
      length: samples to return; every one must be covered, so length < T * hop.

    Returns:
      [B, length] float32.
    """
    if not 1 <= length < spec.shape[-1] * hop:
        raise ValueError(f"length={length} samples do not lie under {spec.shape[-1]} frames")
    frames = (
        jnp.fft.irfft(spec.transpose(0, 2, 1), n=n_fft) * hann(n_fft)[None, None]
    )  # [B, T, n_fft]
    envelope = overlap_add(jnp.tile(hann(n_fft) ** 2, (1, frames.shape[1], 1)), hop)
    start = n_fft // 2
    signal = overlap_add(frames, hop)[:, start : start + length]
    return signal / envelope[:, start : start + length]
