"""Facts of a sound while it is decoded block by block, and what they say is wrong with it.

Every measure is a sum, a maximum or a run that is joined across blocks: a song of any length takes
the memory of one block, and where the blocks are cut changes nothing (but see `_detect_bands`).
"""

import itertools

import numpy as np

from specdiff_jax.audio import numba_loops

# Clipped: a run of equal samples at full scale. int16 ends at 0.99997, and a clean full-scale
# sine turns within two equal samples unless it is lower than about 30 Hz.
FULL_SCALE, CLIPPED_RUN = 0.999, 3
SILENCE, SILENT_SECONDS = 1e-3, 0.05  # silent: all channels under -60 dBFS for 50 ms or longer
EVERY = 16  # frames apart: the transforms would be most of what measuring costs
FRAME, BANDS = 4096, 128  # a band is a 128th of the Nyquist frequency, 172 Hz at 44.1 kHz
HANN = np.hanning(FRAME + 1)[:-1].astype(np.float32)
POWER = np.square(HANN).sum()
ABREAST = 256  # samples summed side by side: sums over the few channels of one are slow
NOISE = 10 ** (-90 / 10)  # power; 6 dB above the white noise of dithered 16-bit samples
BELOW_LOUDEST = 10 ** (-80 / 10)  # what a resampler or the window leaks is weaker than this
MIN_SHARE = 0.02  # share of the sounding frames that a band must sound in: a click is no bandwidth

MOST_CLIPPED, MOST_SILENT, MOST_DC = 1e-4, 0.4, 0.02  # of samples, of the time, of full scale
MOST_PEAK_DB = 3.0  # decoded mp3 overshoots full scale a little, and 16 bits clip that unheard
LEAST_RMS_DB = -45.0
LEAST_OF_CLAIM = 0.99  # of the length in the header
LEAST_BANDWIDTH = 0.55  # of the Nyquist frequency, or of 22.05 kHz where that is less


def measure_block(block, sample_rate):
    """What `combine` needs of one block [channels, N] float32, decoded at its own rate in Hz."""
    wave = np.ascontiguousarray(block.T)  # [N, channels]; no copy where it was decoded so
    least = SILENT_SECONDS * sample_rate
    window, finite = int(least) // 2, True
    loudest = _loudest(wave, window)
    if not np.isfinite(loudest).all():
        finite = np.isfinite(wave)
        wave = np.where(finite, wave, 0)
        loudest = _loudest(wave, window)
    sums, squares = _sums(wave)
    sounding, band_frames = _detect_bands(wave)
    return {
        "sample_rate": sample_rate,
        "samples": len(wave),
        "non_finite": wave.size - int(np.sum(finite)) if finite is not True else 0,
        "peak": loudest.max(initial=0.0),
        "sum": sums,  # [channels]
        "squares": squares,
        "clipped": _clipped(wave, loudest),
        "silent": _runs(_silent(wave, loudest, window), least),
        "sounding": sounding,
        "band_frames": band_frames,  # [BANDS]
    }


def combine_blocks(measures, claimed_samples):
    """The facts of a sound from `measure` of all its blocks, in order.

    `rms_db` is 0 for a full-scale square wave, -3 for a sine, never under -120; `dc` is of the
    channel with the most; `bandwidth_hz` is 0 for silence and for blocks of under FRAME samples.
    """
    if not any(part["samples"] for part in measures):
        raise ValueError("holds no samples")
    rate, channels = measures[0]["sample_rate"], len(measures[0]["sum"])
    summed = ("samples", "non_finite", "sum", "squares", "sounding", "band_frames")
    total = {key: sum(part[key] for part in measures) for key in summed}
    samples, means = total["samples"], total["sum"] / total["samples"]
    clipped = zip(*(part["clipped"] for part in measures), strict=True)
    silent = _joined([part["silent"] for part in measures], SILENT_SECONDS * rate)
    highest = np.flatnonzero(total["band_frames"] > MIN_SHARE * total["sounding"]).max(initial=-1)
    return {
        "sample_rate": int(rate),
        "channels": channels,
        "seconds": samples / rate,
        "claimed_seconds": claimed_samples / rate,
        "peak": float(max(part["peak"] for part in measures)),
        "clipped_fraction": sum(_joined(c, CLIPPED_RUN) for c in clipped) / (samples * channels),
        "dc": float(means[np.abs(means).argmax()]),
        "rms_db": _decibels(np.sqrt(total["squares"] / (samples * channels))),
        "silent_fraction": silent / samples,
        "bandwidth_hz": float((highest + 1) / BANDS * rate / 2),
        "non_finite": total["non_finite"],
    }


def list_problems(facts):
    """Short lines on what is wrong with a sound, the gravest first; [] where nothing is."""
    return [line for wrong, line in _checks(facts) if wrong]


def severity(facts):
    """A number to sort by: a graver finding outweighs all the lighter ones together."""
    return sum(0.5**place for place, (wrong, _) in enumerate(_checks(facts)) if wrong)


