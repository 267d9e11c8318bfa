"""Wrappers of `denoise` for inpainting, clips of any length and progress; and slerp of spectra."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from specdiff_jax.diffusion.schedules import with_eps

SMALL = 1e-8


def inpaint(denoise, schedule, known, mask):
    """Return a denoiser whose x_0 is the model's where `mask` is 1 and `known` elsewhere.

    This is the replacement of Lugmayr et al. 2022 (arXiv 2201.09865, eq. 8), before the step
    instead of after it, so that it works with any sampler.

    Args:
      known: [B, F, T, C]; mask: [F, T] of 0 and 1.
    """
    free = mask[None, :, :, None] > 0

    def inner(x_t, t):
        x_0, _ = denoise(x_t, t)
        return with_eps(jnp.where(free, x_0, known), x_t, t, schedule)

    return inner


def slerp(first, second, amount):
    """Return the spherical interpolation of two arrays as vectors (Shoemake 1985).  # any shape

    The mean of two unrelated spectra has only half their variance, which at one noise level looks
    like fainter music; the arc keeps it. Nearly parallel arrays are interpolated linearly.
    """
    cosine = np.vdot(first, second) / max(np.linalg.norm(first) * np.linalg.norm(second), SMALL)
    angle = np.arccos(np.clip(cosine, -0.9999, 1.0))
    part = lambda share: np.sinc(share * angle / np.pi) * share / np.sinc(angle / np.pi)
    return part(1 - amount) * first + part(amount) * second


def window_starts(length, frames, hop):
    """Return the first frames of windows that cover 0..length; the last ends with the clip."""
    if length <= frames:
        return [0]
    return [*range(0, length - frames, hop), length - frames]


def denoise_windows(denoise, schedule, frames, hop):
    """Return a denoiser for any length from one for `frames`, by overlapping windows.

    Where windows overlap, x_0 is their mean with triangular weights (MultiDiffusion, Bar-Tal et al.
    2023, arXiv 2302.08113, eq. 5). Windows are computed one after another, in the memory of one.
    """
    ramp = np.minimum(np.arange(1, frames + 1), np.arange(frames, 0, -1)).astype(np.float32)

    def inner(x_t, t):
        length = x_t.shape[2]
        starts = window_starts(length, frames, hop)
        windows = jnp.stack([x_t[:, :, s : s + frames] for s in starts])
        denoised = jax.lax.map(lambda x: denoise(x, t)[0], windows)  # [W, B, F, frames, C]
        total, weight = jnp.zeros_like(x_t), np.zeros(length, np.float32)
        for index, start in enumerate(starts):
            span = slice(start, start + frames)
            total = total.at[:, :, span].add(denoised[index] * ramp[None, None, :, None])
            weight[span] += ramp
        return with_eps(total / weight[None, None, :, None], x_t, t, schedule)

    return inner


def report_progress(denoise, tick):
    """Return a denoiser that calls `tick()` on the host at every evaluation of the network.

    Once tick returns False the network is skipped and the samples are meaningless: this is how a
    running sampler is canceled.
    """
    run_network = lambda: np.bool_(tick() is not False)
    skip = lambda x_t, t: (x_t, x_t)

    def inner(x_t, t):
        running = io_callback(run_network, jax.ShapeDtypeStruct((), np.bool_))
        return jax.lax.cond(running, denoise, skip, x_t, t)

    return inner
