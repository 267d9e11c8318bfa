"""Near-duplicates: the same recording in another encoding, at another gain, trimmed or noisy.

Pairs of spectral peaks are hashed, and two songs are one recording where many of their hashes
agree at one time offset (Wang 2003, "An Industrial-Strength Audio Search Algorithm"). The same
piece played again, transposed or at another speed is another recording.
"""

import functools
import math

import numpy as np

from specdiff_jax.audio import numba_loops

RATE = 4096  # Hz, of everything below
ZEROS, PHASES = 3, 64  # of the filter to either side, and between two samples
WINDOW = 512  # samples: 8 Hz a bin
HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
HOP = 128  # samples: 32 frames a second; copies trimmed between two frames still score 0.4
BINS = slice(8, 240)  # 64 Hz to 1.9 kHz: what every encoder keeps
NEAR = (4, 60)  # a peak is the loudest within these frames and bins to either side
GROUP = 58  # bins: a divisor of theirs, so few that any two are NEAR each other
FLOOR = 1e-4  # of the power of the song's loudest peak: below it lossy encoders move the peaks
SILENCE = 4e-6  # the power of a -100 dBFS sinusoid, above dither
PEAKS = 16  # a second, at most; music has about 7
GAP = (4, 63)  # frames from a peak to its partner
PARTNERS = 2  # of each peak, at most
SLACK = 4  # frames that a gap is rounded to
BLOCK, MARGIN = 30, 1  # seconds transformed at a time, and heard before and after

REPEATS = 8  # a hash votes this often in one song, at most
COMMON = 64  # songs that share a hash before it says nothing
STEP = 3  # frames that an offset is rounded to; neighbours are counted together
# Of 200 songbook pieces, copies at 24-32 kbit/s score 0.27 and up, no two pieces over 0.05.
MIN_SCORE, MIN_VOTES = 0.2, 12


