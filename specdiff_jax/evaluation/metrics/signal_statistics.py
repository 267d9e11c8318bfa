"""Perceptual signal statistics of clips, and distances between those of two sets of clips.

All are deterministic, in float64, and defined for any clip: where a statistic has no meaning (the
centroid of silence) it is NaN, and `compare_statistics` counts them.
"""

import functools

import numpy as np
from scipy import fft, signal, stats

from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_two_samples

FRAME, HOP = 2048, 512  # samples: 93 ms and 23 ms at 22.05 kHz
LONG = 8192  # samples of a frame for pitch: resolves semitones above 400 Hz
BANDS = 128  # of the bandwidth, each a 128th of the Nyquist frequency
# Of power, of the loudest band, of frames: as in audio/quality_checks.py, which measures files.
NOISE, BELOW_LOUDEST, MIN_SHARE = 1e-9, 1e-8, 0.02
FULL_SCALE, CLIPPED_RUN = 0.999, 3
SILENCE, SILENT_SECONDS = 1e-3, 0.05
QUIETEST_DB = -120.0
ABSOLUTE_GATE = -70.0  # LUFS, BS.1770-4 annex 1
# Onsets: the mean rise of 40 bands must stand out by so many dB, in a range of 60 dB. On
# songbook clips that finds 3.0 a second where librosa finds 4.2, in agreement of 0.84.
ONSET_BANDS, ONSET_RANGE_DB, ONSET_RISE_DB = 40, 60.0, 0.5
ONSET_PEAK, ONSET_MEAN, ONSET_GAP = 3, 8, 2  # frames to either side: highest, mean of, apart
LOWEST_NOTE, HIGHEST_NOTE = 110.0, 2000.0  # Hz, of chroma
PEAK_DB = -50.0  # peaks this far below the loudest of their frame are no notes


def measure_statistics(waves, sample_rate):
    """Return the statistics of M clips.

    Args:
      waves: [M, N] float in [-1, 1], or [M, 2, N]; what lies beyond is clipped as in a file. Of
        stereo clips the spectral statistics are those of the mean of both channels.
      sample_rate: Hz.

    Returns:
      {name: [M] float64}: rms_db (dBFS; a full-scale sine has -3), loudness_lufs, bandwidth_hz,
      clipped_fraction, silent_fraction, onsets_per_second, flatness_db (-2.5 is white),
      centroid_hz, chroma_entropy (nats; 0 one pitch class .. log 12 all alike), and of stereo
      stereo_width.

    Raises:
      ValueError: clips shorter than LONG samples, or samples that are not finite.
    """
    waves = np.asarray(waves)
    if waves.ndim not in (2, 3) or waves.shape[-1] < LONG:
        raise ValueError(f"signals: clips {waves.shape} are not [M, N] or [M, 2, N], N >= {LONG}")
    wrong = [clip for clip, wave in enumerate(waves) if not np.isfinite(wave).all()]
    if wrong:
        raise ValueError(f"signals: clips {wrong} hold NaN or infinite samples")
    # One clip at a time limits memory.
    rows = [_measure_clip(np.atleast_2d(wave), sample_rate) for wave in waves]
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _measure_clip(wave, sample_rate):
    """Return the statistics of one clip.  # [A, N]"""
    wave = np.clip(np.asarray(wave, np.float64), -1, 1)
    mono = wave.mean(axis=0)
    power = power_spectrogram(mono)  # [T, F]
    width = {"stereo_width": stereo_width(wave)} if len(wave) == 2 else {}
    return {
        "rms_db": _decibels(np.mean(wave**2)),
        "loudness_lufs": loudness_lufs(wave, sample_rate),
        "bandwidth_hz": bandwidth_hz(power, sample_rate),
        "clipped_fraction": clipped_fraction(wave),
        "silent_fraction": silent_fraction(wave, sample_rate),
        "onsets_per_second": len(find_onsets(power, sample_rate)) / (wave.shape[1] / sample_rate),
        "flatness_db": _decibels(flatness(power)),
        "centroid_hz": centroid_hz(power, sample_rate),
        "chroma_entropy": chroma_entropy(mono, sample_rate),
    } | width


def power_spectrogram(wave):
    """Return the power of whole Hann frames, scaled so that white noise has its variance.

    [N] -> [T, FRAME // 2] float64: the bins above DC, T = 1 + (N - FRAME) // HOP.
    """
    window = np.hanning(FRAME + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP]
    return np.abs(fft.rfft(frames * window)[:, 1:]) ** 2 / np.square(window).sum()


def _select_sounding(power):
    """Return the frames that are not silent.  # [T, F]"""
    return power[power.mean(axis=1) > SILENCE**2]


