"""Augmentations: the law each obeys, nothing at zero strength, and separate random numbers."""

import functools
import inspect

import jax
import numpy as np
import pytest

from specdiff_jax.audio import augment as augments
from specdiff_jax.audio.augment import augment, samples_needed, spec_augment

RATE = 16_000
SAMPLES = 8192
KEY = jax.random.key(3)
SETTINGS = {
    "speed": {"semitones": 2.0},
    "time_roll": {"fraction": 1.0},
    "swap": {"probability": 0.5},
    "polarity": {"probability": 0.5},
    "low_pass": {"min_hz": 500.0, "max_hz": 4000.0, "sample_rate": RATE},
    "mix_up": {"max_weight": 0.5},
    "noise": {"min_snr_db": 10.0, "max_snr_db": 30.0},
    "gain": {"db": 6.0},
}
ZERO = {
    "speed": {"semitones": 0.0},
    "time_roll": {"fraction": 0.0},
    "swap": {"probability": 0.0},
    "polarity": {"probability": 0.0},
    "low_pass": {"min_hz": RATE / 2, "max_hz": RATE / 2, "sample_rate": RATE},
    "mix_up": {"max_weight": 0.0},
    "noise": {"min_snr_db": np.inf, "max_snr_db": np.inf},
    "gain": {"db": 0.0},
}


def waves(batch=8, channels=2, samples=SAMPLES, seed=0):
    shape = (batch, channels, samples)
    return 0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def jitted(settings):
    """(wave, key) -> wave, in one program."""
    return jax.jit(functools.partial(augment, settings=settings, samples=SAMPLES))


def changed(name, wave, **parameters):
    """One augmentation alone, as float64."""
    change = jax.jit(functools.partial(augments.AUGMENTATIONS[name], **parameters))
    return np.asarray(change(wave, KEY), np.float64)


def level_db(wave):
    """[B, A, N] -> [B]."""
    return 10 * np.log10(np.mean(np.asarray(wave, np.float64) ** 2, axis=(1, 2)))


def sines(frequencies, samples, phase=0.0):
    """Radians a sample -> float64 sines, the same in both channels.  # [B] -> [B, 2, N]"""
    angle = np.asarray(frequencies)[:, None, None] * np.arange(samples) + phase
    return np.repeat(np.sin(angle), 2, axis=1)


@pytest.mark.parametrize("name", ZERO)
def test_zero_strength_returns_the_input_bit_for_bit(name):
    wave = waves()
    same = np.asarray(jitted({name: ZERO[name]})(wave, KEY))
    np.testing.assert_array_equal(same.view(np.int32), wave.view(np.int32))


