"""Statistics of signals with closed forms, and distances against scipy."""

import numpy as np
import pytest
import scipy.signal
from scipy import stats

from specdiff_jax.audio import quality_checks
from specdiff_jax.evaluation.metrics import signal_statistics
from tests.helpers import synth

RATE = 22_050
SECONDS = 3
TIME = np.arange(SECONDS * RATE) / RATE
SILENT = np.zeros(SECONDS * RATE)


def sine(hertz, amplitude=1.0, rate=RATE, seconds=SECONDS):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate)


def noise(seed=0, clips=1, amplitude=0.1):
    return amplitude * np.random.default_rng(seed).standard_normal((clips, SECONDS * RATE))


def of(wave, rate=RATE):
    """Return the statistics of one clip."""
    return {
        name: values[0]
        for name, values in signal_statistics.measure_statistics(
            np.asarray(wave)[None], rate
        ).items()
    }


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_loudness_of_the_standard_sine_is_minus_three_lufs(rate):
    """Measure 997 Hz at 0 dBFS in one channel (BS.1770-4); low rates bend the bilinear shelf."""
    near = 0.01 if rate > 40_000 else 0.04
    statistics = of(sine(997, rate=rate), rate)
    assert statistics["loudness_lufs"] == pytest.approx(-3.01, abs=near)
    assert statistics["rms_db"] == pytest.approx(-3.0103, abs=1e-3)
    both = of(np.stack([sine(997, rate=rate)] * 2), rate)
    assert both["loudness_lufs"] == pytest.approx(0.0, abs=near)


def test_loudness_filters_equal_the_table_of_the_standard():
    shelf, high_pass = signal_statistics.build_meter(48_000)._filters.values()
    table = [1.53512485958697, -2.69169619940638, 1.19839281085285]
    np.testing.assert_allclose(shelf.b / shelf.a[0], table, atol=1e-8)
    np.testing.assert_allclose(shelf.a / shelf.a[0], [1, -1.69065929318241, 0.73248077421585])
    np.testing.assert_allclose(high_pass.b / high_pass.b[0], [1, -2, 1])
    np.testing.assert_allclose(
        high_pass.a / high_pass.a[0], [1, -1.99004745483398, 0.99007225036621]
    )


def loudness_by_definition(wave, sample_rate):
    """Return the loudness of whole blocks (BS.1770-4, eqs. 1 to 7).  # [A, N] -> LUFS"""
    for stage in signal_statistics.build_meter(sample_rate)._filters.values():
        wave = scipy.signal.lfilter(stage.b, stage.a, wave, axis=-1)
    block, step = round(0.4 * sample_rate), round(0.1 * sample_rate)
    first = range(0, wave.shape[1] - block + 1, step)
    power = np.array([np.square(wave[:, n : n + block]).mean(axis=1).sum() for n in first])
    level = lambda mean_square: -0.691 + 10 * np.log10(np.maximum(mean_square, 1e-20))
    power = power[level(power) > -70]
    return level(power[level(power) > level(power.mean()) - 10].mean())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 48_000])
@pytest.mark.parametrize("extra", [0, 1500])
def test_loudness_of_whole_blocks_equals_the_definition(channels, rate, extra):
    """Noise steps over both gates; a partial block at the end does not count."""
    rng = np.random.default_rng(0)
    level = np.repeat([0.3, 0.001, 0.1, 1e-6, 0.02], rate)
    level = np.append(level, np.full(extra, 0.02))
    wave = rng.standard_normal((channels, len(level))) * level * 0.3
    expected = loudness_by_definition(wave, rate)
    assert signal_statistics.loudness_lufs(wave, rate) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gain_db", [-20.0, -6.0])
def test_gain_changes_levels_and_nothing_else(gain_db):
    wave = 0.3 * synth.chords([220.0, 330.0, 247.0, 277.0, 196.0, 294.0], 0.5, RATE)
    plain, quiet = of(wave), of(wave.astype(np.float64) * 10 ** (gain_db / 20))
    for name in ("rms_db", "loudness_lufs"):
        assert quiet.pop(name) - plain.pop(name) == pytest.approx(gain_db, abs=1e-6)
    for name in ("onsets_per_second", "centroid_hz", "chroma_entropy", "flatness_db"):
        assert quiet[name] == pytest.approx(plain[name], rel=0.02)


