"""Memorization: the nearest training excerpt of each generated clip, at any offset and any gain.

A clip is compared with every excerpt of its length of every training song, by the correlation of
the changes of their spectra over time. Held-out music, which is real and not memorized, sets the
threshold: a clip is flagged where at most 1 % of held-out clips are as similar (after Carlini et
al. 2023, "Extracting Training Data from Diffusion Models", arXiv 2301.13188, whose
distances are calibrated by other training images; the p-value is that of Vovk et al. 2005,
"Algorithmic Learning in a Random World", section 2.2).

Out of scope: excerpts that are transposed, played faster or slower by more than a few percent,
mixed with other music of equal level, or half a clip long
(experiments/generation/memorization.py measures the limits).

A steady or silent clip has no changes to compare and is similar to nothing; a single sustained note
is similar to other such notes.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from scipy import fft

HOP = 1024 / 22_050  # seconds between frames; half of it is the largest misalignment of an excerpt
OVERLAP = 4  # frames over each sample: more of them reduce the cost of misalignment
LOWEST, HIGHEST, BANDS = 100.0, 4000.0, 64  # Hz: where music is louder than generated noise
POWER = 0.25  # of the power spectrum: near loudness; a gain remains a factor, unlike in a log
STEADY = 1e-3  # of a clip's sum of squares: a smaller change counts as none
SILENCE = 1e-3  # rms, -60 dBFS
BLOCK = 720  # frames transformed at once: 33 s of a song
MIN_FRAMES = 16  # frames of a clip, 0.9 s: fewer do not identify music
BATCH = 8  # blocks compared at once: matrices of few columns are slow
FALSE_POSITIVE_RATE = 0.01


class Nearest(NamedTuple):
    """The training excerpt that each of M clips is nearest to."""

    song: np.ndarray  # [M] int64, its place among the songs
    offset: np.ndarray  # [M] float64, seconds into the song, in steps of HOP
    similarity: np.ndarray  # [M] float64 in [-1, 1]; the excerpt itself has almost 1
    silent: np.ndarray  # [M] bool: nothing to compare, similarity 0


class Ranking(NamedTuple):
    """The similarities of M clips ranked among those of held-out clips."""

    rank: np.ndarray  # [M] float64 in (0, 1]: the share of real, new clips that come so near
    flagged: np.ndarray  # [M] bool: rank is at most the requested share of false positives
    threshold: float  # of similarity, above which clips are flagged


def find_memorized(generated, held_out, songs, sample_rate, false_positives=FALSE_POSITIVE_RATE):
    """Return which generated clips are memorized training songs, in one scan for all clips.

    Args:
      generated: [M, N] float waves in [-1, 1], mono.
      held_out: [H, N] clips of songs outside training, H >= 99 for 1 %; see `rank_similarity`.
      songs: iterable of [n] float waves, mono; wrap it in tqdm for progress.
      sample_rate: Hz, of all of them.

    Returns:
      Nearest of the generated clips, Nearest of the held-out clips, Ranking of the former.
    """
    check_held_out_count(len(held_out), false_positives)  # fail before the long scan
    both = find_nearest(np.concatenate([generated, held_out]), songs, sample_rate)
    ours = Nearest(*(field[: len(generated)] for field in both))
    theirs = Nearest(*(field[len(generated) :] for field in both))
    return ours, theirs, rank_similarity(ours, theirs, false_positives)


def rank_similarity(nearest, held_out, false_positives=FALSE_POSITIVE_RATE):
    """Return the ranks of the similarities of M clips among those of H held-out clips.

    rank = (1 + how many held-out clips are as near) / (1 + H): for a clip that is as new as the
    held-out ones it is at most r in a share r of cases, whatever the distribution (Vovk et al.
    2005). That holds only for clips of one length; take the held-out ones from as many songs as
    can be, for clips of one song are alike.

    Args:
      nearest, held_out: Nearest, of the same scan.
      false_positives: share of new clips that may be flagged.

    Returns:
      Ranking; silent clips have rank 1.

    Raises:
      ValueError: too few held-out clips for so small a share.
    """
    count = len(held_out.similarity)
    check_held_out_count(count, false_positives)
    ordered = np.sort(held_out.similarity)
    as_near = count - np.searchsorted(ordered, nearest.similarity, side="left")
    rank = np.where(nearest.silent, 1.0, (1 + as_near) / (1 + count))
    allowed = int(false_positives * (1 + count) + 1e-9)
    return Ranking(rank, rank <= false_positives + 1e-12, float(ordered[-allowed]))


def check_held_out_count(count, false_positives):
    """Raise ValueError unless `count` held-out clips resolve a share of `false_positives`."""
    least = int(np.ceil(1 / false_positives - 1e-9)) - 1
    if count < least:
        raise ValueError(
            f"memorization: {count} held-out clips cannot resolve {false_positives:.2%} false"
            f" positives; give at least {least}"
        )


def most_similar(nearest, count=20):
    """Return the clips most similar to training songs, the most similar first.  # [<= count]"""
    order = np.argsort(-nearest.similarity, kind="stable")
    return order[~nearest.silent[order]][:count]