@pytest.mark.parametrize("name", SETTINGS)
def test_an_augmentation_is_a_function_of_the_key_with_and_without_jit(name):
    settings = {name: SETTINGS[name]}
    wave = waves(samples=samples_needed(SAMPLES, settings))
    apply = jitted(settings)
    result = apply(wave, KEY)
    assert result.shape == (8, 2, SAMPLES)
    np.testing.assert_array_equal(result, apply(wave, KEY))
    assert not np.array_equal(result, apply(wave, jax.random.key(4)))
    np.testing.assert_allclose(result, augment(wave, KEY, settings, SAMPLES), atol=2e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_items_draw_their_own_numbers(name):
    settings = {name: SETTINGS[name]}
    one = waves(batch=1, samples=samples_needed(SAMPLES, settings))
    other = waves(batch=1, samples=one.shape[-1], seed=1)
    wave = np.tile(np.concatenate([other, one]), (8, 1, 1))  # partners in `mix_up` differ
    result = np.asarray(jitted(settings)(wave, KEY))[1::2]
    distinct = {item.tobytes() for item in result}
    assert len(distinct) == (2 if "probability" in SETTINGS[name] else 8)


def test_switching_one_on_leaves_the_numbers_of_another():
    wave = waves()
    only = {name: {name: SETTINGS[name]} for name in ("gain", "time_roll")}
    rolled, gained = (np.asarray(jitted(only[n])(wave, KEY)) for n in ("time_roll", "gain"))
    both = jitted(only["gain"] | only["time_roll"] | {"noise": None})(wave, KEY)
    ratio = gained[:, :1, :1] / wave[:, :1, :1]
    np.testing.assert_allclose(both, rolled * ratio, rtol=1e-5)


def test_no_two_augmentations_share_random_numbers():
    wave = waves(batch=64)
    flipped, swapped = (
        (np.asarray(jitted({name: SETTINGS[name]})(wave, KEY)) != wave).all(axis=(1, 2))
        for name in ("polarity", "swap")
    )  # [B], at one probability
    assert 16 < np.sum(flipped ^ swapped) < 48


def test_off_cuts_to_length_and_wrong_requests_are_refused():
    wave = waves()
    off = dict.fromkeys(augments.AUGMENTATIONS)
    np.testing.assert_array_equal(augment(wave, KEY, off, 100), wave[..., :100])
    with pytest.raises(ValueError, match="reverb"):
        augment(wave, KEY, {"reverb": {}}, SAMPLES)
    with pytest.raises(ValueError, match="too few"):
        augment(wave, KEY, {"speed": {"semitones": 1.0}}, SAMPLES)


def test_the_settings_tested_here_are_all_there_are():
    for tested in (SETTINGS, ZERO):
        assert list(tested) == list(augments.AUGMENTATIONS)
        for name, parameters in tested.items():
            own = inspect.signature(augments.AUGMENTATIONS[name]).parameters
            assert set(own) - {"wave", "key", "samples"} == set(parameters)


def test_gain_changes_the_level_by_the_drawn_decibels():
    wave = waves(batch=64, samples=256)
    drawn = np.asarray(augments.draw_uniform(KEY, 64, -6.0, 6.0)).ravel()
    result = level_db(changed("gain", wave, db=6.0)) - level_db(wave)
    np.testing.assert_allclose(result, drawn, atol=1e-4)
    assert np.abs(result).max() < 6 and result.min() < -4 and result.max() > 4


def test_polarity_flips_a_fraction_of_whole_items():
    wave = waves(batch=1000, samples=16)
    result = changed("polarity", wave, probability=0.3)
    np.testing.assert_array_equal(np.abs(result), np.abs(wave))
    signs = np.sign(result / wave)
    assert (signs == signs[:, :1, :1]).all()
    assert np.mean(signs[:, 0, 0] < 0) == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 1000))


def test_swap_is_an_involution_of_a_fraction():
    wave = waves(batch=1000, samples=16)
    result = changed("swap", wave, probability=0.3)
    swapped = (result == wave[:, ::-1]).all(axis=(1, 2))
    np.testing.assert_array_equal(result[~swapped], wave[~swapped])
    assert np.mean(swapped) == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 1000))
    twice = changed("swap", changed("swap", wave, probability=0.3), probability=0.3)
    np.testing.assert_array_equal(twice, wave)


def test_time_roll_is_a_rotation_within_its_fraction():
    wave = waves(batch=200, samples=512)
    result = changed("time_roll", wave, fraction=0.25)
    shifts = np.argmax(wave[:, 0] == result[:, 0, :1], axis=-1)  # where the first sample was
    for item, new, shift in zip(wave, result, shifts, strict=True):
        np.testing.assert_array_equal(new, np.roll(item, -shift, axis=-1))
    assert shifts.min() < 10 and 118 < shifts.max() < 128
    np.testing.assert_allclose(np.abs(np.fft.rfft(result)), np.abs(np.fft.rfft(wave)), atol=1e-5)