def test_flatness_of_white_noise_is_exp_minus_gamma_and_of_a_tone_zero():
    power = np.concatenate([signal_statistics.power_spectrogram(wave) for wave in noise(clips=4)])
    assert signal_statistics.flatness(power) == pytest.approx(np.exp(-np.euler_gamma), rel=5e-3)
    assert signal_statistics.flatness(signal_statistics.power_spectrogram(sine(440))) < 1e-4
    assert of(noise()[0])["flatness_db"] == pytest.approx(-2.507, abs=0.05)


def test_power_spectrogram_of_white_noise_has_its_variance():
    assert signal_statistics.power_spectrogram(noise()[0]).mean() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("hertz", [200, 1000, 8000])
def test_centroid_of_a_sine_is_its_frequency_and_of_noise_half_of_nyquist(hertz):
    assert of(sine(hertz, 0.5))["centroid_hz"] == pytest.approx(hertz, rel=0.01)
    assert of(noise()[0])["centroid_hz"] == pytest.approx(RATE / 4, rel=0.01)


@pytest.mark.parametrize("rate_of_clicks", [1, 2, 4, 8])
def test_find_onsets_counts_every_click(rate_of_clicks):
    """Bursts of noise decay; the first comes after half a period, clear of the cut."""
    period = RATE / rate_of_clicks
    starts = np.rint(period * (0.5 + np.arange(SECONDS * rate_of_clicks))).astype(int)
    wave, decay = SILENT.copy(), np.exp(-np.arange(2000) / 300)
    for start in starts:
        part = wave[start : start + 2000]
        part += (noise(start)[0, :2000] * decay)[: len(part)]
    assert of(wave)["onsets_per_second"] == pytest.approx(rate_of_clicks, abs=1e-9)
    places = signal_statistics.find_onsets(signal_statistics.power_spectrogram(wave), RATE)
    early = signal_statistics.FRAME / RATE  # a frame reaches ahead
    late = starts / RATE - places * signal_statistics.HOP / RATE
    assert (late > -0.01).all() and (late < early + 0.01).all()


def test_find_onsets_counts_notes_and_none_in_a_steady_tone():
    notes = 0.5 * synth.chords([220, 330, 247, 277, 196, 294], 0.5, RATE)
    assert 1.5 <= of(notes)["onsets_per_second"] <= 2.0  # five or six in three seconds
    assert of(sine(440, 0.3))["onsets_per_second"] == 0


def test_chroma_entropy_equals_that_of_the_notes():
    note = lambda k: sine(440 * 2 ** (k / 12), 0.05)
    entropy = lambda notes: of(sum(map(note, notes)))["chroma_entropy"]
    assert entropy([0]) == pytest.approx(0, abs=1e-3)
    assert entropy([0, 12, -12]) == pytest.approx(0, abs=1e-3)  # octaves are one class
    assert entropy([0, 4, 7]) == pytest.approx(np.log(3), abs=0.01)
    assert entropy(range(6, 18)) == pytest.approx(np.log(12), abs=0.01)
    assert of(noise()[0])["chroma_entropy"] == pytest.approx(np.log(12), abs=0.05)


def test_bandwidth_equals_the_cutoff_and_that_of_quality_checks():
    half = sine(100, 0.1)
    spectrum = np.fft.rfft(noise()[0])
    spectrum[np.fft.rfftfreq(len(half), 1 / RATE) > 5000] = 0
    wave = np.fft.irfft(spectrum, len(half))
    theirs = quality_checks.combine_blocks(
        [quality_checks.measure_block(wave[None].astype(np.float32), RATE)], len(half)
    )
    assert of(wave)["bandwidth_hz"] == pytest.approx(
        5000, abs=2 * RATE / 2 / signal_statistics.BANDS
    )
    assert of(wave)["bandwidth_hz"] == pytest.approx(theirs["bandwidth_hz"], abs=RATE / 256)
    assert of(noise()[0])["bandwidth_hz"] == RATE / 2