def _checks(facts):
    """(is it so, how to say it) of everything that can be wrong, the gravest first."""
    seconds, claimed, bad = facts["seconds"], facts["claimed_seconds"], facts["non_finite"]
    silent, level, clipped = facts["silent_fraction"], facts["rms_db"], facts["clipped_fraction"]
    over, dc, top = _decibels(facts["peak"]), facts["dc"], facts["sample_rate"] / 2
    band = facts["bandwidth_hz"] or top  # where there is none, nothing is wrong with it
    narrow = band < LEAST_BANDWIDTH * min(top, 22050)
    return [
        (silent == 1, "silent throughout"),
        (bad > 0, f"{bad} samples are NaN or infinite"),
        (seconds < LEAST_OF_CLAIM * claimed, f"{seconds:.1f} s of the {claimed:.1f} s it claims"),
        (MOST_SILENT < silent < 1, f"silent {silent:.0%} of the time"),
        (level < LEAST_RMS_DB and silent < 1, f"very quiet: {level:.0f} dBFS"),
        (narrow, f"bandwidth {band / 1e3:.1f} kHz of {top / 1e3:.1f} kHz: up-sampled?"),
        (clipped > MOST_CLIPPED, f"clipped: {clipped:.2%} of the samples"),
        (over > MOST_PEAK_DB, f"peaks {over:.1f} dB over full scale"),
        (abs(dc) > MOST_DC, f"DC offset {dc:+.3f}"),
    ]


def _decibels(amplitude):
    return float(20 * np.log10(max(amplitude, 1e-6)))


def _loudest(wave, window):
    """The largest magnitude of each whole or begun window of [N, channels].  # [windows]"""
    whole = len(wave) // window * window
    parts = wave[:whole].reshape(-1, window * wave.shape[1]), wave[whole:].reshape(1, -1)
    # max and -min, not abs: no copy of the block is made.
    high = [np.maximum(p.max(axis=1, initial=0), -p.min(axis=1, initial=0)) for p in parts]
    return np.concatenate(high)


def _sums(wave):
    """Sums [channels] and the sum of squares of [N, channels], in float64."""
    total = np.zeros((ABREAST, wave.shape[1]))
    squares = numba_loops.add_rows(wave.reshape(-1), total.reshape(-1))
    return total.sum(axis=0), squares


def _clipped(wave, loudest):
    """`_runs` of the samples at full scale in each channel of [N, channels]."""
    if loudest.max(initial=0.0) < FULL_SCALE:
        return [(0, [(0.0, 1)])] * wave.shape[1]
    full = np.where(np.abs(wave) >= FULL_SCALE, wave, 0)
    return [_runs(channel, CLIPPED_RUN) for channel in full.T]


def _silent(wave, loudest, window):
    """1 where all channels of [N, channels] are silent, as short as `_runs` needs it to be.

    A silence that counts holds a whole window; where none is silent only the ends can matter.
    """
    if loudest.min(initial=1.0) >= SILENCE:
        wave = np.concatenate([wave[:window], np.ones((1, wave.shape[1])), wave[-window:]])
    quiet = np.abs(wave) < SILENCE
    return np.logical_and.reduce([*quiet.T]).astype(float)


def _runs(line, least):
    """What one block [N] knows of its runs of equal non-zero values.

    Returns the samples in runs of `least` or more that touch no end, and [(value, length)] of the
    first and the last run with a zero between, for `_joined` to settle.
    """
    starts = np.flatnonzero(np.diff(line, prepend=np.nan) != 0)
    values, lengths = line[starts], np.diff(starts, append=len(line))
    inside = lengths[1:-1][(values[1:-1] != 0) & (lengths[1:-1] >= least)].sum()
    ends = list(zip(values.tolist(), lengths.tolist(), strict=True))
    return int(inside), ends if len(ends) < 2 else [ends[0], (0, 0), ends[-1]]


def _joined(blocks, least):
    """Samples in runs of `least` or more, given `_runs` of the blocks in order."""
    ends = itertools.chain.from_iterable(ends for _, ends in blocks)
    groups = itertools.groupby(ends, key=lambda end: end[0])
    joined = [(value, sum(length for _, length in group)) for value, group in groups]
    long = sum(length for value, length in joined if value and length >= least)
    return long + sum(inside for inside, _ in blocks)


def _detect_bands(wave):
    """How many frames of [N, channels] sound, and in how many of them each of the bands does.

    One in EVERY of the whole frames from the block's start: what is left at its end is skipped, so
    blocks should last a second or more. Counting frames, not adding power, keeps clicks and one
    loud bar from speaking for the whole song.
    """
    from scipy import fft  # slow to import; numpy's transforms are slower

    count = len(wave) // FRAME
    frames = wave[: count * FRAME].reshape(count, FRAME, wave.shape[1])
    channel, place = np.divmod(np.arange(0, count * wave.shape[1], EVERY), max(count, 1))
    spectrum = fft.rfft(frames[place, :, channel] * HANN)[:, 1:]
    power = (spectrum.real**2 + spectrum.imag**2) / POWER  # abs is slow
    bins = FRAME // 2 // BANDS
    bands = power.reshape(len(power), BANDS, bins)
    power = bands @ np.full(bins, 1 / bins, np.float32)  # of white noise: its variance
    band_frames = power > np.maximum(NOISE, BELOW_LOUDEST * power.max(axis=1, keepdims=True))
    return int(band_frames.any(axis=1).sum()), band_frames.sum(axis=0)