@pytest.mark.parametrize("semitones", [1.0, 12.0])
def test_speed_moves_a_sinusoid_by_its_factor_and_keeps_its_level(semitones):
    needed = samples_needed(SAMPLES, {"speed": {"semitones": semitones}})
    assert needed == pytest.approx(SAMPLES * 2 ** (semitones / 12), abs=2)
    frequencies = np.linspace(0.02, 0.8 * np.pi / 2 ** (semitones / 12), 8)  # radians a sample
    wave = sines(frequencies, needed, phase=0.7)
    result = changed("speed", wave.astype(np.float32), semitones=semitones, samples=SAMPLES)
    factor = np.asarray(augments.draw_speeds(KEY, 8, semitones)).ravel() / augments.GRID
    inside = slice(20, -20)  # silence lies beyond the ends
    expected = sines(frequencies * factor, SAMPLES, phase=0.7)
    np.testing.assert_allclose(result[..., inside], expected[..., inside], atol=2e-3)
    change = level_db(result[..., inside]) - level_db(expected[..., inside])
    np.testing.assert_allclose(change, 0, atol=0.1)
    pitch = 12 * np.log2(factor)
    assert np.abs(pitch).max() < semitones
    assert pitch.min() < -semitones / 4 and pitch.max() > semitones / 4


def test_speed_holds_exact_positions_late_in_a_long_crop():
    samples, semitones = 2**19, 1.0
    wave = sines([1.0], samples_needed(samples, {"speed": {"semitones": semitones}}))[:, :1]
    result = changed("speed", wave.astype(np.float32), semitones=semitones, samples=samples)
    factor = np.asarray(augments.draw_speeds(KEY, 1, semitones)).ravel() / augments.GRID
    end = slice(-2000, -20)
    np.testing.assert_allclose(
        result[0, 0, end], sines(factor, samples)[0, 0, end], atol=2e-3, err_msg=f"{factor}"
    )


def test_speeding_up_removes_what_would_fold_back():
    semitones = 12.0
    needed = samples_needed(SAMPLES, {"speed": {"semitones": semitones}})
    factor = np.asarray(augments.draw_speeds(KEY, 32, semitones)).ravel() / augments.GRID
    fast = factor > 1.5
    wave = sines(np.full(32, 0.9 * np.pi), needed)  # beyond the new Nyquist frequency of these
    result = changed("speed", wave.astype(np.float32), semitones=semitones, samples=SAMPLES)
    assert fast.sum() > 3
    assert (level_db(result[fast, :, 20:-20]) - level_db(wave[fast])).max() < -60


def test_noise_has_the_requested_snr():
    wave = waves(channels=1, samples=2**15) * np.geomspace(0.01, 1, 8)[:, None, None]
    wave = wave.astype(np.float32)
    added = changed("noise", wave, min_snr_db=20.0, max_snr_db=20.0) - wave
    np.testing.assert_allclose(level_db(wave) - level_db(added), 20, atol=0.2)
    ranged = level_db(wave) - level_db(changed("noise", wave, **SETTINGS["noise"]) - wave)
    assert ranged.min() > 9.8 and ranged.max() < 30.2 and np.ptp(ranged) > 5
    silence = np.zeros((2, 1, 64), np.float32)
    np.testing.assert_array_equal(changed("noise", silence, **SETTINGS["noise"]), silence)


def test_noise_is_white_and_differs_between_channels():
    added = changed("noise", np.ones((16, 2, 4096), np.float32), min_snr_db=0.0, max_snr_db=0.0) - 1
    power = np.mean(np.abs(np.fft.rfft(added)[..., 1:-1]) ** 2, axis=(0, 1)) / 4096
    np.testing.assert_allclose(power.reshape(23, -1).mean(axis=1), 1, atol=0.1)  # 23 * 89 bins
    assert abs(np.mean(added[:, 0] * added[:, 1])) < 0.02


def test_low_pass_stops_above_its_cutoff_and_passes_below_its_edge():
    wave = waves()
    hertz = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    before = np.fft.rfft(wave)
    after = np.fft.rfft(changed("low_pass", wave, min_hz=2e3, max_hz=2e3, sample_rate=RATE))
    above, below = hertz > 2000, hertz < 2000 * augments.EDGE
    energy = lambda spectrum: np.sum(np.abs(spectrum[..., above]) ** 2)
    assert energy(after) < 1e-6 * energy(before)
    np.testing.assert_allclose(after[..., below], before[..., below], atol=1e-4)