@pytest.mark.parametrize("seed", range(3))
def test_clipped_and_silent_fractions_equal_those_of_quality_checks(seed):
    rng = np.random.default_rng(seed)
    wave = noise(seed)[0].astype(np.float32)
    for start in rng.integers(0, len(wave) - 9, 60):
        wave[start : start + rng.integers(1, 7)] = rng.choice([-1, 1])
    wave[: RATE // 2] *= 1e-5
    theirs = quality_checks.combine_blocks(
        [quality_checks.measure_block(wave[None], RATE)], len(wave)
    )
    statistics = of(wave)
    assert statistics["clipped_fraction"] == pytest.approx(theirs["clipped_fraction"], rel=1e-12)
    assert theirs["clipped_fraction"] > 0
    assert statistics["silent_fraction"] == pytest.approx(theirs["silent_fraction"], abs=0.02)


def test_clipped_fraction_counts_samples_beyond_full_scale():
    """|1.5 sin| > 1 for 53.5 % of the time."""
    loud = of(sine(50, 1.5))["clipped_fraction"]
    assert loud == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 1.5), abs=0.01)
    assert of(sine(50, 0.99))["clipped_fraction"] == 0


def test_stereo_width_of_mono_is_zero_and_of_opposite_channels_one():
    left, right = noise(clips=2)
    width = lambda a, b: of(np.stack([a, b]))["stereo_width"]
    assert width(left, left) == 0 and width(left, -left) == 1
    assert width(left, right) == pytest.approx(0.5, abs=0.01)
    assert "stereo_width" not in of(left)


def test_statistics_of_silence_are_nan_where_undefined():
    statistics = of(SILENT)
    assert statistics["silent_fraction"] == 1 and statistics["onsets_per_second"] == 0
    assert (
        statistics["rms_db"] == -120
        and statistics["loudness_lufs"] == signal_statistics.ABSOLUTE_GATE
    )
    assert all(
        np.isnan(statistics[name]) for name in ("flatness_db", "centroid_hz", "chroma_entropy")
    )


def test_statistics_of_a_clip_depend_on_no_other_clip():
    waves = np.concatenate([noise(), sine(440, 0.2)[None], SILENT[None]])
    together = signal_statistics.measure_statistics(waves, RATE)
    for k, wave in enumerate(waves):
        for name, value in of(wave).items():
            np.testing.assert_array_equal(together[name][k], value)
    with pytest.raises(ValueError, match=r"clips \[1\] hold NaN"):
        signal_statistics.measure_statistics(np.stack([SILENT, SILENT * np.nan]), RATE)


def rows(ours, theirs, **settings):
    return signal_statistics.compare_statistics(
        {"x": np.array(ours)}, {"x": np.array(theirs)}, **settings
    )[0]


def test_compare_statistics_of_a_shift_is_the_shift():
    """Wasserstein-1 between a distribution and its shift by s standard deviations is s."""
    real = np.random.default_rng(0).normal(5, 2, 400)
    row = rows(real + 1.5 * real.std(ddof=1), real)
    assert row["distance"] == pytest.approx(1.5)
    assert row["low"] < 1.5 < row["high"] and row["low"] > row["chance"] > 0
    assert row["ks"] == stats.ks_2samp(real + 1.5 * real.std(ddof=1), real).statistic
    assert row["high"] - row["low"] < 0.6


def test_signal_distance_covers_its_expectation():
    """N(1, 1) is 1 from N(0, 1): 95 % intervals cover it; equals rarely exceed chance."""
    rng = np.random.default_rng(1)
    draws = [rng.standard_normal((3, 80)) for _ in range(40)]
    far = [rows(a + 1, b, resamples=100) for a, b, _ in draws]
    assert sum(row["low"] <= 1 <= row["high"] for row in far) >= 33
    equal = [rows(a, b, resamples=100) for a, b, _ in draws]
    assert sum(row["distance"] > row["chance"] for row in equal) <= 7


def test_compare_statistics_counts_nan_and_allows_constants():
    assert rows([0.0, 0, 0], [0.0, 0, 0])["distance"] == 0
    assert rows([0.0, 1, 0], [0.0, 0, 0])["distance"] == np.inf
    row = rows([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])
    assert (row["clips"], row["real_clips"], row["undefined"]) == (2, 3, 1)
    assert "distance" not in rows([np.nan, 1.0], [1.0, 2.0])
    again = [rows([1.0, 5, 2], [1.0, 2, 3], seed=3) for _ in range(2)]
    assert again[0] == again[1]
