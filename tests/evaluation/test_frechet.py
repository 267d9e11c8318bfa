"""The Fréchet distance against closed forms, and FAD-infinity against the exact distance."""

import numpy as np
import pytest
import scipy.linalg

from specdiff_jax.evaluation.metrics import bootstrap, frechet

D = 6


def rotation(rng, d=D):
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def covariance(rng, d=D):
    root = rng.standard_normal((d, d))
    return root @ root.T


def test_frechet_distance_of_scalars_equals_the_closed_form():
    a, b = (np.array([3.0]), np.array([[4.0]])), (np.array([-1.0]), np.array([[0.25]]))
    assert frechet.frechet_distance(a, b) == pytest.approx(16 + (2 - 0.5) ** 2, abs=1e-12)


@pytest.mark.parametrize("null", [0, 2])
def test_frechet_distance_with_common_axes_equals_the_closed_form(null):
    """The closed form is |m_a - m_b|^2 + sum (s_a - s_b)^2, also with null directions."""
    rng = np.random.default_rng(0)
    axes = rotation(rng, 40)
    s_a, s_b = rng.uniform(0.01, 3, (2, 40))
    s_a[:null] = 0
    m_a, m_b = rng.standard_normal((2, 40))
    a, b = ((m, axes * s**2 @ axes.T) for m, s in ((m_a, s_a), (m_b, s_b)))
    exact = np.sum((m_a - m_b) ** 2) + np.sum((s_a - s_b) ** 2)
    assert frechet.frechet_distance(a, b) == pytest.approx(exact, abs=1e-9)


def test_frechet_distance_equals_scipy_sqrtm():
    rng = np.random.default_rng(1)
    for _ in range(5):
        (m_a, A), (m_b, B) = ((rng.standard_normal(D), covariance(rng)) for _ in range(2))
        root = scipy.linalg.sqrtm(A @ B).real
        exact = np.sum((m_a - m_b) ** 2) + np.trace(A + B - 2 * root)
        assert frechet.frechet_distance((m_a, A), (m_b, B)) == pytest.approx(exact, abs=1e-6)


def test_frechet_distance_is_symmetric_and_zero_only_between_equals():
    rng = np.random.default_rng(2)
    a, b = ((rng.standard_normal(D), covariance(rng)) for _ in range(2))
    assert frechet.frechet_distance(a, b) == pytest.approx(
        frechet.frechet_distance(b, a), rel=1e-12
    )
    assert abs(frechet.frechet_distance(a, a)) < 1e-12 * np.trace(a[1]) * D
    assert frechet.frechet_distance(a, (a[0], 1.1 * a[1])) > 0.001


def sets(rng, n=60, m=80, d=D, scale=1.5, shift=0.4):
    return scale * rng.standard_normal((n, d)) + shift, rng.standard_normal((m, d))


@pytest.mark.parametrize("measure", [frechet.fad, frechet.fad_inf])
def test_fad_is_invariant_to_shift_and_rotation_and_scales_with_the_square(measure):
    rng = np.random.default_rng(3)
    x, y = sets(rng)
    plain, turn, shift = measure(x, y), rotation(rng), 10 * rng.standard_normal(D)
    for estimate, factor in (
        (measure(x + shift, y + shift), 1),
        (measure(x @ turn, y @ turn), 1),
        (measure(-3 * x, -3 * y), 9),
    ):
        for end in ("value", "low", "high"):
            assert getattr(estimate, end) == pytest.approx(factor * getattr(plain, end), rel=1e-9)


def test_fad_ignores_the_order_of_clips_and_fad_inf_does_within_its_interval():
    rng = np.random.default_rng(4)
    x, y = sets(rng)
    order = rng.permutation(len(x))
    assert frechet.fad(x[order], y).value == pytest.approx(frechet.fad(x, y).value, rel=1e-12)
    estimate, other = frechet.fad_inf(x, y), frechet.fad_inf(x[order], y)
    assert abs(estimate.value - other.value) < 0.3 * (estimate.high - estimate.low)
    assert estimate == frechet.fad_inf(x, y) != frechet.fad_inf(x, y, seed=1)


def test_fad_standard_error_equals_the_leave_one_out_jackknife():
    """The closed form is near the error from leaving out each clip in turn."""
    x, y = sets(np.random.default_rng(5), 200, 300)
    real = frechet.fit_gaussian(y)
    less = [
        frechet.frechet_distance(frechet.fit_gaussian(np.delete(x, i, 0)), real) for i in range(200)
    ]
    generated = frechet.fit_gaussian(x)
    less_y = [
        frechet.frechet_distance(generated, frechet.fit_gaussian(np.delete(y, i, 0)))
        for i in range(300)
    ]
    exact = np.sqrt(199 * np.var(less) + 299 * np.var(less_y))
    assert frechet.fad_standard_error(x, y, None, None)[0] == pytest.approx(exact, rel=0.03)


