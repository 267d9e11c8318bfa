"""Every kind of x_0: standardized, stored exactly, and heard back at the level it had."""

import json

import jax
import librosa
import numpy as np
import pytest

from specdiff_jax.audio import distances, mel, phase
from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.representation import Representation
from specdiff_jax.audio.stft import stft
from tests.helpers import synth

RATE = 16_000
COMMON = {"sample_rate": RATE, "n_fft": 1024, "hop": 256, "frames": 64}
LOG = {"floor_db": -80.0, "griffin_lim_iters": 40}
KINDS = {
    "complex": {"power": 0.5},
    "log_magnitude": LOG,
    "log_mel": LOG | {"n_mels": 96},
    "polar": LOG | {"griffin_lim_iters": 4},
}


def crops(rep, count=6):
    rng = np.random.default_rng(0)
    waves = []
    for _ in range(count):
        wave = synth.chords(110 * 2 ** (rng.integers(0, 30, 5) / 12), 0.25, RATE)
        waves.append(wave[: rep.samples] + 1e-3 * rng.normal(size=rep.samples))
    return np.stack(waves).astype(np.float32)


def fitted(kind, **more):
    rep = Representation(kind=kind, **COMMON, **KINDS[kind], **more)
    return representations.fit(rep, crops(rep))


@pytest.mark.parametrize("kind", KINDS)
def test_x0_has_its_declared_shape_and_unit_statistics_by_band(kind):
    rep = fitted(kind)
    x_0 = np.asarray(rep.encode(crops(rep)))
    assert x_0.shape[1:] == rep.shape
    np.testing.assert_allclose(x_0.mean(axis=(0, 2)), 0, atol=1e-3)
    std = x_0.std(axis=(0, 2))
    if kind == "complex":
        assert std[0, 1] == 0  # the imaginary part of a real signal at 0 Hz
        std[0, 1] = 1
    np.testing.assert_allclose(std, 1, atol=0.01)


def test_global_statistics_keep_the_levels_between_bands():
    by_band, whole = fitted("log_mel"), fitted("log_mel", standardize="global")
    assert np.ptp(whole.std) == 0 and np.ptp(by_band.std) > 0
    x_0 = np.asarray(whole.encode(crops(whole)))
    np.testing.assert_allclose([x_0.mean(), x_0.std()], [0, 1], atol=1e-3)


# Kinds that keep or integrate phases give the wave back; the others only its spectrum.
@pytest.mark.parametrize(
    ("kind", "snr_db", "distance_db"),
    [("complex", 60, 0.5), ("polar", 10, 3), ("log_magnitude", -99, 4), ("log_mel", -99, 12)],
)
def test_round_trip_reaches_its_ceiling(kind, snr_db, distance_db):
    rep = fitted(kind)
    wave = crops(rep)[:2]
    back = np.asarray(jax.jit(lambda w: rep.decode(rep.encode(w)))(wave))
    assert distances.signal_to_noise_db(wave, back) > snr_db
    assert distances.log_spectral_distance_db(wave[0], back[0]) < distance_db


@pytest.mark.parametrize("kind", KINDS)
def test_levels_survive_the_round_trip(kind):
    rep = fitted(kind)
    wave = crops(rep)[:1]
    round_trip = jax.jit(lambda w: rep.decode(rep.encode(w)))
    for gain_db in (0, -12):
        scaled = wave * 10 ** (gain_db / 20)
        level = 20 * np.log10(np.std(round_trip(scaled)) / np.std(scaled))
        assert abs(level) < 1.0, f"{kind} changes the level by {level:.2f} dB at {gain_db} dB"


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_the_same_representation_back(kind):
    rep = fitted(kind)
    back = representations.from_dict(json.loads(json.dumps(representations.to_dict(rep))))
    wave = crops(rep)[:1]
    np.testing.assert_array_equal(rep.encode(wave), back.encode(wave))


def test_mel_filters_equal_librosa():
    ours = mel.filterbank(22_050, 1024, 128)
    theirs = librosa.filters.mel(sr=22_050, n_fft=1024, n_mels=128, norm=1)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_mel_inverse_is_non_negative_and_explains_the_bands():
    magnitude = np.abs(np.random.default_rng(0).normal(size=(1, 513, 8))).astype(np.float32)
    bands = mel.magnitudes_to_mel(magnitude, 22_050, 1024, 64)
    back = mel.mel_to_magnitudes(bands, 22_050, 1024, iterations=200)
    assert (np.asarray(back) >= 0).all()
    again = mel.magnitudes_to_mel(back, 22_050, 1024, 64)
    np.testing.assert_allclose(again, bands, rtol=0.02)


def test_too_many_mel_bands_are_refused():
    with pytest.raises(ValueError, match="n_mels=400"):
        mel.filterbank(22_050, 1024, 400)


def test_integrated_instantaneous_frequency_is_the_phase():
    spec = stft(crops(fitted("polar"))[:1], 1024, 256)
    factors = phase.integrate(phase.instantaneous_frequency(spec, 1024, 256), 1024, 256)
    magnitude = np.abs(spec)
    loud = np.asarray(magnitude > 1e-2)
    np.testing.assert_allclose(
        np.asarray(factors)[loud], (np.asarray(spec) / magnitude)[loud], atol=5e-3
    )


def test_griffin_lim_makes_the_magnitudes_more_consistent():
    wave = crops(fitted("log_magnitude"))[:1]
    magnitude = np.abs(stft(wave, 1024, 256))
    start = phase.random_phase(magnitude.shape)
    errors = []
    for iterations in (0, 8, 64):
        back = phase.griffin_lim(magnitude, start, 1024, 256, iterations)
        errors.append(float(np.mean((np.abs(stft(back, 1024, 256)) - magnitude) ** 2)))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.05 * errors[0]


def test_distances_against_numpy_by_hand():
    wave = crops(fitted("complex"))[0]
    assert distances.log_spectral_distance_db(wave, wave) == 0
    assert distances.signal_to_noise_db(wave, 0.9 * wave) == pytest.approx(20, abs=1e-3)
    loud = np.random.default_rng(0).normal(size=8192).astype(np.float32)  # all bins above floor
    assert distances.log_spectral_distance_db(loud, 2 * loud) == pytest.approx(6.0206, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_stereo_is_each_side_alone(kind):
    """encode and decode of two channels are those of one, side by side in C."""
    rep = Representation(kind=kind, channels=2, **COMMON, **KINDS[kind])
    one = Representation(kind=kind, **COMMON, **KINDS[kind], mean=0.0, std=1.0)
    waves = crops(one)
    pairs = np.stack([waves, waves[::-1]], axis=1)  # [M, A, N]
    stereo = representations.fit(rep, pairs)
    x_0 = stereo.encode(pairs) * stereo.std + stereo.mean
    alone = np.concatenate([one.encode(waves), one.encode(waves[::-1])], axis=-1)
    np.testing.assert_allclose(x_0, alone, atol=2e-4)
    back = stereo.decode(stereo.encode(pairs[:2]))
    assert back.shape == pairs[:2].shape
    if kind == "complex":
        np.testing.assert_allclose(back, pairs[:2], atol=1e-4)
