"""A small additive synthesiser whose every pitch is known: for tests that need known answers."""

import numpy as np


def harmonics(hertz, seconds, sample_rate, partials=6, amplitude=0.2):
    """A steady tone of `partials` harmonics falling as 1 / k, those above Nyquist left out.

    Args:
      hertz: the fundamental, a number or one for each sample (a glide).

    Returns:
      [N] float32, peak at most 2.45 * amplitude.
    """
    samples = int(round(seconds * sample_rate))
    hertz = np.broadcast_to(np.asarray(hertz, np.float64), samples)
    phase = 2 * np.pi * np.cumsum(hertz) / sample_rate
    wave = np.zeros(samples)
    for k in range(1, partials + 1):
        wave += np.where(k * hertz < sample_rate / 2, np.sin(k * phase) / k, 0.0)
    return (amplitude * wave).astype(np.float32)


def chirp(start, end, seconds, sample_rate):
    """A sinusoid gliding linearly from `start` to `end` Hz.  # [N]"""
    hertz = np.linspace(start, end, int(round(seconds * sample_rate)))
    return harmonics(hertz, seconds, sample_rate, partials=1)


def chords(roots, seconds, sample_rate):
    """Major triads on `roots` (Hz), `seconds` each, faded in and out over 20 ms.  # [N]"""
    triads = [
        sum(
            harmonics(root * ratio, seconds, sample_rate, amplitude=0.1)
            for ratio in (1, 5 / 4, 1.5)
        )
        for root in roots
    ]
    position = np.arange(len(triads[0])) / (0.02 * sample_rate)
    fade = np.clip(np.minimum(position, position[::-1]), 0, 1).astype(np.float32)
    return np.concatenate([triad * fade for triad in triads])
