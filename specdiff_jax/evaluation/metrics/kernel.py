"""Kernel Audio Distance: the squared maximum mean discrepancy of two sets of embeddings.

Chung et al. (2025, arXiv 2502.15602) on the unbiased estimate of Gretton et al. (2012, JMLR 13,
eq. 3) with the Gaussian kernel k(x, y) = exp(-|x - y|^2 / (2 s^2)):

    mean of k over pairs of X + mean of k over pairs of Y - 2 mean of k over X x Y

over pairs of vectors of two different songs: vectors of one song are more alike and would bias the
mean of their set. The estimate needs no Gaussian assumption, no minimum of d + 1 vectors and no
extrapolation. It can be negative. It is reported without the factor 100 of some tools.
"""

import dataclasses

import numpy as np

from specdiff_jax.evaluation.metrics import bootstrap
from specdiff_jax.evaluation.metrics.frechet import check_vectors

BLOCK = 512  # rows of the kernel in memory at once
BANDWIDTH_VECTORS = 2000  # vectors of the reference whose pairs give the bandwidth


@dataclasses.dataclass(frozen=True)
class KadResult:
    """MMD^2 with its interval, the bandwidth, and the p-value of the permutation test."""

    estimate: bootstrap.Estimate
    bandwidth: float
    p_value: float


def median_bandwidth(reference, seed=0):
    """Return the median distance of two reference vectors, of at most BANDWIDTH_VECTORS of them.

    The reference alone determines it: a bandwidth that follows the generated set hides its faults.

    Raises:
      ValueError: when more than half of the pairs are equal.
    """
    reference = check_vectors(reference)
    if len(reference) > BANDWIDTH_VECTORS:
        picks = np.random.default_rng(seed).choice(len(reference), BANDWIDTH_VECTORS, replace=False)
        reference = reference[picks]
    pairs = np.triu_indices(len(reference), 1)
    median = float(np.median(np.sqrt(squared_distances(reference, reference)[pairs])))
    if not median > 0:
        raise ValueError("the reference's embeddings are mostly equal: give other clips")
    return median


def kad(generated, reference, permutations=1000, seed=0, groups=None, reference_groups=None):
    """Return the Kernel Audio Distance of one vector a clip; average the windows of a clip first.

    The p-value is that of the permutation test (Gretton et al. 2012, section 8.1), (1 + how many
    of P relabeled sets are as far apart) / (1 + P), at that bandwidth; whole groups are
    relabeled. The interval is the jackknife's over groups of both sets, which where the distance
    is zero is wider than need be (see frechet.fad_inf).

    Args:
      generated: [N, d] embeddings.
      reference: [M, d] embeddings of real music.
      permutations: P; the p-value is at least 1 / (1 + P).
      seed: of the relabeling; the same seed gives the same result to the bit.
      groups: N labels of the songs whose clips are correlated; None: independent.
      reference_groups: M labels, likewise.

    Raises:
      ValueError: on fewer than three groups of either, or on numbers that are not finite.
    """
    generated, reference = check_vectors(generated), check_vectors(reference)
    fake, n = bootstrap.number_groups(groups, len(generated))
    real, m = bootstrap.number_groups(reference_groups, len(reference))
    if min(n, m) < 3:
        raise ValueError(f"{n} generated and {m} reference clips: give at least three of each")
    number = np.concatenate([fake, n + real])  # the group of each vector
    width = median_bandwidth(reference, seed)
    middle = reference.mean(axis=0)  # subtracted, so that squares lose no digits
    pooled = np.concatenate([generated, reference]) - middle
    labels = np.zeros((n + m, 1 + permutations))  # 1 where generated; column 0 is the actual sets
    labels[:n] = 1
    labels[:, 1:] = np.random.default_rng(seed).permuted(labels[:, 1:], axis=0)
    within, rows, own = sum_kernel(pooled, number, labels[number], width)
    sizes = np.bincount(number).astype(np.float64)
    values = unbiased_mmd(within, rows @ labels[number], rows.sum(), sizes, labels)
    error = mmd_standard_error(np.stack([np.bincount(number, side) for side in own.T]), sizes, n)
    # Sums of another order differ by rounding: a relabeling equal to the actual sets must count.
    p_value = (1 + np.sum(values[1:] >= values[0] - 1e-12)) / (1 + permutations)
    estimate = bootstrap.student_interval(values[0], error, min(n, m))
    return KadResult(estimate, width, float(p_value))


def sum_kernel(pooled, number, labels, width):
    """Return sums of the kernel over pairs of different groups, in blocks of rows.

    Returns:
      within [P]: over ordered pairs that a column labels both; rows [n + m]: over each row;
      own [n + m, 2]: each row's sum over the truly generated and over the reference vectors.
    """
    within, own = np.zeros(labels.shape[1]), []
    actual = np.stack([labels[:, 0], 1 - labels[:, 0]], axis=1)
    for first in range(0, len(pooled), BLOCK):
        rows = slice(first, first + BLOCK)
        kernel = np.exp(-squared_distances(pooled[rows], pooled) / (2 * width**2))  # [BLOCK, n + m]
        kernel[number[rows, None] == number[None, :]] = 0.0
        within += np.einsum("ip,ip->p", labels[rows], kernel @ labels)
        own.append(kernel @ actual)
    own = np.concatenate(own)
    return within, own.sum(axis=1), own


def unbiased_mmd(within, touching, total, sizes, labels):
    """Return the unbiased MMD^2 from sums over pairs: within X, touching X, and all.  # [P]

    Args:
      sizes: [G] vectors a group; labels: [G, P], 1 where a group is X's.
    """
    across = touching - within
    other = total - touching - across
    n, m = sizes @ labels, sizes @ (1 - labels)
    return (
        within / count_pairs(sizes, labels)
        + other / count_pairs(sizes, 1 - labels)
        - 2 * across / (n * m)
    )


def count_pairs(sizes, labels):
    """Return the number of ordered pairs of vectors of different groups.  # [G], [G, P] -> [P]"""
    return (sizes @ labels) ** 2 - sizes**2 @ labels


def mmd_standard_error(own, sizes, n):
    """Return the jackknife error of MMD^2 over groups of both sets, from the sums of their rows.

    Args:
      own: [2, G] sums of the kernel to X and to Y; sizes: [G] vectors; the first n groups are X's.
    """
    (to_x, to_y), variance = own, 0.0
    x, y = slice(n), slice(n, None)
    for mine, other, within, across in ((x, y, to_x[x], to_y[x]), (y, x, to_y[y], to_x[y])):
        count = sizes[mine]
        left = count.sum() - count  # vectors, and their squares, without each group
        squared = np.sum(count**2) - count**2
        within = (within.sum() - 2 * within) / (left**2 - squared)
        across = (across.sum() - across) / (left * sizes[other].sum())
        variance += (len(count) - 1) * (within - 2 * across).var()
    return float(np.sqrt(variance))


def squared_distances(a, b):
    """Return squared distances.  # [n, d], [m, d] -> [n, m]"""
    products = a @ b.T
    lengths = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :]
    return np.maximum(lengths - 2 * products, 0.0)
