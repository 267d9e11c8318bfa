"""The best linear denoisers in closed form: the baselines that a trained network must beat.

x_0 is split into vectors. For each group of vectors with mean m and covariance U diag(lam) U^T the
least-squares linear estimate from x_t is the Wiener filter (the posterior mean of a Gaussian)

    x_0 = m + U diag(g) U^T (x_t - alpha m),    g = alpha lam / (alpha^2 lam + sigma^2),

and on other data with second moments mu = E (U^T (x_0 - m))^2 its error, averaged over the noise,
is mean((1 - alpha g)^2 mu + sigma^2 g^2). No noise is drawn.
"""

import numpy as np


def group_by_band(x_0, patch):
    """Return single values, a group for each (band, channel).  # [F * C, B * T, 1]"""
    b, f, t, c = x_0.shape
    return x_0.transpose(1, 3, 0, 2).reshape(f * c, b * t, 1)


def group_by_frame(x_0, patch):
    """Return whole frames, one group.  # [1, B * T, F * C]"""
    b, f, t, c = x_0.shape
    return x_0.transpose(0, 2, 1, 3).reshape(1, b * t, f * c)


def group_by_patch(x_0, patch):
    """Return the network's patches, a group for each row.  # [F / pf, B * T / pt, pf * pt * C]"""
    (b, f, t, c), (pf, pt) = x_0.shape, patch
    patches = x_0.reshape(b, f // pf, pf, t // pt, pt, c).transpose(1, 0, 3, 2, 4, 5)
    return patches.reshape(f // pf, b * (t // pt), pf * pt * c)


def fit(batches, patch):
    """Fit {grouping: (mean [G, d], eigenvectors [G, d, d], eigenvalues [G, d])} to training data.

    Args:
      batches: iterable of x_0 [B, F, T, C], numpy, read once.
      patch: (bins, frames) of the network.
    """
    sums = {name: [0, 0.0, 0.0] for name in GROUPINGS}  # count, sum of v, sum of v v^T
    for x_0 in batches:
        for name, group in GROUPINGS.items():
            vectors = group(np.asarray(x_0, np.float32), patch)  # [G, n, d]
            products = np.matmul(vectors.transpose(0, 2, 1), vectors)
            sums[name][0] += vectors.shape[1]
            sums[name][1] += vectors.sum(axis=1, dtype=np.float64)
            sums[name][2] += products.astype(np.float64)
    return {name: eigendecompose(*totals) for name, totals in sums.items()}


def eigendecompose(count, first, second):
    """Return mean, eigenvectors and eigenvalues of the covariance, from sums of v and v v^T."""
    mean = first / count
    covariance = second / count - mean[:, :, None] * mean[:, None, :]
    values, vectors = np.linalg.eigh(covariance)
    return mean, vectors, np.maximum(values, 0.0)


def measure_moments(fitted, batches, patch):
    """Return {grouping: mu [G, d]}, the mean squared projections of held-out data (see above)."""
    totals, counts = dict.fromkeys(GROUPINGS, 0.0), dict.fromkeys(GROUPINGS, 0)
    for x_0 in batches:
        for name, group in GROUPINGS.items():
            mean, vectors, _ = fitted[name]
            centered = group(np.asarray(x_0, np.float64), patch) - mean[:, None]
            totals[name] = totals[name] + (np.matmul(centered, vectors) ** 2).sum(axis=1)
            counts[name] += centered.shape[1]
    return {name: totals[name] / counts[name] for name in GROUPINGS}


def x0_error(values, moments, alpha, sigma):
    """Return the mean-square x_0 error of the filter of `values` on data with `moments`."""
    gain = alpha * values / (alpha**2 * values + sigma**2 + 1e-12)
    return float(np.mean((1 - alpha * gain) ** 2 * moments + sigma**2 * gain**2))


GROUPINGS = {
    "band_wiener": group_by_band,
    "linear_frame": group_by_frame,
    "linear_patch": group_by_patch,
}
