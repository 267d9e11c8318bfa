"""What wraps `denoise` so that samples obey: several conditions asked at once and mixed.

A condition is any pytree that `denoise(x_t, t, condition)` understands. Mixtures are of x_0 with
weights whose sum is one, which is the same mixture of eps, of v and of scores.
"""

import jax
import jax.numpy as jnp

from specdiff_jax.diffusion.schedules import expand, with_eps

ALWAYS = (0.0, 1.0)


def guide(denoise, schedule, conditions, weights, plain, rescale=0.0, interval=ALWAYS):
    """sum_k w_k x_0(condition k), all conditions in one batch.

    With conditions (nothing, c) and weights (1 - w, w) classifier-free guidance (Ho & Salimans
    2022, arXiv 2207.12598, eq. 6, whose w is ours less one); with (negative, c) a negative prompt;
    with (nothing, c_1, c_2 ...) and (1 - sum w, w_1, w_2 ...) the algebra of Liu et al. 2022
    (arXiv 2206.01714, eq. 11).

    Args:
      denoise: (x_t, t [B], condition) -> (x_0, eps).
      conditions: a pytree with leaves [K, B, ...].
      weights: [K, B], each item's sum one.
      plain: [K, B], the weights without guidance: used outside the interval, and for `rescale`.
      rescale: phi of Lin et al. 2023 (arXiv 2305.08891, eq. 15 and 16): how far x_0 is brought
        back to the deviation of the plain one, against over-exposure.
      interval: guide where t is within (low, high) alone (Kynkaanniemi et al. 2024, arXiv
        2404.07724, eq. 5, in t).

    Returns:
      denoise(x_t, t) -> (x_0, eps).
    """
    count = len(weights)

    def inner(x_t, t):
        each = denoise_each(denoise, x_t, t, conditions, count)
        inside = (t > interval[0]) & (t <= interval[1])
        used = weights if interval == ALWAYS else jnp.where(inside[None], weights, plain)
        x_0, eps = mix(each, used)
        if not rescale:
            return x_0, eps
        return with_eps(rescale_std(x_0, mix(each, plain)[0], rescale), x_t, t, schedule)

    return inner


def denoise_each(denoise, x_t, t, conditions, count):
    """(x_0, eps) under each of `count` conditions, in one batch.  # [K, B, F, T, C] each"""
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), conditions)
    pair = denoise(jnp.concatenate([x_t] * count), jnp.concatenate([t] * count), merged)
    return tuple(x.reshape(count, *x_t.shape) for x in pair)


def mix(each, weights):
    """sum_k w_k x_k of each of a pair.  # ([K, B, ...], [K, B, ...]), [K, B] -> 2 x [B, ...]"""
    return tuple(sum(expand(w, x) * x for w, x in zip(weights, part, strict=True)) for part in each)


def rescale_std(x_0, plain, phi):
    """x_0 brought towards the deviation that `plain` has, item by item."""
    std = lambda x: jnp.std(x, axis=tuple(range(1, x.ndim)), keepdims=True)
    return x_0 * (1 - phi + phi * std(plain) / (std(x_0) + 1e-8))


def autoguide(denoise, worse, weight):
    """Away from what a worse model says (Karras et al. 2024, arXiv 2406.02507, eq. 5).

    Args:
      denoise, worse: (x_t, t [B]) -> (x_0, eps), of one condition.
      weight: 1 is `denoise` alone.
    """

    def inner(x_t, t):
        pairs = zip(denoise(x_t, t), worse(x_t, t), strict=True)
        return tuple(weight * good + (1 - weight) * bad for good, bad in pairs)

    return inner