@pytest.mark.slow
def test_fad_inf_interval_covers_zero_at_600_by_64():
    """Two samples of one Gaussian: FAD is 3.7; subsets with replacement would give 1.37."""
    rng = np.random.default_rng(6)
    estimates = [frechet.fad_inf(*rng.standard_normal((2, 600, 64))) for _ in range(3)]
    assert sum(e.low <= 0 <= e.high for e in estimates) == 3
    assert max(e.high - e.low for e in estimates) < 1.0  # not by being wide
    assert frechet.fad(*rng.standard_normal((2, 600, 64))).low > 3


@pytest.mark.parametrize(
    "n, m, scale, shift, least",
    [(60, 200, 1, 0, 0.96), (100, 60, 1.5, 0.4, 0.9), (12, 12, 1, 0, 0.96)],
)
def test_fad_inf_interval_covers_the_expectation(n, m, scale, shift, least):
    """Cover it in 95% of draws, at zero in more (see fad_inf), without bias."""
    rng = np.random.default_rng(7)
    d = 4
    expected = d * ((scale - 1) ** 2 + shift**2)
    estimates = [frechet.fad_inf(*sets(rng, n, m, d, scale, shift)) for _ in range(100)]
    assert np.mean([e.low <= expected <= e.high for e in estimates]) >= least
    values = np.array([e.value for e in estimates])
    assert abs(values.mean() - expected) < 3.5 * values.std() / np.sqrt(100)
    arms = np.median([(e.high - e.low) / (2 * bootstrap.Z) for e in estimates])
    assert arms < 2 * values.std()  # measured: 1.8 at zero, for the reason in fad_inf


def test_fad_inf_counts_windows_of_one_clip_once():
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(60), 6)

    def draw():
        x = np.sqrt(0.8) * rng.standard_normal((60, 4))[groups]
        return x + np.sqrt(0.2) * rng.standard_normal((360, 4)), rng.standard_normal((300, 4))

    pairs = [draw() for _ in range(40)]
    grouped = [frechet.fad_inf(*pair, groups=groups).low <= 0 for pair in pairs]
    single = [frechet.fad_inf(*pair).low <= 0 for pair in pairs]
    assert np.mean(grouped) > 0.92 and np.mean(single) < 0.7


def test_fad_inf_of_grouped_clips_is_unbiased():
    """The regression is in 1 / songs: clips alone would be numerous enough."""
    rng, groups = np.random.default_rng(12), np.repeat(np.arange(50), 8)

    def draw():
        x = np.sqrt(0.7) * rng.standard_normal((50, 6))[groups]
        return x + np.sqrt(0.3) * rng.standard_normal((400, 6))

    labels = {"groups": groups, "reference_groups": groups}
    estimates = [frechet.fad_inf(draw(), draw(), **labels) for _ in range(60)]
    values = np.array([e.value for e in estimates])
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(60)
    assert np.mean([e.low <= 0 <= e.high for e in estimates]) >= 0.93
    few = {"groups": groups, "reference_groups": groups % 8}
    with pytest.raises(ValueError, match="8 reference songs of 6 numbers .* at least 9"):
        frechet.fad_inf(draw(), draw(), **few)


@pytest.mark.parametrize("measure, needed", [(frechet.fad, 9), (frechet.fad_inf, 11)])
def test_fad_refuses_too_few_vectors_and_flags_few(measure, needed):
    rng = np.random.default_rng(9)
    many, few = rng.standard_normal((80, 8)), rng.standard_normal((needed - 1, 8))
    with pytest.raises(ValueError, match=f"{needed - 1} generated .* at least {needed}"):
        measure(few, many)
    with pytest.raises(ValueError, match=f"{needed - 1} reference .* at least {needed}"):
        measure(many, few)
    assert np.isfinite(measure(many, many[:20]).high)
    assert frechet.has_few_vectors(many[:79], many) and frechet.has_few_vectors(many, many[:79])
    assert not frechet.has_few_vectors(many, many)


def test_fad_refuses_vectors_of_nan_or_unequal_width():
    x = np.random.default_rng(10).standard_normal((20, 4))
    bad = x.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ValueError, match="embedding 7 is not finite"):
        frechet.fad(x, bad)
    with pytest.raises(ValueError, match="of 4 and of 3 numbers"):
        frechet.fad(x, x[:, :3])


def test_fad_is_unchanged_by_a_constant_dimension():
    x, y = sets(np.random.default_rng(11))
    dead = [np.hstack([of, np.full((len(of), 1), 0.1)]) for of in (x, y)]
    assert frechet.fad(*dead).value == pytest.approx(frechet.fad(x, y).value, rel=1e-9)
    assert frechet.fad_inf(*dead).value == pytest.approx(frechet.fad_inf(x, y).value, rel=1e-6)