def fingerprint(wave, sample_rate):
    """[N] float or int16 at `sample_rate` Hz -> landmarks [K, 2] int32, sorted by time.

    A landmark is (hash of two peaks, below 2^24; frame of the first peak, 32 a second). Music
    has about 12 a second, anything at most 32, silence none.
    """
    blocks = range(0, -(-len(wave) // sample_rate), BLOCK)
    peaks = [_block_peaks(wave, sample_rate, second) for second in blocks]
    frame, bin_, power = np.concatenate([np.zeros((3, 0)), *peaks], axis=1)
    loud = power > max(SILENCE, FLOOR * power.max(initial=0))
    return _landmarks(frame[loud].astype(np.int32), bin_[loud].astype(np.int32))


def _block_peaks(wave, sample_rate, second):
    """The spectral peaks of the block that starts at `second`.

    Returns:
      [3, P] float64: frame in the song, bin, power; sorted by frame.
    """
    from scipy import fft  # slow to import; numpy's transforms are slower

    start = max(second - MARGIN, 0)
    wave = _slow(wave[start * sample_rate : (second + BLOCK + MARGIN) * sample_rate], sample_rate)
    if len(wave) < WINDOW:
        return np.zeros((3, 0))
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    spectrum = fft.rfft(frames * HANN, axis=1)[:, BINS]
    frame, bin_, power = _peaks(spectrum.real**2 + spectrum.imag**2)  # abs is slow
    peaks = np.stack([frame + start * RATE // HOP, bin_ + BINS.start, power])
    inside = (peaks[0] >= second * RATE // HOP) & (peaks[0] < (second + BLOCK) * RATE // HOP)
    return _loudest_of_each_second(peaks[:, inside])


def _slow(wave, sample_rate):
    """[N] float or int16 -> float32 at RATE, full scale at one."""
    taps = _taps(sample_rate)
    scale = np.float32(1 / 32768 if wave.dtype == np.int16 else 1)
    size = taps.shape[1]
    padded = np.pad(wave, (size // 2 - 1, size // 2))
    return numba_loops.resample(padded, scale * taps, sample_rate, RATE)


@functools.cache
def _taps(sample_rate):
    """Weights [PHASES, L] of the samples about a place: a windowed sinc that ends at RATE / 2.

    What it lets through above folds into the band, least at the bins that are looked at.
    """
    wide = max(sample_rate / RATE, 1)  # samples from one zero to the next
    half = math.ceil(ZEROS * wide)
    between = (np.arange(PHASES)[:, None] + 0.5) / PHASES
    away = (np.arange(1 - half, half + 1) - between) / wide
    taps = np.sinc(away) * np.maximum(np.cos(np.pi / 2 * away / (ZEROS + 1)), 0) ** 2
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


def _peaks(power):
    """Where [T, F] is the largest within NEAR, and above SILENCE; of equals side by side the first.

    A frame has few candidates, the largest of every GROUP of bins: only their surroundings are
    looked at, those in the same frame first.
    """
    groups = power.reshape(len(power), -1, GROUP)
    loudest = groups.max(axis=2)  # [T, groups]
    near = _running_max(loudest, NEAR[0])
    frame, group = np.nonzero((loudest == near) & (loudest > SILENCE))
    bin_ = group * GROUP + groups[frame, group].argmax(axis=1)
    padded = np.pad(power, [(near, near) for near in NEAR])
    for frames in (0, NEAR[0]):  # to either side
        size = 2 * frames + 1, 2 * NEAR[1] + 1
        around = np.lib.stride_tricks.sliding_window_view(padded, size)
        around = around[frame + NEAR[0] - frames, bin_]
        top = power[frame, bin_] == around.max(axis=(1, 2))
        frame, bin_ = frame[top], bin_[top]
    return frame, bin_, power[frame, bin_]


def _running_max(x, near):
    """The largest within `near` rows of each.  # [N, M] >= 0, as x

    By doubling, each pass a maximum of whole arrays.
    """
    width = 2 * near + 1
    x, reach = np.pad(x, ((near, near), (0, 0))), 1
    while reach < width:
        step = min(reach, width - reach)
        x, reach = np.maximum(x[:-step], x[step:]), reach + step
    return x


def _loudest_of_each_second(peaks):
    """At most PEAKS a second: a steady tone or a click has ties everywhere.  # [3, P], [3, Q]"""
    second = peaks[0] * HOP // RATE
    order = np.lexsort((-peaks[2], second))
    _, first, size = np.unique(second[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, size)
    return peaks[:, np.sort(order[rank < PEAKS])]


def _landmarks(frame, bin_):
    """Each peak with its next PARTNERS that are GAP later.  # [P], [P] -> [K, 2] int32"""
    landmarks = [np.zeros((0, 2), np.int32)]
    partners = np.zeros(len(frame), np.int32)
    for lag in range(1, min(3 * PEAKS, len(frame))):
        gap = frame[lag:] - frame[:-lag]
        pair = (gap >= GAP[0]) & (gap <= GAP[1]) & (partners[:-lag] < PARTNERS)
        partners[:-lag] += pair
        hashes = bin_[:-lag] << 16 | bin_[lag:] << 8 | gap // SLACK
        landmarks.append(np.stack([hashes[pair], frame[:-lag][pair]], axis=1))
    landmarks = np.concatenate(landmarks)
    return landmarks[np.lexsort(landmarks.T)]


def find_duplicates(fingerprints, min_score=MIN_SCORE, min_votes=MIN_VOTES):
    """The pairs of songs that are one recording.

    Args:
      fingerprints: list of [K, 2], one for each song.
      min_score: least part of the shorter song's distinct hashes that agree at one offset.
      min_votes: least number of them, so that a few seconds never decide.

    Returns:
      [(i, j, score)], i < j, sorted. A recording with more than COMMON copies is not found.
    """
    hashes, song, time = _index(fingerprints)
    entry = _runs(hashes, song)
    # A looped bar counts once, however often it comes: it is in many pieces.
    weight = 1 / np.bincount(entry)[entry]
    distinct = np.bincount(song, weight, minlength=len(fingerprints))
    end, own_end = _ends(_runs(hashes)), _ends(entry)
    by_song = np.argsort(song, kind="stable")
    bounds = np.searchsorted(song[by_song], np.arange(len(fingerprints) + 1))
    pairs = []
    for i in range(len(fingerprints)):
        mine = by_song[bounds[i] : bounds[i + 1]]
        ours, theirs = _meetings(mine, own_end[mine], end[mine])
        vote = np.maximum(weight[ours], weight[theirs])
        shorter = np.minimum(distinct[i], distinct)
        need = np.maximum(min_votes, min_score * shorter)
        # Most songs share too few hashes at any offset: only the others are sorted.
        near = (np.bincount(song[theirs], vote, minlength=len(need)) >= need)[song[theirs]]
        offset = (time[theirs[near]] - time[ours[near]]) // STEP
        for j, votes in zip(*_best_offset(song[theirs[near]], offset, vote[near]), strict=True):
            if votes >= need[j]:
                pairs.append((i, int(j), float(min(votes / shorter[j], 1.0))))
    return pairs


def _index(fingerprints):
    """All landmarks as hash, song, time [L], sorted so; common and repeated hashes left out."""
    song = np.repeat(np.arange(len(fingerprints)), [len(marks) for marks in fingerprints])
    hashes, time = np.concatenate([np.zeros((0, 2), np.int32), *fingerprints]).T
    order = np.lexsort((time, song, hashes))
    hashes, song, time = hashes[order], song[order], time[order]
    entry, run = _runs(hashes, song), _runs(hashes)
    rank = np.arange(len(song)) - _ends(entry) + np.bincount(entry)[entry]
    songs = np.bincount(run, rank == 0)[run]
    keep = (rank < REPEATS) & (songs <= COMMON)
    return hashes[keep], song[keep], time[keep]


def _runs(*keys):
    """The number of the run of equal rows that each row of sorted keys is in.  # [L] int64"""
    changed = [np.diff(key, prepend=key[:1]) != 0 for key in keys]
    return np.cumsum(np.any(changed, axis=0))


def _ends(run):
    """The row after the last of each row's run.  # [L], [L]"""
    return np.cumsum(np.bincount(run))[run]


def _meetings(rows, start, end):
    """Each of `rows` with each of start..end of its own.  # [R] x 3 -> [V], [V]"""
    count = end - start
    theirs = np.arange(count.sum()) + np.repeat(start - np.cumsum(count) + count, count)
    return np.repeat(rows, count), theirs


def _best_offset(song, offset, vote):
    """The songs, and the votes of the best offset of each.  # [V] x 3 -> [S], [S]"""
    key, where = np.unique((song << 32) + offset, return_inverse=True)
    votes = np.bincount(where, vote)
    votes[:-1] += votes[1:] * (np.diff(key) == 1)
    song = (key + (1 << 31)) >> 32
    first = np.flatnonzero(np.diff(song, prepend=-1))
    return song[first], np.maximum.reduceat(votes, first) if len(first) else votes


def group_songs(count, pairs):
    """Songs joined by pairs, directly or through others, share a group.  # [count] int32"""
    from scipy import sparse  # slow to import

    i, j = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    graph = sparse.coo_array((np.ones(len(pairs)), (i, j)), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
