"""95% intervals of statistics: bootstrap, jackknife, Student's t and Wilson's.

Rows that vary together, such as the clips of one song, are resampled together as a group.
"""

import dataclasses
import math

import numpy as np
from scipy import stats

LEVEL = 0.95
TAIL = 0.025  # on either side
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95% interval, in the number's own unit."""

    value: float
    low: float
    high: float


def number_groups(groups, count):
    """Return groups as integers 0 .. G - 1, each row its own when None, and G.  # [N] int

    Args:
      groups: None, or N hashable labels (song names, clip numbers), one a row.

    Raises:
      ValueError: there are not N labels, or fewer than two groups.
    """
    if groups is None:
        number, total = np.arange(count), count
    else:
        if len(groups) != count:
            raise ValueError(f"{len(groups)} group labels for {count} rows: give one for each row")
        names, number = np.unique(np.asarray(groups), return_inverse=True)
        total = len(names)
    if total < 2:
        raise ValueError(f"an interval needs at least two independent clips or songs, not {total}")
    return number, total


def student_interval(value, error, total):
    """Return value -+ Student's t with `total` - 1 degrees of freedom times its standard error."""
    half = stats.t.ppf((1 + LEVEL) / 2, total - 1) * error
    return Estimate(float(value), float(value - half), float(value + half))


def growing_variance_interval(value, error, total, size):
    """Return the interval of a number near `size` whose variance is proportional to it.

    Squared distances are such numbers. The interval holds all v with
    |value - v| <= t sqrt(error^2 (1 + (v - value) / size)), t Student's. Its upper arm is longer,
    so that both ends miss the expectation equally often, as Wilson's (1927) do for proportions.
    """
    square = (stats.t.ppf((1 + LEVEL) / 2, total - 1) * error) ** 2
    shift = square / (2 * size) if size > 0 else 0.0
    half = np.sqrt(shift**2 + square)
    return Estimate(float(value), float(value + shift - half), float(value + shift + half))


def wilson_interval(value, error, total):
    """Return Wilson's interval (1927) of a proportion whose standard error is `error`.

    The number of independent trials is the one that gives `error`, p (1 - p) / error^2, so that
    correlated rows count for fewer. At p = 0 or 1 no error can be estimated, and `total` counts.
    """
    spread = value * (1 - value)
    trials = spread / error**2 if error > 0 and spread > 0 else total
    center = (value + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * np.sqrt(spread / trials + Z**2 / (4 * trials**2))
    low = center - half if value > 0 else 0.0  # at the ends exact, not up to rounding
    high = center + half if value < 1 else 1.0
    return Estimate(float(value), float(low), float(high))


def percentile_interval(value, resampled, tail=TAIL, method="linear"):
    """Return a value with the percentiles of its resampled values (Efron 1979)."""
    low, high = np.quantile(resampled, [tail, 1 - tail], method=method)
    return Estimate(float(value), float(low), float(high))


def bootstrap_interval(values, statistic=None, groups=None, resamples=2000, seed=0):
    """Return a statistic of rows with the percentile bootstrap's interval over whole groups.

    Percentiles are those of Student's t, and widened by sqrt(G / (G - 1)), so that few groups do
    not give too narrow an interval (Hesterberg 2015, section 5.3).

    Args:
      values: [N] or [N, ...] one row a clip.
      statistic: rows [n, ...] -> float; None is the mean of [N], which takes no loop.
      groups: N labels; rows of one group are drawn together. None: each row for itself.
      resamples: how often the groups are drawn, with replacement.
      seed: of the draws; the same seed gives the same interval to the bit.
    """
    values = np.asarray(values, np.float64)
    number, total = number_groups(groups, len(values))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(total, np.full(total, 1 / total), size=resamples)  # [R, G]
    if statistic is None:
        sums, counts = np.bincount(number, values), np.bincount(number)
        value, resampled = values.mean(), (draws @ sums) / (draws @ counts)
    else:
        value = statistic(values)
        resampled = [statistic(np.repeat(values, draw[number], axis=0)) for draw in draws]
    tail = stats.norm.cdf(np.sqrt(total / (total - 1)) * stats.t.ppf((1 - LEVEL) / 2, total - 1))
    return percentile_interval(value, resampled, tail)


def bootstrap_two_samples(a, b, statistic, rng, resamples):
    """Return statistic(a, b) with its interval by resampling the values of both."""
    draw = lambda values: rng.choice(values, len(values))
    resampled = [statistic(draw(a), draw(b)) for _ in range(resamples)]
    return percentile_interval(statistic(a, b), resampled, method="nearest")


def bootstrap_table_mean(table, seed, resamples):
    """Return the mean of a table with its interval; rows and columns are drawn independently.

    This is the pigeonhole bootstrap (Owen 2007). A single row or column cannot be resampled: the
    interval then holds for that row or column alone. From one number there is no interval, NaN.

    Args:
      table: [R, C] float, NaN where there is no number.
    """
    rows, columns = table.shape
    present, filled = np.isfinite(table).astype(float), np.nan_to_num(table)
    value = table[present > 0].mean()
    rng = np.random.default_rng(seed)
    row_counts = rng.multinomial(rows, np.full(rows, 1 / rows), resamples)
    column_counts = rng.multinomial(columns, np.full(columns, 1 / columns), resamples)
    weights = ((row_counts @ present) * column_counts).sum(axis=1)
    sums = ((row_counts @ filled) * column_counts).sum(axis=1)
    if present.sum() <= 1:
        return Estimate(float(value), math.nan, math.nan)
    return percentile_interval(value, sums[weights > 0] / weights[weights > 0])


def jackknife_error(statistic, count, groups=None, folds=20, seed=0):
    """Return standard errors of a statistic by leaving out each of `folds` parts of its rows once.

    It serves statistics that repeated rows would break, such as nearest neighbors (Efron 1982,
    section 3). On average not below the true error (Efron & Stein 1981).

    Args:
      statistic: bool [N], the rows kept -> float or [K].
      count: N.
      groups: N labels; rows of one group are left out together. None: each row for itself.
      folds: parts, at most one a group.
      seed: which groups are left out together.

    Returns:
      As the statistic's, float64.
    """
    number, total = number_groups(groups, count)
    folds = min(folds, total)
    part = np.random.default_rng(seed).permutation(total)[number] % folds
    values = np.array([statistic(part != fold) for fold in range(folds)], np.float64)
    return np.sqrt((folds - 1) * values.var(axis=0))