def test_low_pass_cutoffs_are_uniform_in_their_logarithm():
    wave = np.zeros((200, 1, 1024), np.float32)
    wave[..., 512] = 1
    result = changed("low_pass", wave, min_hz=500.0, max_hz=4000.0, sample_rate=RATE)
    passed = np.abs(np.fft.rfft(result[:, 0])) > 1e-3
    highest = passed.sum(axis=-1) * RATE / 1024  # to a bin of 16 Hz
    assert highest.min() > 450 and highest.max() <= 4000
    quartiles = np.quantile(np.log2(highest / 500), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.75, 1.5, 2.25], atol=0.35)  # of three octaves


def test_mix_up_is_linear_and_adds_only_the_previous_item():
    one, other = waves(), waves(seed=1)
    mix = functools.partial(changed, "mix_up", max_weight=0.5)
    np.testing.assert_allclose(mix(one + other), mix(one) + mix(other), atol=1e-6)
    impulses = np.eye(8, dtype=np.float32)[:, None]  # item k is 1 at sample k and 0 elsewhere
    result = mix(impulses)[:, 0]
    own, partner = np.diag(result), result[np.arange(8), np.arange(8) - 1]
    weight = partner / (own + partner)
    assert weight.min() >= 0 and weight.max() < 0.5 and np.ptp(weight) > 0.2
    np.testing.assert_allclose(np.sum(result**2, axis=-1), 1, rtol=1e-5)
    assert (np.count_nonzero(result, axis=-1) <= 2).all()


def test_mix_up_keeps_the_level_of_unrelated_items_and_the_shape_of_equal_ones():
    wave = waves(samples=2**15)
    change = level_db(changed("mix_up", wave, max_weight=0.5)) - level_db(wave)
    np.testing.assert_allclose(change, 0, atol=0.1)
    same = np.repeat(wave[:1], 8, axis=0)
    ratio = changed("mix_up", same, max_weight=0.5) / same
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[..., :1], ratio.shape), rtol=1e-4)
    assert ratio.min() >= 1 - 1e-6 and ratio.max() < np.sqrt(2)


def test_spec_augment_hides_at_most_its_bound_and_leaves_the_rest_bit_for_bit():
    x_0 = np.random.default_rng(0).normal(size=(64, 40, 60, 2)).astype(np.float32)
    requested = {"bands": 2, "band_width": 5, "spans": 3, "span_width": 7}
    result = np.asarray(jax.jit(functools.partial(spec_augment, **requested))(x_0, KEY))
    hidden = result == 0
    np.testing.assert_array_equal(result[~hidden], x_0[~hidden])
    bins, frames = hidden.all(axis=(2, 3)), hidden.all(axis=(1, 3))  # [B, F], [B, T]
    np.testing.assert_array_equal(
        hidden[..., 0], bins[:, :, None] | frames[:, None, :], err_msg="not whole bands and spans"
    )
    np.testing.assert_array_equal(hidden[..., 0], hidden[..., 1])
    for mask, count, width in ((bins, 2, 5), (frames, 3, 7)):
        starts = np.diff(mask, axis=1, prepend=False) & mask
        assert starts.sum(axis=1).max() == count and mask.sum(axis=1).max() <= count * width
        assert np.ptp(mask.sum(axis=1)) > width and mask.any(axis=0).all()  # any width, anywhere
    assert len({mask.tobytes() for mask in bins}) > 50


def test_spec_augment_without_masks_or_width_is_the_identity():
    x_0 = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    for bands, width in ((0, 4), (3, 0)):
        np.testing.assert_array_equal(spec_augment(x_0, KEY, bands, width, bands, width), x_0)