def find_nearest(clips, songs, sample_rate):
    """Return the nearest of all excerpts of all songs, one every HOP.

    The similarity is the correlation of `band_features`, each band's mean over the excerpt
    removed, as one long vector. The Fourier transform over frames correlates M clips with all
    excerpts of a song.
    Songs are read once, in turn; memory is 190 kB a clip and one song's samples.

    Args:
      clips: [M, N] float waves in [-1, 1], mono. songs: iterable of [n] float waves.

    Returns:
      Nearest. Songs shorter than N are left out.

    Raises:
      ValueError: clips of under MIN_FRAMES frames, samples that are not finite, or no song that
        is as long as a clip.
    """
    clips = np.asarray(clips, np.float32)
    check_clips(clips, sample_rate)
    best = np.zeros(len(clips), np.int64), np.zeros(len(clips), np.int64), np.zeros(len(clips))
    best[2][:] = -2.0  # below any correlation
    spectra, frames, size = _transform_clips(clips, sample_rate)
    blocks = _iterate_blocks(songs, clips.shape[1], frames, size, sample_rate)
    while batch := list(itertools.islice(blocks, BATCH)):
        _update_best(best, spectra, frames, size, batch)
    song, first, similarity = best
    if len(clips) and similarity.max() < -1.5:
        raise ValueError(f"memorization: no song is as long as a clip of {clips.shape[1]} samples")
    silent = np.sqrt(np.mean(clips**2, axis=1, dtype=np.float64)) < SILENCE
    hop = round(HOP * sample_rate) / sample_rate
    return Nearest(song, first * hop, np.where(silent, 0.0, similarity), silent)


def check_clips(clips, sample_rate):
    """Raise ValueError where `find_nearest` cannot compare clips [M, N]."""
    least = (OVERLAP + MIN_FRAMES - 1) * round(HOP * sample_rate)
    if sample_rate < 2 * HIGHEST:
        raise ValueError(
            f"memorization: sample_rate={sample_rate} Hz is below {2 * HIGHEST:.0f} Hz"
        )
    if clips.ndim != 2 or clips.shape[1] < least:
        raise ValueError(f"memorization: clips {clips.shape} are not [M, N] with N >= {least}")
    wrong = np.flatnonzero(~np.isfinite(clips).all(axis=1))
    if len(wrong):
        raise ValueError(f"memorization: clips {wrong.tolist()} hold NaN or infinite samples")


def band_features(wave, sample_rate):
    """Return POWER of the energy in BANDS logarithmic bands, one frame every HOP.

    Frames are cut without padding; a factor g of gain is a factor g^(2 POWER) of all features.

    [N] float -> [T, BANDS] float32, T = 1 + (N - OVERLAP * hop) // hop.
    """
    hop = round(HOP * sample_rate)
    window = np.hanning(OVERLAP * hop + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(wave, len(window))[::hop]
    size = fft.next_fast_len(len(window), real=True)
    spectrum = fft.rfft(frames * window, size)  # [T, size // 2 + 1]
    power = spectrum.real**2 + spectrum.imag**2
    return (power @ band_filters(sample_rate, size).T) ** np.float32(POWER)


@functools.lru_cache
def band_filters(sample_rate, size):
    """Return triangles on a log axis from LOWEST to HIGHEST, each of sum one.  # [BANDS, bins]

    One so narrow that no bin lies under it takes the bin nearest to its middle.
    """
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 2)
    bins = fft.rfftfreq(size, 1 / sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))  # [BANDS, bins]
    for band in np.flatnonzero(triangles.sum(axis=1) == 0):
        triangles[band, np.abs(bins - edges[band + 1]).argmin()] = 1
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)


