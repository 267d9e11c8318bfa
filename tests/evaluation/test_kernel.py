"""MMD^2 against its definition, and against its closed form between Gaussians."""

import numpy as np
import pytest
from scipy import stats

from specdiff_jax.evaluation.metrics import kernel


def by_hand(x, y, width):
    """Return MMD^2 pair by pair (Gretton et al. 2012, eq. 3)."""
    k = lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * width**2))
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def sets(seed, n=12, m=17, d=3, shift=0.5):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


def spread(result):
    return result.estimate.high - result.estimate.low


def test_kad_equals_the_definition_for_any_block_size(monkeypatch):
    x, y = sets(0)
    distances = [np.linalg.norm(y[i] - y[j]) for i in range(17) for j in range(i)]
    result = kernel.kad(x, y, 20)
    assert result.bandwidth == pytest.approx(np.median(distances), rel=1e-9)
    assert result.estimate.value == pytest.approx(by_hand(x, y, result.bandwidth), abs=1e-12)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    small = kernel.kad(x, y, 20)
    assert small.estimate.value == pytest.approx(result.estimate.value, abs=1e-12)
    assert small.p_value == result.p_value and spread(small) == pytest.approx(spread(result))


def test_kad_interval_equals_the_leave_one_out_jackknife():
    x, y = sets(1)
    width = kernel.median_bandwidth(y)
    without_x = [by_hand(np.delete(x, i, 0), y, width) for i in range(12)]
    without_y = [by_hand(x, np.delete(y, i, 0), width) for i in range(17)]
    exact = np.sqrt(11 * np.var(without_x) + 16 * np.var(without_y))
    half = stats.t.ppf(0.975, 11) * exact
    assert spread(kernel.kad(x, y, 1)) == pytest.approx(2 * half, rel=1e-9)


def test_median_bandwidth_depends_on_the_reference_alone():
    x, y = sets(2)
    assert kernel.kad(x, y, 1).bandwidth == kernel.kad(100 * x, y, 1).bandwidth
    with pytest.raises(ValueError, match="mostly equal"):
        kernel.median_bandwidth(np.zeros((5, 2)))


def test_kad_is_invariant_to_shift_rotation_scale_and_order():
    x, y = sets(3)
    rng, plain = np.random.default_rng(0), kernel.kad(x, y, 1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for a, b in (
        (x + 50, y + 50),
        (x @ turn, y @ turn),
        (-4 * x, -4 * y),
        (rng.permutation(x), rng.permutation(y)),
    ):
        result = kernel.kad(a, b, 1)
        assert result.estimate.value == pytest.approx(plain.estimate.value, abs=1e-12)
        assert spread(result) == pytest.approx(spread(plain), rel=1e-8)


def test_kad_interval_covers_the_closed_form_between_gaussians():
    """E k is r^(d/2) exp(-|a - b|^2 / (2 s^2 + 4)), r = s^2 / (s^2 + 2), for N(a, I), N(b, I)."""
    results = [kernel.kad(*sets(seed, 60, 60), 1) for seed in range(150)]
    hits = []
    for each in results:
        room = each.bandwidth**2 + 2
        expected = 2 * (each.bandwidth**2 / room) ** 1.5 * (1 - np.exp(-3 * 0.25 / (2 * room)))
        hits.append(each.estimate.low <= expected <= each.estimate.high)
    assert 0.9 <= np.mean(hits) <= 0.99


def test_kad_of_equal_distributions_covers_zero_without_bias():
    estimates = [kernel.kad(*sets(seed, 30, 50, shift=0), 1).estimate for seed in range(150)]
    values = np.array([each.value for each in estimates])
    assert np.mean([each.low <= 0 <= each.high for each in estimates]) >= 0.93
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(150) and (values < 0).any()


def test_kad_p_value_is_uniform_under_the_null_and_small_otherwise():
    null = [kernel.kad(*sets(seed, 15, 20, shift=0), 99).p_value for seed in range(150)]
    assert stats.kstest(null, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(np.array(null) <= 0.05) <= 0.1
    assert kernel.kad(*sets(0, 40, 40, shift=1.0), 199).p_value == 1 / 200


def songs(rng, sizes, d=3):
    """Return (vectors, groups) of songs whose clips are correlated."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return (
        rng.standard_normal((len(sizes), d))[groups] + 0.3 * rng.standard_normal((len(groups), d)),
        groups,
    )


def test_kad_leaves_out_pairs_within_a_song_and_resamples_whole_songs():
    rng = np.random.default_rng(5)
    (x, of_x), (y, of_y) = songs(rng, [3, 1, 2, 4]), songs(rng, [2, 5, 1, 3, 3])
    result = kernel.kad(x, y, 20, groups=of_x, reference_groups=of_y)
    k = np.exp(-kernel.squared_distances(*2 * [np.concatenate([x, y])]) / (2 * result.bandwidth**2))

    def by_pairs(in_x, in_y):
        """Return MMD^2 of some of the vectors, pair by pair of songs."""
        means = []
        for kept, other in ((in_x, of_x), (10 + in_y, of_y)):
            names = other[kept % 10] if other is of_x else other[kept - 10]
            apart = names[:, None] != names[None, :]
            means.append(k[np.ix_(kept, kept)][apart].mean())
        return sum(means) - 2 * k[np.ix_(in_x, 10 + in_y)].mean()

    rows, columns = np.arange(10), np.arange(14)
    assert result.estimate.value == pytest.approx(by_pairs(rows, columns), abs=1e-12)
    less_x = [by_pairs(rows[of_x != song], columns) for song in range(4)]
    less_y = [by_pairs(rows, columns[of_y != song]) for song in range(5)]
    exact = np.sqrt(3 * np.var(less_x) + 4 * np.var(less_y))
    assert spread(result) == pytest.approx(2 * stats.t.ppf(0.975, 3) * exact, rel=1e-9)


def test_kad_of_grouped_clips_is_unbiased():
    """Without the groups the value and the p-value are biased."""
    grouped, single = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        (x, _), (y, of_y) = songs(rng, [1] * 30), songs(rng, [8] * 15)
        grouped.append(kernel.kad(x, y, 99, reference_groups=of_y))
        single.append(kernel.kad(x, y, 99))
    values = np.array([each.estimate.value for each in grouped])
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(100)
    assert np.mean([each.estimate.value for each in single]) > 3 * abs(values.mean())
    assert np.mean([each.estimate.low <= 0 for each in grouped]) >= 0.93
    assert np.mean([each.p_value <= 0.05 for each in grouped]) <= 0.1
    assert np.mean([each.p_value <= 0.05 for each in single]) > 0.2


def test_kad_is_deterministic():
    x, y = sets(4)
    assert kernel.kad(x, y, 50) == kernel.kad(x, y, 50)
    with pytest.raises(ValueError, match="at least three"):
        kernel.kad(x[:2], y)
