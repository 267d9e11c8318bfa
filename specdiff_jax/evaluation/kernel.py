"""Kernel Audio Distance: the squared maximum mean discrepancy of two sets of embeddings.

Chung et al. (2025, arXiv 2502.15602) on the unbiased estimate of Gretton et al. (2012, JMLR 13,
eq. 3) with the Gaussian kernel k(x, y) = exp(-|x - y|^2 / (2 s^2)):

    mean of k over pairs of X + mean of k over pairs of Y - 2 mean of k over X x Y

pairs being of two different vectors. It needs no Gaussian, no minimum of d + 1 and no
extrapolation, and can be negative. It is printed as it is, without the factor 100 of some tools.
"""

import dataclasses

import numpy as np

from specdiff_jax.evaluation import intervals
from specdiff_jax.evaluation.frechet import checked

BLOCK = 512  # rows of the kernel held at once
MOST = 2000  # vectors of the reference whose pairs give the bandwidth


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """MMD^2 with its interval, the bandwidth, and how often chance alone gives as much."""

    estimate: intervals.Estimate
    bandwidth: float
    p_value: float


def bandwidth(reference, seed=0):
    """The median distance of two vectors of the reference, of at most MOST drawn ones.

    Of the reference alone: a bandwidth that follows the generated set hides what is wrong with it.

    Raises:
      ValueError: when more than half of the pairs are equal.
    """
    reference = checked(reference)
    if len(reference) > MOST:
        picks = np.random.default_rng(seed).choice(len(reference), MOST, replace=False)
        reference = reference[picks]
    pairs = np.triu_indices(len(reference), 1)
    median = float(np.median(np.sqrt(squares(reference, reference)[pairs])))
    if not median > 0:
        raise ValueError("the reference's embeddings are mostly equal: give other clips")
    return median


def kad(generated, reference, permutations=1000, seed=0):
    """Kernel Audio Distance of one vector a clip; average the windows of a clip first.

    The p-value is that of the permutation test (Gretton et al. 2012, section 8.1), (1 + how many
    of P relabelled sets are as far apart) / (1 + P), at the bandwidth found; it knows nothing of
    clips that hang together. The interval is the jackknife's over clips of both sets, which where
    the distance is zero is wider than need be (see frechet.fad_inf).

    Args:
      generated: [N, d] embeddings, N >= 3.
      reference: [M, d] embeddings of real music, M >= 3.
      permutations: P; the p-value is at least 1 / (1 + P).
      seed: of the relabelling; the same seed gives the same result to the bit.

    Raises:
      ValueError: on fewer than three vectors, or on numbers that are not finite.
    """
    generated, reference = checked(generated), checked(reference)
    n, m = len(generated), len(reference)
    if min(n, m) < 3:
        raise ValueError(f"{n} generated and {m} reference clips: give at least three of each")
    width = bandwidth(reference, seed)
    middle = reference.mean(axis=0)  # taken off, so that squares lose no digits
    pooled = np.concatenate([generated, reference]) - middle
    labels = np.zeros((n + m, 1 + permutations))  # 1 where generated; column 0 is the truth
    labels[:n] = 1
    labels[:, 1:] = np.random.default_rng(seed).permuted(labels[:, 1:], axis=0)
    within, rows, own = sums(pooled, labels, width)
    found = discrepancy(within, rows @ labels, rows.sum(), n, m)
    error = standard_error(own, n, m)
    # Sums of another order differ by rounding: a relabelling that is the truth must count.
    p_value = (1 + np.sum(found[1:] >= found[0] - 1e-12)) / (1 + permutations)
    estimate = intervals.normal(found[0], error, min(n, m))
    return Discrepancy(estimate, width, float(p_value))


def sums(pooled, labels, width):
    """Sums of the kernel without its diagonal, in blocks of rows.

    Returns:
      within [P]: over ordered pairs that a column labels both; rows [n + m]: over each row;
      own [n + m, 2]: each row's sum over the truly generated and over the reference vectors.
    """
    within, own = np.zeros(labels.shape[1]), []
    truth = np.stack([labels[:, 0], 1 - labels[:, 0]], axis=1)
    for first in range(0, len(pooled), BLOCK):
        rows = slice(first, first + BLOCK)
        kernel = np.exp(-squares(pooled[rows], pooled) / (2 * width**2))  # [BLOCK, n + m]
        own_pairs = np.arange(len(kernel))
        kernel[own_pairs, first + own_pairs] = 0.0
        within += np.einsum("ip,ip->p", labels[rows], kernel @ labels)
        own.append(kernel @ truth)
    own = np.concatenate(own)
    return within, own.sum(axis=1), own


def discrepancy(within, touching, total, n, m):
    """Unbiased MMD^2 from sums over pairs: within X, with one end at least in X, and all.  # [P]"""
    across = touching - within
    other = total - touching - across
    return within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m)


def standard_error(own, n, m):
    """The jackknife's, of both sets: MMD^2 without each vector, from the sums of its row."""
    to_x, to_y = own[:, 0], own[:, 1]
    xx, yy, xy = to_x[:n].sum(), to_y[n:].sum(), to_y[:n].sum()
    less_x = (xx - 2 * to_x[:n]) / ((n - 1) * (n - 2)) - 2 * (xy - to_y[:n]) / ((n - 1) * m)
    less_y = (yy - 2 * to_y[n:]) / ((m - 1) * (m - 2)) - 2 * (xy - to_x[n:]) / ((m - 1) * n)
    return float(np.sqrt((n - 1) * less_x.var() + (m - 1) * less_y.var()))


def squares(a, b):
    """Squared distances.  # [n, d], [m, d] -> [n, m]"""
    products = a @ b.T
    lengths = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :]
    return np.maximum(lengths - 2 * products, 0.0)
