"""Coverage and closed forms of intervals, for independent and for grouped rows."""

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics import bootstrap


def covers(estimate, expected):
    return estimate.low <= expected <= estimate.high


def share_covered(draw, expected, repeats=300):
    rng = np.random.default_rng(0)
    return np.mean([covers(draw(rng), expected) for _ in range(repeats)])


@pytest.mark.parametrize("count", [8, 60])
def test_bootstrap_of_a_mean_covers_as_often_as_student_interval(count):
    """Compare both on the same normal draws, for which Student's interval is exact."""
    draws = np.random.default_rng(0).standard_normal((300, count))
    ours = [covers(bootstrap.bootstrap_interval(of, resamples=500), 0.0) for of in draws]
    errors = draws.std(axis=1, ddof=1) / np.sqrt(count)
    pairs = zip(draws.mean(axis=1), errors, strict=True)
    exact = [covers(bootstrap.student_interval(mean, error, count), 0.0) for mean, error in pairs]
    assert abs(np.mean(ours) - np.mean(exact)) < 0.025
    assert np.mean(exact) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / 300))


def test_bootstrap_counts_clips_of_one_song_once():
    groups = np.repeat(np.arange(20), 10)

    def draw(rng, labels):
        values = rng.standard_normal(20)[groups] + 0.3 * rng.standard_normal(200)
        return bootstrap.bootstrap_interval(values, groups=labels, resamples=500)

    assert 0.915 <= share_covered(lambda rng: draw(rng, groups), 0.0) <= 0.985
    # Without the groups the interval is too narrow.
    assert share_covered(lambda rng: draw(rng, None), 0.0, 60) < 0.6


def test_bootstrap_of_np_mean_equals_bootstrap_of_the_mean():
    values = np.random.default_rng(0).standard_normal(50)
    groups = np.repeat(list("abcdefghij"), 5)
    quick = bootstrap.bootstrap_interval(values, groups=groups)
    slow = bootstrap.bootstrap_interval(values, np.mean, groups=groups)
    np.testing.assert_allclose(
        [quick.value, quick.low, quick.high], [slow.value, slow.low, slow.high], atol=1e-12
    )
    assert quick == bootstrap.bootstrap_interval(values, groups=groups)
    assert quick != bootstrap.bootstrap_interval(values, groups=groups, seed=1)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).standard_normal(40)
    error = bootstrap.jackknife_error(lambda kept: values[kept].mean(), 40, folds=40)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=1e-12)
    groups = np.arange(40) // 4
    error = bootstrap.jackknife_error(lambda kept: values[kept].mean(), 40, groups, folds=40)
    means = values.reshape(10, 4).mean(axis=1)
    assert error == pytest.approx(means.std(ddof=1) / np.sqrt(10), rel=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 30, 81, 100])
def test_wilson_interval_of_a_share_satisfies_its_equation(hits):
    """Each end is the p from which hits / 100 is 1.96 standard errors away."""
    share = hits / 100
    interval = bootstrap.wilson_interval(share, np.sqrt(share * (1 - share) / 100), 100)
    for end in {interval.low, interval.high} - {0.0, 1.0}:
        assert abs(share - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 100), 1e-6)
    assert (interval.low == 0) == (hits == 0) and (interval.high == 1) == (hits == 100)
    assert 0.01 < interval.high - interval.low < 0.2


def test_growing_variance_interval_has_a_longer_upper_arm():
    """Each end is the v from which the value is t standard errors of v away."""
    value, error, size = 0.8, 0.3, 0.9
    interval, plain = (
        bootstrap.growing_variance_interval(value, error, 50, size),
        bootstrap.student_interval(value, error, 50),
    )
    for end in (interval.low, interval.high):
        at_end = error * np.sqrt(1 + (end - value) / size)
        assert abs(value - end) == pytest.approx(2.00957524 * at_end, rel=1e-7)  # t, 49 degrees
    assert plain.low < interval.low < value < plain.high < interval.high


def test_bootstrap_of_one_group_is_refused():
    with pytest.raises(ValueError, match="at least two independent"):
        bootstrap.bootstrap_interval(np.arange(5.0), groups=["a"] * 5)
    with pytest.raises(ValueError, match="2 group labels for 5 rows"):
        bootstrap.bootstrap_interval(np.arange(5.0), groups=["a", "b"])
