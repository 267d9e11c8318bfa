"""Guidance: mix what `denoise` returns for several conditions, and wrap it for the samplers.

A condition is any pytree that `denoise(x_t, t, condition)` takes. Mixtures are of x_0 with weights
whose sum is one, which is the same mixture of eps, of v and of scores.
"""

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.schedules import expand, with_eps

ALWAYS = (0.0, 1.0)


def cfg_weights(strengths, guidance_scale):
    """Return the weights of classifier-free guidance for none, c_1 ... c_n, and those at scale one.

    With w the guidance scale and s_k the strength of c_k,

        x_0 = x_0(none) + w sum_k s_k (x_0(c_k) - x_0(none)),

    so that the weights are 1 - w sum_k s_k and w s_k (Liu et al. 2022, arXiv 2206.01714, eq. 11).
    One condition of strength 1 has (1 - w, w): Ho & Salimans 2022, arXiv 2207.12598, eq. 6, whose
    w is ours less one. In place of none a negative prompt may stand.

    Args:
      strengths: [n] floats.

    Returns:
      weights [1 + n], and the plain weights [1 + n], which are the weights without guidance.
    """
    total = sum(strengths)
    weights = [1 - guidance_scale * total, *(guidance_scale * s for s in strengths)]
    return weights, [1 - total, *strengths]


def guide(denoise, schedule, conditions, weights, plain, rescale=0.0, interval=ALWAYS):
    """Return a denoiser of sum_k w_k x_0(condition k), with all conditions in one batch.

    Args:
      denoise: (x_t, t [B], condition) -> (x_0, eps).
      conditions: a pytree with leaves [K, B, ...].
      weights: [K, B], each item's sum one; see `cfg_weights`.
      plain: [K, B], the weights without guidance: used outside the interval, and for `rescale`.
      rescale: phi of Lin et al. 2023 (arXiv 2305.08891, eq. 15 and 16). It brings the standard
        deviation of x_0 back to that of the plain x_0, against over-exposure.
      interval: guide where t is within (low, high) alone (Kynkaanniemi et al. 2024, arXiv
        2404.07724, eq. 5, in t).

    Returns:
      denoise(x_t, t) -> (x_0, eps).
    """
    count = len(weights)

    def inner(x_t, t):
        outputs = denoise_each(denoise, x_t, t, conditions, count)
        inside = (t > interval[0]) & (t <= interval[1])
        used = weights if interval == ALWAYS else jnp.where(inside[None], weights, plain)
        x_0, eps = mix(outputs, used)
        if not rescale:
            return x_0, eps
        return with_eps(rescale_std(x_0, mix(outputs, plain)[0], rescale), x_t, t, schedule)

    return inner


def denoise_each(denoise, x_t, t, conditions, count):
    """Return (x_0, eps) of each of `count` conditions, from one batch.  # [K, B, F, T, C] each"""
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), conditions)
    pair = denoise(jnp.concatenate([x_t] * count), jnp.concatenate([t] * count), merged)
    return tuple(x.reshape(count, *x_t.shape) for x in pair)


def mix(outputs, weights):
    """Return sum_k w_k x_k of x_0 and of eps.  # 2 x [K, B, ...], [K, B] -> 2 x [B, ...]"""
    total = lambda part: sum(expand(w, x) * x for w, x in zip(weights, part, strict=True))
    return tuple(map(total, outputs))


def rescale_std(x_0, plain, phi):
    """Return x_0 with its standard deviation shifted by phi towards that of `plain`, by item."""
    std = lambda x: jnp.std(x, axis=tuple(range(1, x.ndim)), keepdims=True)
    return x_0 * (1 - phi + phi * std(plain) / (std(x_0) + 1e-8))


def autoguide(denoise, worse, weight):
    """Return a denoiser that is led away from a worse model (Karras et al. 2024, eq. 5).

    (arXiv 2406.02507.)

    Args:
      denoise, worse: (x_t, t [B]) -> (x_0, eps), of one condition.
      weight: 1 is `denoise` alone.
    """

    def inner(x_t, t):
        pairs = zip(denoise(x_t, t), worse(x_t, t), strict=True)
        return tuple(weight * good + (1 - weight) * bad for good, bad in pairs)

    return inner
