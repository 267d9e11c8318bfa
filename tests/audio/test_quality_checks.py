"""The facts of a sound are those of signals known by heart, however its blocks are cut."""

import io
import itertools

import numpy as np
import pytest
import soundfile
import soxr

from specdiff_jax.audio import quality_checks

RATE = 44100


def facts_of(wave, rate=RATE, cuts=(), claimed=None):
    """Facts of [N] or [channels, N], cut before the samples in `cuts`."""
    wave = np.atleast_2d(np.asarray(wave, np.float32))
    blocks = np.split(wave, cuts, axis=1)
    return quality_checks.combine_blocks(
        [quality_checks.measure_block(b, rate) for b in blocks], claimed or wave.shape[1]
    )


def sine(hertz, seconds=2.0, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def noise(seconds, rate=RATE, channels=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, round(seconds * rate)))


def in_long_runs(line, least):
    """Samples in runs of equal non-zero values, counted one by one."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(line)]
    return sum(length for value, length in runs if value and length >= least)


@pytest.fixture
def troubled():
    """Two channels with clipped runs, silences, an offset, NaN and infinity at random places."""
    rng = np.random.default_rng(1)
    wave = noise(4, channels=2).astype(np.float32) + np.float32([[0.01], [-0.03]])
    for start in rng.integers(0, wave.shape[1] - 5000, 40):
        wave[start % 2, start : start + rng.integers(1, 9)] = rng.choice([-1, 1])
        wave[:, start + 50 : start + 50 + rng.integers(1500, 3000)] *= 1e-4
    wave[0, [7, 70000]], wave[1, 3] = np.nan, -np.inf
    return wave


@pytest.mark.parametrize("seed", range(6))
def test_cuts_change_nothing(troubled, seed):
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, troubled.shape[1], (1, 3, 50, 300)[seed % 4]))
    cuts = np.append(cuts, cuts[-1] + np.arange(6))  # blocks of one sample, and an empty one
    whole, parts = facts_of(troubled), facts_of(troubled, cuts=cuts)
    exact = ("non_finite", "clipped_fraction", "silent_fraction", "peak", "seconds", "channels")
    assert {key: parts[key] for key in exact} == {key: whole[key] for key in exact}
    assert parts["rms_db"] == pytest.approx(whole["rms_db"], abs=1e-9)
    assert parts["dc"] == pytest.approx(whole["dc"], abs=1e-12)
    assert whole["clipped_fraction"] > 0 and whole["silent_fraction"] > 0


def test_runs_are_those_that_counting_finds(troubled):
    facts, wave = facts_of(troubled), np.nan_to_num(troubled, posinf=0, neginf=0)
    full = np.where(np.abs(wave) >= quality_checks.FULL_SCALE, wave, 0)
    clipped = sum(in_long_runs(channel, 3) for channel in full)
    silent = in_long_runs(np.abs(wave).max(axis=0) < 1e-3, 0.05 * RATE)
    assert facts["clipped_fraction"] == clipped / wave.size
    assert facts["silent_fraction"] == silent / wave.shape[1]


@pytest.mark.parametrize("cuts", [range(RATE, 5 * RATE, RATE), range(50000, 200000, 61111)])
def test_bandwidth_does_not_depend_on_cuts_of_a_second_or_more(cuts):
    wave = soxr.resample(noise(5, 16000)[0], 16000, RATE)
    bands = [facts_of(wave, cuts=c)["bandwidth_hz"] for c in ((), list(cuts))]
    assert abs(bands[0] - bands[1]) <= RATE / 2 / quality_checks.BANDS


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.01])
def test_a_sine_has_the_level_of_a_sine(amplitude):
    facts = facts_of(sine(441, amplitude=amplitude) + 0.05, claimed=RATE * 2)
    rms = np.hypot(amplitude / np.sqrt(2), 0.05)
    assert facts["peak"] == pytest.approx(amplitude + 0.05, rel=1e-3)
    assert facts["rms_db"] == pytest.approx(20 * np.log10(rms), abs=1e-3)
    assert facts["dc"] == pytest.approx(0.05, abs=1e-6)
    assert facts["seconds"] == facts["claimed_seconds"] == 2
    assert any("DC offset +0.050" in line for line in quality_checks.list_problems(facts))


def test_the_offset_of_one_channel_is_not_hidden_by_the_other():
    assert facts_of([sine(441) + 0.1, sine(441) - 0.1])["dc"] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("hertz", [50, 441, 11025])
def test_a_clean_full_scale_sine_is_not_clipped_and_a_louder_one_is(hertz, bits):
    top = 2.0 ** (bits - 1)
    stored = lambda wave: np.clip(np.rint(wave * top), -top, top - 1) / top
    assert facts_of(stored(sine(hertz)))["clipped_fraction"] == 0
    loud = facts_of(stored(sine(hertz, amplitude=1.5) + 1e-6))
    # |sin| > 2/3 for 53.5 % of the time; at four samples a period no two neighbours are equal.
    expected = 0 if hertz == 11025 else 1 - 2 / np.pi * np.arcsin(1 / 1.5)
    assert loud["clipped_fraction"] == pytest.approx(expected, abs=0.01)


def test_white_noise_fills_the_band_and_has_no_findings():
    facts = facts_of(noise(3, channels=2))
    assert facts["bandwidth_hz"] >= 20000 and not quality_checks.list_problems(facts)
    assert facts["rms_db"] == pytest.approx(-20, abs=0.1)


@pytest.mark.parametrize("dither", [0, 1])
@pytest.mark.parametrize("rate", [11025, 16000, 22050])
def test_quality_checks_detect_upsampling(rate, dither):
    """Also under the noise that storing the up-sampled sound in 16 bits adds."""
    wave = soxr.resample(noise(5, rate)[0], rate, RATE, quality="HQ")
    floor = np.subtract(*np.random.default_rng(2).random((2, wave.size)))
    facts = facts_of(np.rint(wave * 32768 + floor) / 32768 if dither else wave)
    assert facts["bandwidth_hz"] == pytest.approx(rate / 2, abs=200)
    assert [line for line in quality_checks.list_problems(facts) if "up-sampled" in line]


def test_clicks_are_no_bandwidth():
    wave = soxr.resample(noise(10, 11025)[0], 11025, RATE)
    wave[:: 5 * RATE] = 1
    assert facts_of(wave)["bandwidth_hz"] == pytest.approx(5512, abs=200)


def test_low_pass_of_a_lossy_file_is_measured_and_no_problem():
    file = io.BytesIO()
    settings = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.7}
    soundfile.write(file, noise(5, channels=2).T, RATE, **settings)
    file.seek(0)
    facts = facts_of(soundfile.read(file)[0].T)
    assert facts["bandwidth_hz"] == pytest.approx(16000, abs=400)
    assert not quality_checks.list_problems(facts)


def test_silence_is_one_finding():
    facts = facts_of(np.zeros(RATE))
    assert facts["silent_fraction"] == 1 and facts["bandwidth_hz"] == 0
    assert facts["rms_db"] == -120 and quality_checks.list_problems(facts) == ["silent throughout"]


def test_half_a_silence_is_half_silent():
    facts = facts_of(np.concatenate([np.zeros(RATE), noise(1)[0]]))
    assert facts["silent_fraction"] == pytest.approx(0.5, abs=1e-3)
    assert quality_checks.list_problems(facts) == ["silent 50% of the time"]


@pytest.mark.parametrize(
    "wave, claimed, problem",
    [
        (0.02 * noise(1)[0], None, "very quiet: -54 dBFS"),
        (20 * noise(1)[0].clip(-0.2, 0.2), None, "peaks 12.0 dB over full scale"),
        (noise(1)[0], 2 * RATE, "1.0 s of the 2.0 s it claims"),
        (np.append(noise(1)[0], [np.nan, np.inf]), None, "2 samples are NaN or infinite"),
    ],
)
def test_list_problems_names_a_fault(wave, claimed, problem):
    assert problem in quality_checks.list_problems(facts_of(wave, claimed=claimed))


def test_a_graver_fault_outweighs_all_lighter_ones():
    base = facts_of(noise(1))
    silent = base | {"silent_fraction": 1.0}
    many = base | {"clipped_fraction": 0.5, "dc": 0.3, "peak": 9.0, "bandwidth_hz": 3000.0}
    assert (
        quality_checks.severity(silent)
        > quality_checks.severity(many)
        > quality_checks.severity(base)
        == 0
    )
    assert len(quality_checks.list_problems(many)) == 4


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        facts_of(np.zeros(0))
