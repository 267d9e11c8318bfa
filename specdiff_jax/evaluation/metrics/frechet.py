"""Fréchet Audio Distance, and its extrapolation to infinitely many clips (FAD-infinity).

Fréchet Audio Distance (Kilgour et al. 2019, arXiv 1812.08466) of two sets of embeddings is

    |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)        (Dowson & Landau 1982)

of their means and covariances. From N and M vectors it comes out too large, by close to
c / N + c / M with c = d (d + 5) / 4 for white vectors: 3.7 instead of 0 for N = M = 600, d = 64.
`fad_inf` removes this bias. It can be negative, as every unbiased estimate of zero must.
"""

import numpy as np

from specdiff_jax.evaluation.metrics import bootstrap

FOLDS = 12  # parts of a split
SUBSET_PARTS = (6, 7, 8, 9, 10, 11, 12)  # parts of a subset: from half of the vectors to all
SPLITS = 4
MARGIN = 1.2  # subsets of 10 of 12 parts still hold more than d songs
EPS = np.finfo(np.float64).eps


def fit_gaussian(vectors):
    """Return the mean and unbiased covariance, float64.  # [N, d] -> [d], [d, d]

    Raises:
      ValueError: below two vectors, or when one holds a number that is not finite.
    """
    vectors = check_vectors(vectors)
    if len(vectors) < 2:
        raise ValueError(f"a covariance needs at least two vectors, not {len(vectors)}")
    mean = vectors.mean(axis=0)
    centered = vectors - mean
    return mean, centered.T @ centered / (len(vectors) - 1)


def frechet_distance(a, b):
    """Return the Fréchet distance of the Gaussians a and b by symmetric eigenvalues.

    Args:
      a: (mean [..., d], covariance [..., d, d]), float64; `...` are Gaussians side by side.
      b: as a.

    Returns:
      [...] float64, in squared units of the vectors.
    """
    root = matrix_power(a[1], 0.5)
    spectrum = zero_rounding_errors(np.linalg.eigvalsh(root @ b[1] @ root))  # [..., d]
    traces = np.trace(a[1] + b[1], axis1=-2, axis2=-1)
    return np.sum((a[0] - b[0]) ** 2, axis=-1) + traces - 2 * np.sqrt(spectrum).sum(axis=-1)


def has_few_vectors(generated, reference):
    """Return whether either set is below 10 d vectors, where FAD is mostly bias."""
    return min(len(generated), len(reference)) < 10 * np.shape(generated)[1]


def fad(generated, reference, groups=None, reference_groups=None):
    """Return the Fréchet Audio Distance as papers print it, with its bias of finite N and M.

    Its interval holds a second draw of as many clips, not the distance of all clips.

    Args:
      generated: [N, d] embeddings.
      reference: [M, d] embeddings of real music.
      groups: N labels of the clips or songs whose vectors are correlated; None: independent.
      reference_groups: M labels, likewise.

    Returns:
      bootstrap.Estimate, in squared units of the embeddings.

    Raises:
      ValueError: below d + 1 vectors in either set (the covariance has no full rank), or on
        numbers that are not finite.
    """
    generated, reference = check_pair(generated, reference, 1)
    value = frechet_distance(fit_gaussian(generated), fit_gaussian(reference))
    error, total = fad_standard_error(generated, reference, groups, reference_groups)
    return bootstrap.growing_variance_interval(value, error, total, value)


def fad_inf(generated, reference, groups=None, reference_groups=None, seed=0):
    """Return FAD extrapolated to infinitely many generated and reference clips, with its interval.

    A regression on 1 / N over subsets, as Chong & Forsyth (2020, arXiv 1911.07023) for FID and
    Gui et al. (2023, arXiv 2311.01616) for FAD, but for three things:
    - Subsets are drawn without replacement. Drawn with it, they are samples of the sample, and
      the line ends at the distance of the sample, not of what it was drawn from.
    - Both sets shrink by the same factor u = N / n = M / m. A reference of M clips has a bias of
      its own, c / M, which no extrapolation of the generated set alone can see. Along u all terms
      of both biases are one series in u; its quadratic part is below the noise down to n = d + 1.
    - Each split divides the clips into 12 parts and averages over all windows of k neighboring
      parts. Every clip then has the same weight at every size, and sampling noise remains only
      in products of clips. The variance between splits measures it.

    Subsets overlap, so residuals of the regression do not measure its error. The interval is
    that of the infinitesimal jackknife (`fad_standard_error`) over clips of both sets. It counts
    the second-order part of the variance twice. Where the distance is zero, this part is the
    whole variance, and the interval is too wide by sqrt(2) or a little more: it covers in 97 to
    99% of draws.

    Args and returns: as `fad`.
      seed: of the splits; the same seed gives the same result to the bit.

    Raises:
      ValueError: as `fad`, but below 1.2 (d + 1) groups of either: where songs are fewer than
        numbers, their covariance is so far from that of all songs that a line in 1 / N misses it.
    """
    generated, reference = check_pair(generated, reference, MARGIN, (groups, reference_groups))
    error, total = fad_standard_error(generated, reference, groups, reference_groups)
    middle = reference.mean(axis=0)  # subtracted, so that sums of products lose no digits
    sides = (generated - middle, groups), (reference - middle, reference_groups)
    rng = np.random.default_rng(seed)
    ends = []
    for _ in range(SPLITS):
        u, distances = zip(
            *subset_distances(*(sum_parts(*side, rng) for side in sides)), strict=True
        )
        ends.append(np.polyfit(u, distances, 1)[1])  # at u = 0
    error = np.hypot(error, np.std(ends, ddof=1) / np.sqrt(SPLITS))
    plain = frechet_distance(fit_gaussian(generated), fit_gaussian(reference))
    return bootstrap.growing_variance_interval(np.mean(ends), error, total, plain)