def loudness_lufs(wave, sample_rate):
    """Return the integrated loudness with both gates (ITU-R BS.1770-4) by pyloudnorm, in LUFS.

    Two channels are left and right, one is as loud as in one loudspeaker. Samples after the last
    whole block are left out: pyloudnorm would count their block as a whole one. Clips shorter than
    a block, and those whose blocks are all gated, have ABSOLUTE_GATE.  # [A, N]
    """
    steps = int(10 * wave.shape[1] / sample_rate + 1e-9)  # of 0.1 s; a block is 0.4 s
    if steps < 4:
        return ABSOLUTE_GATE
    whole = wave[:, : -(-steps * sample_rate // 10)]
    loudness = build_meter(sample_rate).integrated_loudness(whole.T)
    return float(loudness) if np.isfinite(loudness) else ABSOLUTE_GATE


@functools.cache
def build_meter(sample_rate):
    """Return pyloudnorm's meter with filters exact at any rate (De Man 2014)."""
    import pyloudnorm  # slow to import

    return pyloudnorm.Meter(sample_rate, filter_class="DeMan")


def bandwidth_hz(power, sample_rate):
    """Return the upper edge of the highest band in MIN_SHARE of the sounding frames, else 0.

    As in audio/quality_checks.py, whose frames are too few in a short clip.  # [T, F] -> Hz
    """
    bands = power.reshape(len(power), BANDS, -1).mean(axis=2)  # [T, BANDS]
    sounding = bands > np.maximum(NOISE, BELOW_LOUDEST * bands.max(axis=1, keepdims=True))
    often = sounding.sum(axis=0) > MIN_SHARE * sounding.any(axis=1).sum()
    return float(np.flatnonzero(often).max(initial=-1) + 1) / BANDS * sample_rate / 2


def clipped_fraction(wave):
    """Return the share of samples in runs of CLIPPED_RUN equal ones at full scale.  # [A, N]"""
    equal = np.diff(wave, axis=-1) == 0
    starts = np.abs(wave[:, : 1 - CLIPPED_RUN]) >= FULL_SCALE
    for later in range(CLIPPED_RUN - 1):
        starts = starts & equal[:, later : later + starts.shape[1]]
    clipped = np.zeros(wave.shape, bool)
    for later in range(CLIPPED_RUN):
        clipped[:, later : later + starts.shape[1]] |= starts
    return float(clipped.mean())


def silent_fraction(wave, sample_rate):
    """Return the share of SILENT_SECONDS blocks with all samples below SILENCE.  # [A, N]"""
    size = round(SILENT_SECONDS * sample_rate)
    count = wave.shape[1] // size
    peaks = np.abs(wave[:, : count * size]).max(axis=0).reshape(count, size).max(axis=1)
    return float(np.mean(peaks < SILENCE))


def find_onsets(power, sample_rate):
    """Return the frames in which notes or beats begin: peaks of the spectral flux.

    The flux is the mean over logarithmic bands of the rise in level, in dB down to
    ONSET_RANGE_DB below the clip's loudest band; its peaks stand out over the mean around them
    (Dixon 2006, "Onset detection revisited"; Boeck et al. 2012). An onset in
    the first frame cannot be distinguished from the cut.  # [T, F] -> [onsets]
    """
    edges = np.geomspace(60.0, 0.95 * sample_rate / 2, ONSET_BANDS + 1)
    places = np.unique(np.rint(edges / sample_rate * FRAME).astype(int))  # bins, each band >= one
    level = np.add.reduceat(power, places[:-1] - 1, axis=1) / np.diff(
        [*places[:-1], power.shape[1]]
    )
    floor = max(level.max(initial=0) * 10 ** (-ONSET_RANGE_DB / 10), NOISE)
    level = 10 * np.log10(np.maximum(level, floor))  # [T, bands]
    flux = np.maximum(np.diff(level, axis=0), 0).mean(axis=1)  # [T - 1] dB
    padded = np.pad(flux, ONSET_MEAN)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * ONSET_MEAN + 1)
    highest = around[:, ONSET_MEAN - ONSET_PEAK : ONSET_MEAN + ONSET_PEAK + 1].max(axis=1)
    peaks = np.flatnonzero((flux == highest) & (flux > around.mean(axis=1) + ONSET_RISE_DB))
    return peaks[np.diff(peaks, prepend=-ONSET_GAP - 1) > ONSET_GAP] + 1


def flatness(power):
    """Return geometric over arithmetic mean of the bins' power, mean over sounding frames.

    (Johnston 1988, "Transform coding of audio signals".) White noise has exp(-0.5772) = 0.561,
    for the power of a bin is exponentially distributed; a tone has 0.  # [T, F]
    """
    power = _select_sounding(power)
    if not len(power):
        return float("nan")
    geometric = np.exp(np.log(np.maximum(power, 1e-20)).mean(axis=1))
    return float(np.mean(geometric / power.mean(axis=1)))


def centroid_hz(power, sample_rate):
    """Return the mean frequency weighted by magnitude, mean over sounding frames.  # [T, F] -> Hz

    (Peeters 2004, "A large set of audio features", section 6.1.1.)
    """
    magnitude = np.sqrt(_select_sounding(power))
    if not len(magnitude):
        return float("nan")
    hertz = np.arange(1, magnitude.shape[1] + 1) * sample_rate / FRAME
    return float(np.mean(magnitude @ hertz / magnitude.sum(axis=1)))


def chroma_entropy(wave, sample_rate):
    """Return the entropy of the twelve pitch classes, in nats: low where a key or chord is clear.

    The classes' shares are those of the amplitudes of spectral peaks, each given whole to the
    nearest note of A = 440 Hz (after Gomez 2006, "Tonal description of music audio signals",
    without the weighting). NaN where there is none.  # [N]
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, LONG)[:: LONG // 2]
    window = signal.get_window("blackmanharris", LONG)  # no side lobe above -92 dB
    magnitude = np.abs(fft.rfft(frames * window)) / (window.sum() / 2)  # of a sine: its amplitude
    level = np.log(np.maximum(magnitude, 1e-12))
    low, middle, high = level[:, :-2], level[:, 1:-1], level[:, 2:]
    loudest = level.max(axis=1, keepdims=True) + np.log(10) / 20 * PEAK_DB
    peak = (middle > low) & (middle >= high) & (middle > loudest) & (middle > np.log(1e-5))
    frame, bin_ = np.nonzero(peak)
    low, middle, high = (part[frame, bin_] for part in (low, middle, high))
    place = bin_ + 1 + 0.5 * (low - high) / (low - 2 * middle + high)  # of the parabola's top
    hertz = place * sample_rate / LONG
    note = (hertz >= LOWEST_NOTE) & (hertz <= HIGHEST_NOTE)
    if not note.any():
        return float("nan")
    class_ = np.rint(12 * np.log2(hertz[note] / 440)).astype(int) % 12
    share = np.bincount(class_, np.exp(middle[note]), minlength=12)
    return float(stats.entropy(share))


def stereo_width(wave):
    """Return the share of side energy: 0 mono, 0.5 unrelated channels, 1 opposite.  # [2, N]"""
    middle, side = np.sum((wave[0] + wave[1]) ** 2), np.sum((wave[0] - wave[1]) ** 2)
    return float(side / (middle + side)) if middle + side else float("nan")


def _decibels(power):
    """Return power in dB, at least QUIETEST_DB."""
    return float(10 * np.log10(np.maximum(power, 10 ** (QUIETEST_DB / 10))))  # NaN stays NaN


def compare_statistics(generated, real, seed=0, resamples=500):
    """Return the distance of each statistic of generated clips from that of real clips.

    Args:
      generated, real: results of `measure_statistics`, of M and of K clips.

    Returns:
      [{statistic, clips, real_clips, undefined, mean, std, real_mean, real_std, ks, distance, low,
      high, chance}]: ks is the two-sample Kolmogorov-Smirnov distance; `distance` is
      Wasserstein-1 in standard deviations of the real clips (inf where those are all alike and
      the generated ones are not), low and high its 95 % bootstrap interval over both sets of
      clips. It is never negative, so it is not 0 between equals either: `chance` is what 95 % of
      random divisions of all clips stay below. `undefined` counts NaN, which are left out.
    """
    rng = np.random.default_rng(seed)
    return [_compare_statistic(name, generated[name], real[name], rng, resamples) for name in real]


def _compare_statistic(name, ours, theirs, rng, resamples):
    """Return one row of `compare_statistics`."""
    given = len(ours) + len(theirs)
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    row = {"statistic": name, "clips": len(ours), "real_clips": len(theirs)}
    row["undefined"] = given - len(ours) - len(theirs)
    if min(len(ours), len(theirs)) < 2:
        return row
    unit = theirs.std(ddof=1)

    def distance(a, b):
        gap = stats.wasserstein_distance(a, b)
        return float(gap / unit if unit else np.inf if gap else 0.0)

    estimate = bootstrap_two_samples(ours, theirs, distance, rng, resamples)
    pooled = (rng.permutation(np.concatenate([ours, theirs])) for _ in range(resamples))
    chance = [distance(both[: len(ours)], both[len(ours) :]) for both in pooled]
    return row | {
        "mean": float(ours.mean()),
        "std": float(ours.std(ddof=1)),
        "real_mean": float(theirs.mean()),
        "real_std": float(unit),
        "ks": float(stats.ks_2samp(ours, theirs).statistic),
        "distance": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "chance": float(np.quantile(chance, 0.95, method="nearest")),
    }
