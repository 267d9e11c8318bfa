"""Intervals cover the truth as often as they say, whatever hangs together."""

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics import bootstrap


def covers(found, truth):
    return found.low <= truth <= found.high


def share_covered(draw, truth, repeats=300):
    rng = np.random.default_rng(0)
    return np.mean([covers(draw(rng), truth) for _ in range(repeats)])


@pytest.mark.parametrize("count", [8, 60])
def test_the_bootstrap_of_a_mean_covers_as_often_as_student_s_interval(count):
    """Of normal values, where Student's is exact; on the same draws, so that both share luck."""
    draws = np.random.default_rng(0).standard_normal((300, count))
    ours = [covers(bootstrap.bootstrap_interval(of, resamples=500), 0.0) for of in draws]
    errors = draws.std(axis=1, ddof=1) / np.sqrt(count)
    pairs = zip(draws.mean(axis=1), errors, strict=True)
    exact = [covers(bootstrap.student_interval(mean, error, count), 0.0) for mean, error in pairs]
    assert abs(np.mean(ours) - np.mean(exact)) < 0.025
    assert np.mean(exact) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / 300))


def test_bootstrap_counts_clips_of_one_song_once():
    groups = np.repeat(np.arange(20), 10)

    def draw(rng, groups_told):
        values = rng.standard_normal(20)[groups] + 0.3 * rng.standard_normal(200)
        return bootstrap.bootstrap_interval(values, groups=groups_told, resamples=500)

    assert 0.915 <= share_covered(lambda rng: draw(rng, groups), 0.0) <= 0.985
    assert (
        share_covered(lambda rng: draw(rng, None), 0.0, 60) < 0.6
    )  # what is wrong with clips alone


def test_a_given_statistic_and_the_mean_agree():
    values = np.random.default_rng(0).standard_normal(50)
    groups = np.repeat(list("abcdefghij"), 5)
    quick = bootstrap.bootstrap_interval(values, groups=groups)
    slow = bootstrap.bootstrap_interval(values, np.mean, groups=groups)
    np.testing.assert_allclose(
        [quick.value, quick.low, quick.high], [slow.value, slow.low, slow.high], atol=1e-12
    )
    assert quick == bootstrap.bootstrap_interval(values, groups=groups)
    assert quick != bootstrap.bootstrap_interval(values, groups=groups, seed=1)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).standard_normal(40)
    error = bootstrap.jackknife_error(lambda kept: values[kept].mean(), 40, folds=40)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=1e-12)
    groups = np.arange(40) // 4
    error = bootstrap.jackknife_error(lambda kept: values[kept].mean(), 40, groups, folds=40)
    means = values.reshape(10, 4).mean(axis=1)
    assert error == pytest.approx(means.std(ddof=1) / np.sqrt(10), rel=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 30, 81, 100])
def test_shares_have_wilson_s_interval(hits):
    """The ends are the p that hits / 100 is 1.96 standard errors away from."""
    share = hits / 100
    found = bootstrap.wilson_interval(share, np.sqrt(share * (1 - share) / 100), 100)
    for end in {found.low, found.high} - {0.0, 1.0}:
        assert abs(share - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 100), 1e-6)
    assert (found.low == 0) == (hits == 0) and (found.high == 1) == (hits == 100)
    assert 0.01 < found.high - found.low < 0.2


def test_an_error_that_grows_with_the_number_lengthens_the_upper_arm():
    """The ends are the v that the value is t errors of v away from, as by definition."""
    value, error, size = 0.8, 0.3, 0.9
    found, plain = (
        bootstrap.growing_variance_interval(value, error, 50, size),
        bootstrap.student_interval(value, error, 50),
    )
    for end in (found.low, found.high):
        at_end = error * np.sqrt(1 + (end - value) / size)
        assert abs(value - end) == pytest.approx(2.00957524 * at_end, rel=1e-7)  # t, 49 degrees
    assert plain.low < found.low < value < plain.high < found.high


def test_one_song_has_no_interval():
    with pytest.raises(ValueError, match="at least two independent"):
        bootstrap.bootstrap_interval(np.arange(5.0), groups=["a"] * 5)
    with pytest.raises(ValueError, match="2 group labels for 5 rows"):
        bootstrap.bootstrap_interval(np.arange(5.0), groups=["a", "b"])
