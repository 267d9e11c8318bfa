"""Precision, recall, density and coverage against their definitions and closed forms."""

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics import prdc


def by_hand(x, y, k):
    """Return the four metrics from their definitions, ball by ball."""
    reach = lambda set_: [
        sorted(np.linalg.norm(v - w) for j, w in enumerate(set_) if j != i)[k - 1]
        for i, v in enumerate(set_)
    ]
    real_radii, radii = reach(y), reach(x)
    inside = np.array(
        [[np.linalg.norm(a - b) <= r for b, r in zip(y, real_radii, strict=True)] for a in x]
    )
    back = np.array(
        [[np.linalg.norm(a - b) <= r for a, r in zip(x, radii, strict=True)] for b in y]
    )
    precision, recall = inside.any(axis=1).mean(), back.any(axis=1).mean()
    return [precision, recall, inside.sum() / (k * len(x)), inside.any(axis=0).mean()]


def sets(seed, n=40, m=30, d=3, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


def values(estimates):
    return [estimates[name].value for name in prdc.NAMES]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_equals_the_definitions(k):
    x, y = sets(0, shift=0.7)
    np.testing.assert_allclose(values(prdc.prdc(x, y, k)), by_hand(x, y, k), atol=1e-12)


@pytest.mark.parametrize("d", [1, 16])
def test_prdc_of_equal_distributions_has_the_expected_values(d):
    """The expectation is the same in any dimension (Naeem et al. 2020)."""
    k, n, m = 3, 25, 40
    all_kept = np.ones(n, bool), np.ones(m, bool)
    draws = []
    for seed in range(200):
        x, y = sets(seed, n, m, d)
        squared = (prdc.squared_distances(*pair) for pair in ((x, x), (y, y), (x, y)))
        draws.append(prdc.prdc_values(*squared, *all_kept, k)[2:])
    error = np.std(draws, axis=0) / np.sqrt(200)
    expected = [1.0, prdc.expected_coverage(n, m, k)]
    assert (np.abs(np.mean(draws, axis=0) - expected) < 3.5 * error).all()
    assert (error < 0.04).all()


def test_expected_coverage_equals_the_published_value():
    """k = 5 gives 1 - 2^-5 = 0.969 in the limit of many clips (Naeem et al. 2020)."""
    assert prdc.expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    assert prdc.expected_coverage(10_000, 10_000, 5) > 0.95


def test_prdc_is_invariant_to_shift_rotation_scale_and_order():
    x, y = sets(1, shift=0.4)
    rng, plain = np.random.default_rng(0), values(prdc.prdc(x, y))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for a, b in (
        (x + 9, y + 9),
        (x @ turn, y @ turn),
        (-7 * x, -7 * y),
        (rng.permutation(x), rng.permutation(y)),
    ):
        np.testing.assert_allclose(values(prdc.prdc(a, b)), plain, atol=1e-12)


def test_prdc_of_swapped_sets_swaps_precision_and_recall():
    x, y = sets(2, shift=0.4)
    estimates, other = prdc.prdc(x, y), prdc.prdc(y, x)
    assert estimates["precision"].value == other["recall"].value != estimates["recall"].value
    assert estimates["recall"].value == other["precision"].value


def test_prdc_distinguishes_mode_collapse_distance_and_equality():
    """Mode collapse has precision without coverage; distant clips have neither."""
    rng = np.random.default_rng(3)
    real = rng.standard_normal((60, 4))
    one = prdc.prdc(0.01 * rng.standard_normal((60, 4)), real)
    assert one["precision"].value == 1 and one["recall"].value == 0
    assert one["coverage"].high < 0.8 and one["density"].value > 1
    far = prdc.prdc(real + 100, real)
    assert values(far) == [0, 0, 0, 0]
    assert 0.03 < far["precision"].high < 0.1  # none of 60 clips inside leaves room for a few
    same = prdc.prdc(real, real)
    assert values(same)[:2] == [1, 1] and same["coverage"].value == 1


@pytest.mark.parametrize("shift, scale, least", [(0.0, 0.8, 0.9), (0.8, 1.0, 0.8)])
def test_prdc_intervals_cover_the_mean_over_draws(shift, scale, least):
    """Cover the mean in 96% of 240 draws and more where the generated clips lie within the real
    ones, and in 89% where the sets lie apart, as `prdc` documents."""
    draws = [prdc.prdc(*sets(seed, 60, 60, 2, shift, scale), k=3) for seed in range(60)]
    table = np.array([values(each) for each in draws])
    for name, mean in zip(prdc.NAMES, table.mean(axis=0), strict=True):
        hits = np.mean([each[name].low <= mean <= each[name].high for each in draws])
        assert hits >= least, name
        arms = np.median([each[name].high - each[name].low for each in draws]) / 3.92
        wide = arms > 2.2 * np.std([each[name].value for each in draws])
        assert not wide or mean > 0.95, name  # Wilson's interval keeps a width near 1


def test_prdc_is_deterministic_and_refuses_large_k():
    x, y = sets(4, 120, 60, shift=0.4)
    songs = np.repeat(np.arange(12), 10)
    assert prdc.prdc(x, y, groups=songs) == prdc.prdc(x, y, groups=songs)
    with pytest.raises(ValueError, match="lower k"):
        prdc.prdc(x, y, k=60)
