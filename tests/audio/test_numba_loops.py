"""Compiled loops give what numpy gives in many passes."""

import numpy as np
import pytest

from specdiff_jax.audio import files, numba_loops


@pytest.mark.parametrize("size", [0, 5, 24, 1000])
def test_rows_are_added_and_squared(size):
    line = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    total = np.ones(24)
    squares = numba_loops.add_rows(line, total)
    rows = np.zeros((-(-size // 24), 24))
    rows.reshape(-1)[:size] = line
    np.testing.assert_allclose(total, 1 + rows.sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(squares, np.sum(line.astype(float) ** 2), rtol=1e-12)


def test_pairs_become_their_means():
    pairs = np.random.default_rng(0).standard_normal((1001, 2)).astype(np.float32)
    np.testing.assert_allclose(
        numba_loops.average_pairs(pairs.reshape(-1)), pairs.mean(axis=1), 1e-6
    )


def test_samples_are_rounded_as_numpy_rounds_them():
    wave = np.random.default_rng(0).uniform(-1.2, 1.2, 10_000).astype(np.float32)
    halves = (np.arange(-40_000, 40_000) + 0.5).astype(np.float32) / 32768
    wave = np.concatenate([wave, halves, np.float32([0, -0.0, 1, -1, 1e9, -1e9])])
    np.testing.assert_array_equal(numba_loops.round_to_int16(wave), files.to_int16(wave))


@pytest.mark.parametrize("rates", [(22050, 4096), (44100, 4096), (3000, 4096), (4096, 4096)])
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_each_new_sample_is_the_weighted_sum_from_its_place_on(rates, kind):
    rate, new_rate = rates
    rng = np.random.default_rng(0)
    taps = rng.standard_normal((8, 6)).astype(np.float32)
    wave = (100 * rng.standard_normal(999)).astype(kind)
    output = numba_loops.resample(np.pad(wave, (0, 5)), taps, rate, new_rate)
    assert len(output) == 999 * new_rate // rate
    wave = np.append(wave, np.zeros(5, kind)).astype(float)
    for index, value in enumerate(output):
        whole, rest = divmod(index * rate, new_rate)
        near = wave[whole : whole + 6]
        assert value == pytest.approx(near @ taps[rest * 8 // new_rate], abs=1e-3)