def sum_parts(vectors, groups, rng):
    """Return groups, vectors, sums of v and v v^T in each part.  # [Q], [Q], [Q, d], [Q, d, d]"""
    number, total = bootstrap.number_groups(groups, len(vectors))
    part_of_group = rng.permutation(total) % FOLDS
    part = part_of_group[number]
    cut = [vectors[part == k] for k in range(FOLDS)]
    songs = np.bincount(part_of_group, minlength=FOLDS).astype(np.float64)
    counts = np.array([len(of_part) for of_part in cut], np.float64)
    sums = np.stack([of_part.sum(axis=0) for of_part in cut])
    return songs, counts, sums, np.stack([of_part.T @ of_part for of_part in cut])


def subset_distances(generated, reference):
    """Yield (u, mean distance) of the subsets of each size that holds enough songs."""
    d = generated[2].shape[1]
    offset = (np.arange(FOLDS)[None, :] - np.arange(FOLDS)[:, None]) % FOLDS
    sides = generated, reference
    for kept in SUBSET_PARTS:
        window = (offset < kept)[: FOLDS if kept < FOLDS else 1].astype(np.float64)  # [W, Q]
        counts = [window @ side[0] for side in sides]
        if np.min([count.min() for count in counts]) < d + 1:
            continue
        u = np.mean([n.sum() * np.mean(1 / c) for (n, *_), c in zip(sides, counts, strict=True)])
        yield u, frechet_distance(*(union_moments(window, side[1:]) for side in sides)).mean()


def union_moments(window, side):
    """Return means and covariances of unions of parts.  # [W, Q], parts -> [W, d], [W, d, d]"""
    count, first, second = (np.tensordot(window, of_parts, 1) for of_parts in side)
    mean = first / count[:, None]
    products = second - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
    return mean, products / (count[:, None, None] - 1)


def fad_standard_error(generated, reference, groups, reference_groups):
    """Return the error of FAD by the infinitesimal jackknife, and the smaller number of groups.

    One vector x of a pulls on the distance by h(x) = y^T (I - T) y + 2 (m_a - m_b)^T y with
    y = x - m_a and T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2, the optimal map from a to b (Bures), and
    likewise of b with T^-1. The variance is that of the mean of h, summed over groups.
    """
    (m_a, A), (m_b, B) = fit_gaussian(generated), fit_gaussian(reference)
    root, back = matrix_power(A, 0.5), matrix_power(A, -0.5)
    between = root @ B @ root
    there, home = (
        back @ matrix_power(between, 0.5) @ back,
        root @ matrix_power(between, -0.5) @ root,
    )
    sides = (generated, m_a, m_b, there, groups), (reference, m_b, m_a, home, reference_groups)
    variance, totals = 0.0, []
    for vectors, mean, other, transport, names in sides:
        y = vectors - mean
        pull = np.sum(y * (y - y @ transport), axis=1) + 2 * y @ (mean - other)  # [N]
        number, total = bootstrap.number_groups(names, len(vectors))
        sums = np.bincount(number, pull - pull.mean()) / len(vectors)  # [G]
        variance += total / (total - 1) * np.sum(sums**2)
        totals.append(total)
    return float(np.sqrt(variance)), min(totals)


def matrix_power(matrix, exponent):
    """Return a power of a positive semidefinite matrix; its null space stays null."""
    values, vectors = np.linalg.eigh(matrix)
    values = zero_rounding_errors(values)
    values = np.where(values > 0, values, 1.0) ** exponent * (values > 0)
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def zero_rounding_errors(spectrum):
    """Return ascending eigenvalues, zero where they are rounding errors.  # [..., d]"""
    floor = spectrum.shape[-1] * EPS * spectrum[..., -1:]
    return np.where(spectrum > floor, spectrum, 0.0)


def check_vectors(vectors):
    """Return embeddings in float64, or raise ValueError.  # [N, d]"""
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"embeddings are [N, d], one row a clip, not {list(vectors.shape)}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"embedding {np.argmin(finite)} is not finite: leave its clip out")
    return vectors


def check_pair(generated, reference, margin, groups=(None, None)):
    """Return both sets, checked to hold at least `margin` times d + 1 vectors or groups."""
    generated, reference = check_vectors(generated), check_vectors(reference)
    d = generated.shape[1]
    if reference.shape[1] != d:
        raise ValueError(f"embeddings of {d} and of {reference.shape[1]} numbers: use one embedder")
    needed = int(np.ceil(margin * (d + 1)))
    sides = ("generated", generated, groups[0]), ("reference", reference, groups[1])
    for name, vectors, names in sides:
        count, what = len(vectors), "vectors"
        if names is not None:
            count, what = bootstrap.number_groups(names, count)[1], "songs"
        if count < needed:
            raise ValueError(
                f"{count} {name} {what} of {d} numbers are too few for a Fréchet distance: "
                f"give at least {needed}, or fewer dimensions"
            )
    return generated, reference
