"""Precision, recall, density and coverage against their definitions and closed forms."""

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics import prdc


def by_hand(x, y, k):
    """The four from the definitions, ball by ball."""
    reach = lambda set_: [
        sorted(np.linalg.norm(v - w) for j, w in enumerate(set_) if j != i)[k - 1]
        for i, v in enumerate(set_)
    ]
    real, made = reach(y), reach(x)
    inside = np.array(
        [[np.linalg.norm(a - b) <= r for b, r in zip(y, real, strict=True)] for a in x]
    )
    back = np.array([[np.linalg.norm(a - b) <= r for a, r in zip(x, made, strict=True)] for b in y])
    precision, recall = inside.any(axis=1).mean(), back.any(axis=1).mean()
    return [precision, recall, inside.sum() / (k * len(x)), inside.any(axis=0).mean()]


def sets(seed, n=40, m=30, d=3, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


def values(found):
    return [found[name].value for name in prdc.NAMES]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_the_definitions(k):
    x, y = sets(0, shift=0.7)
    found = values(prdc.prdc(x, y, k))
    np.testing.assert_allclose(found, by_hand(x, y, k), atol=1e-12)


@pytest.mark.parametrize("d", [1, 16])
def test_prdc_of_equal_distributions_is_the_expected_one(d):
    """Naeem et al. 2020: whatever the distribution and its dimension."""
    k, n, m = 3, 25, 40
    all_kept = np.ones(n, bool), np.ones(m, bool)
    found = []
    for seed in range(200):
        x, y = sets(seed, n, m, d)
        squared = (prdc.squared_distances(*pair) for pair in ((x, x), (y, y), (x, y)))
        found.append(prdc.prdc_values(*squared, *all_kept, k)[2:])
    error = np.std(found, axis=0) / np.sqrt(200)
    expected = [1.0, prdc.expected_coverage(n, m, k)]
    assert (np.abs(np.mean(found, axis=0) - expected) < 3.5 * error).all()
    assert (error < 0.04).all()


def test_the_expected_coverage_is_the_paper_s_number():
    """k = 5 gives 0.969 with endless clips, 1 - 2^-5, the paper's reason for k = 5."""
    assert prdc.expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    assert prdc.expected_coverage(10_000, 10_000, 5) > 0.95


def test_moving_turning_scaling_and_reordering_both_change_nothing():
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


def test_changing_the_sets_round_swaps_precision_and_recall():
    x, y = sets(2, shift=0.4)
    found, other = prdc.prdc(x, y), prdc.prdc(y, x)
    assert found["precision"].value == other["recall"].value != found["recall"].value
    assert found["recall"].value == other["precision"].value


def test_what_they_tell_apart():
    """One good clip over and over is precise and covers nothing; far away is neither."""
    rng = np.random.default_rng(3)
    real = rng.standard_normal((60, 4))
    one = prdc.prdc(0.01 * rng.standard_normal((60, 4)), real)
    assert one["precision"].value == 1 and one["recall"].value == 0
    assert one["coverage"].high < 0.8 and one["density"].value > 1
    far = prdc.prdc(real + 100, real)
    assert values(far) == [0, 0, 0, 0]
    assert 0.03 < far["precision"].high < 0.1  # of 60 clips none inside: not surely none
    copies = prdc.prdc(real, real)
    assert values(copies)[:2] == [1, 1] and copies["coverage"].value == 1


@pytest.mark.parametrize("shift, scale, least", [(0.0, 0.8, 0.9), (0.8, 1.0, 0.8)])
def test_intervals_cover_what_other_clips_would_give(shift, scale, least):
    """The mean over draws of as many clips is inside: in 96% of 240 draws and more where the
    generated clips lie within; in 89% only where the sets lie apart, as `prdc` documents."""
    found = [prdc.prdc(*sets(seed, 60, 60, 2, shift, scale), k=3) for seed in range(60)]
    table = np.array([values(each) for each in found])
    for name, mean in zip(prdc.NAMES, table.mean(axis=0), strict=True):
        hits = np.mean([each[name].low <= mean <= each[name].high for each in found])
        assert hits >= least, name
        arms = np.median([each[name].high - each[name].low for each in found]) / 3.92
        wide = arms > 2.2 * np.std([each[name].value for each in found])
        assert not wide or mean > 0.95, name  # near 1 Wilson's never shrinks to nothing


def test_reruns_are_equal_and_songs_widen():
    x, y = sets(4, 120, 60, shift=0.4)
    songs = np.repeat(np.arange(12), 10)
    found = prdc.prdc(x, y, groups=songs)
    assert found == prdc.prdc(x, y, groups=songs)
    with pytest.raises(ValueError, match="lower k"):
        prdc.prdc(x, y, k=60)