def _transform_clips(clips, sample_rate):
    """Return unit vectors of the clips, transformed over frames.

    Returns:
      [size // 2 + 1, M, BANDS] complex64, the clips' frames, and the size of the transforms.
    """
    frames = clips.shape[1] // round(HOP * sample_rate) - OVERLAP + 1
    size = max(BLOCK, fft.next_fast_len(4 * frames, real=True))  # few excerpts lie in two blocks
    spectra = np.empty((size // 2 + 1, len(clips), BANDS), np.complex64)
    for place, clip in enumerate(clips):
        spectra[:, place] = np.conj(
            fft.rfft(_normalize_features(band_features(clip, sample_rate)), size, axis=0)
        )
    return spectra, frames, size


def _normalize_features(vectors):
    """Return [L, BANDS] without each band's mean, of norm one unless it is nearly steady."""
    centered = vectors - vectors.mean(axis=0, keepdims=True)
    squares = np.square(centered, dtype=np.float64).sum()
    squares += STEADY * np.square(vectors, dtype=np.float64).sum()
    return centered / np.float32(np.sqrt(squares) or 1.0)


def _iterate_blocks(songs, samples, frames, size, sample_rate):
    """Yield (song, first frame, [<= size, BANDS]) of long enough songs, each excerpt once."""
    hop = round(HOP * sample_rate)
    for song, wave in enumerate(songs):
        if len(wave) < samples:
            continue
        for first in range(0, (len(wave) // hop - OVERLAP + 1) - frames + 1, size - frames + 1):
            piece = wave[first * hop : (first + size - 1 + OVERLAP) * hop]
            yield song, first, band_features(np.asarray(piece, np.float32), sample_rate)


def _update_best(best, spectra, frames, size, batch):
    """Replace the best [M] excerpts so far where one in the batch of blocks is nearer.

    The clips' bands have no mean, so their products with an excerpt need not remove its own.
    """
    padded = np.zeros((size, BANDS, len(batch)), np.float32)
    for column, (_, _, block) in enumerate(batch):
        padded[: len(block), :, column] = block
    products = spectra @ fft.rfft(padded, axis=0)  # [size // 2 + 1, M, batch]
    products = fft.irfft(products, size, axis=0)
    for column, (song, first, block) in enumerate(batch):
        norms = _excerpt_norms(block.astype(np.float64), frames)  # [excerpts]
        similar = products[: len(norms), :, column] / norms[:, None].astype(np.float32)
        where = similar.argmax(axis=0)
        value = similar[where, np.arange(similar.shape[1])]
        nearer = value > best[2]
        for field, new in zip(best, (song, first + where, value), strict=True):
            field[nearer] = new[nearer] if np.ndim(new) else new


def _excerpt_norms(block, frames):
    """Return the norm of each excerpt of `frames` frames by running sums.  # [T, BANDS] -> [.]

    It is the norm by which `_normalize_features` divides.
    """
    start = np.zeros((1, block.shape[1]))
    sums = np.cumsum(np.concatenate([start, block]), axis=0)
    squares = np.cumsum(np.concatenate([start[:, 0], np.square(block).sum(axis=1)]))
    sums, squares = sums[frames:] - sums[:-frames], squares[frames:] - squares[:-frames]
    energy = np.maximum(squares - np.square(sums).sum(axis=1) / frames, 0) + STEADY * squares
    # A correlation with digital silence would be rounding error.
    return np.sqrt(np.where(squares > 0, np.maximum(energy, 1e-12), np.inf))
