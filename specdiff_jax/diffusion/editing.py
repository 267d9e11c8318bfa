"""What wraps `denoise` to edit and to go on at any length; samplers never know."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from specdiff_jax.diffusion.schedules import with_eps

SMALL = 1e-8


def inpaint(denoise, schedule, known, mask):
    """Inpainting: the model decides where `mask` is 1, the rest is known.

    Every step aims at the known x_0 there (the replacement of Lugmayr et al. 2022, arXiv
    2201.09865, eq. 8, made before the step instead of after it, so that any sampler does it).

    Args:
      known: [B, F, T, C]; mask: [F, T] of 0 and 1.
    """
    free = mask[None, :, :, None] > 0

    def inner(x_t, t):
        x_0, _ = denoise(x_t, t)
        return with_eps(jnp.where(free, x_0, known), x_t, t, schedule)

    return inner


def slerp(first, second, amount):
    """The point of the arc from `first` to `second`, both seen as one vector.  # any shape

    (Shoemake 1985.) The straight mean of two unlike spectra has only half their variance, which
    under the noise of one time looks like fainter music; the arc keeps it. Like spectra are mixed
    straight, because there the arc is a line; opposite ones have no arc of their own, take any.
    """
    cosine = np.vdot(first, second) / max(np.linalg.norm(first) * np.linalg.norm(second), SMALL)
    angle = np.arccos(np.clip(cosine, -0.9999, 1.0))
    part = lambda share: np.sinc(share * angle / np.pi) * share / np.sinc(angle / np.pi)
    return part(1 - amount) * first + part(amount) * second


def window_starts(length, frames, hop):
    """First frames of windows that cover 0..length, the last flush with the end."""
    if length <= frames:
        return [0]
    return [*range(0, length - frames, hop), length - frames]


def denoise_windows(denoise, schedule, frames, hop):
    """A denoiser of any length from one of `frames`: windows overlap and must agree.

    x_0 is the windows' mean where they overlap, weighted by a triangle (MultiDiffusion, Bar-Tal et
    al. 2023, arXiv 2302.08113, eq. 5). Windows run one after another, in the memory of one.
    """
    ramp = np.minimum(np.arange(1, frames + 1), np.arange(frames, 0, -1)).astype(np.float32)

    def inner(x_t, t):
        length = x_t.shape[2]
        starts = window_starts(length, frames, hop)
        windows = jnp.stack([x_t[:, :, s : s + frames] for s in starts])
        found = jax.lax.map(lambda window: denoise(window, t)[0], windows)  # [W, B, F, frames, C]
        total, weight = jnp.zeros_like(x_t), np.zeros(length, np.float32)
        for index, start in enumerate(starts):
            span = slice(start, start + frames)
            total = total.at[:, :, span].add(found[index] * ramp[None, None, :, None])
            weight[span] += ramp
        return with_eps(total / weight[None, None, :, None], x_t, t, schedule)

    return inner


def report_progress(denoise, tick):
    """Calls `tick()` on the host at every evaluation: progress from inside a compiled sampler.

    Where it returns False the network is left out, and what is sampled means nothing: so a sampler
    that runs can be given up at once.
    """
    go_on = lambda: np.bool_(tick() is not False)
    skipped = lambda x_t, t: (x_t, x_t)

    def inner(x_t, t):
        wanted = io_callback(go_on, jax.ShapeDtypeStruct((), np.bool_))
        return jax.lax.cond(wanted, denoise, skipped, x_t, t)

    return inner
