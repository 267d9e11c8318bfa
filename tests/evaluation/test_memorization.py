"""Copied excerpts are located at any offset and gain, and new music is flagged at a set rate."""

import functools

import numpy as np
import pytest

from specdiff_jax.evaluation.metrics import memorization
from tests.helpers import synth

RATE = 8000
CLIP = 3 * RATE
HOP = round(memorization.HOP * RATE)


@functools.lru_cache
def chord(step, eighths):
    return synth.chords([110 * 2 ** (step / 12)], eighths / 8, RATE)


def melody(seed, seconds):
    """Return chords of a few roots with notes and rests of unequal length.  # [N]"""
    rng = np.random.default_rng(seed)
    steps, parts = rng.choice(24, 5, replace=False), []
    while sum(map(len, parts)) < seconds * RATE:
        level = 0.0 if rng.random() < 0.1 else rng.uniform(0.3, 1)
        parts.append(level * chord(rng.choice(steps), rng.integers(1, 5)))
    return np.concatenate(parts)[: seconds * RATE]


def copy_of(song, start, seed):
    """Return an excerpt, 3 dB louder, with noise 30 dB below it.  # [CLIP] float32"""
    wave = song[start : start + CLIP] * 10 ** (3 / 20)
    noise = np.random.default_rng(seed).standard_normal(CLIP)
    return (wave + noise * wave.std() * 10 ** (-30 / 20)).astype(np.float32)


@pytest.fixture(scope="module")
def songs():
    return [melody(seed, 20) for seed in range(30)]


@pytest.fixture(scope="module")
def scanned(songs):
    """Return (songs, offsets, nearest, held-out nearest, ranking) of planted and of new clips."""
    rng = np.random.default_rng(0)
    song, start = rng.integers(0, 30, 40), rng.integers(0, 20 * RATE - CLIP, 40)
    planted = [copy_of(songs[s], o, k) for k, (s, o) in enumerate(zip(song, start, strict=True))]
    others = [melody(seed, 9).reshape(3, CLIP) for seed in range(100, 200)]
    new, held_out = np.concatenate(others[:50]), np.concatenate(others[50:])
    clips = np.concatenate([planted, new])
    return song, start / RATE, *memorization.find_memorized(clips, held_out, songs, RATE)


def test_find_memorized_locates_planted_excerpts(scanned):
    song, start, nearest, _, ranking = scanned
    assert ranking.flagged[:40].mean() >= 0.95
    right = nearest.song[:40] == song
    # Rests and repeated chords may occur at two places; nearly all are located right.
    near = np.abs(nearest.offset[:40] - start) <= memorization.HOP
    assert (right & near).mean() >= 0.95


def test_find_memorized_flags_new_clips_at_the_allowed_rate(scanned):
    """Of 150 new clips 1.5 are expected; more than 6 have a probability of 0.1 %."""
    *_, ranking = scanned
    assert ranking.flagged[40:].sum() <= 6


def test_most_similar_returns_the_planted_clips(scanned):
    _, _, nearest, _, _ = scanned
    first = memorization.most_similar(nearest)
    assert len(first) == 20 and (first < 40).all()
    assert (np.diff(nearest.similarity[first]) <= 0).all()


def test_ranking_agrees_with_its_threshold_and_flags(scanned):
    _, _, nearest, held_out, ranking = scanned
    np.testing.assert_array_equal(nearest.similarity > ranking.threshold, ranking.flagged)
    above = (held_out.similarity > ranking.threshold).mean()
    assert above <= 0.01
    by_hand = [(1 + sum(held_out.similarity >= s)) / 151 for s in nearest.similarity]
    np.testing.assert_allclose(ranking.rank, by_hand, rtol=1e-12)


def test_rank_similarity_has_the_requested_false_positive_rate():
    """Over many draws the share of flagged new clips is floor(0.05 * 60) / 60 exactly."""
    rng = np.random.default_rng(1)
    flagged = []
    for _ in range(2000):
        values = rng.standard_cauchy(79)  # 59 to calibrate, 20 to test
        nearest_of = lambda v: memorization.Nearest(v * 0, v * 0, v, np.zeros(len(v), bool))
        flagged.append(
            memorization.rank_similarity(
                nearest_of(values[59:]), nearest_of(values[:59]), 0.05
            ).flagged
        )
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize("gain", [0.05, 0.5, 2.0])
def test_similarity_is_invariant_to_gain(songs, gain):
    clips = np.stack([melody(7, 3), songs[1][1234 : 1234 + CLIP]])
    plain, louder = (memorization.find_nearest(g * clips, songs[:3], RATE) for g in (1.0, gain))
    np.testing.assert_allclose(louder.similarity, plain.similarity, atol=1e-5)
    np.testing.assert_array_equal(louder.song, plain.song)
    quiet_songs = memorization.find_nearest(clips, [gain * song for song in songs[:3]], RATE)
    np.testing.assert_allclose(quiet_songs.similarity, plain.similarity, atol=1e-5)


def test_offset_of_an_excerpt_shifts_with_its_song(songs):
    """On the frame grid the offset is exact, and a delay of the song adds to it."""
    start = 50 * HOP
    clip = songs[4][None, start : start + CLIP]
    nearest = memorization.find_nearest(clip, songs[:6], RATE)
    assert nearest.song[0] == 4 and nearest.similarity[0] > 0.99
    assert nearest.offset[0] == pytest.approx(start / RATE)
    later = [np.concatenate([np.zeros(7 * HOP), song]) for song in songs[:6]]
    delayed = memorization.find_nearest(clip, later, RATE)
    assert delayed.offset[0] - nearest.offset[0] == pytest.approx(7 * HOP / RATE)
    assert delayed.similarity[0] == pytest.approx(nearest.similarity[0], abs=1e-5)


def correlation(clip, excerpt):
    """Return the correlation over time and bands, damped where the spectrum is steady."""
    a, b = clip - clip.mean(axis=0), excerpt - excerpt.mean(axis=0)
    norm = lambda centered, all_: np.sum(centered**2) + memorization.STEADY * np.sum(all_**2)
    return np.sum(a * b) / np.sqrt(norm(a, clip) * norm(b, excerpt))


def test_find_nearest_equals_the_best_of_all_correlations(songs, monkeypatch):
    """Compare also songs of several blocks and a last batch that is not full."""
    monkeypatch.setattr(memorization, "BATCH", 3)
    monkeypatch.setattr(memorization, "BLOCK", 10)
    lengths = (20, 2, 5, 20, 3)  # the second is too short
    music = [song[: seconds * RATE] for song, seconds in zip(songs, lengths, strict=False)]
    clips = np.concatenate([melody(300 + k, 3)[None] for k in range(4)])
    nearest = memorization.find_nearest(clips, music, RATE)
    for k, clip in enumerate(clips):
        mine = memorization.band_features(clip, RATE).astype(np.float64)
        best = {}
        for s, song in enumerate(music):
            theirs = (
                memorization.band_features(song, RATE).astype(np.float64)
                if len(song) >= CLIP
                else []
            )
            for t in range(len(theirs) - len(mine) + 1):
                best[s, t] = correlation(mine, theirs[t : t + len(mine)])
        assert nearest.similarity[k] == pytest.approx(max(best.values()), abs=2e-5)
        at = (nearest.song[k], round(nearest.offset[k] * RATE / HOP))
        assert best[at] == pytest.approx(max(best.values()), abs=2e-5)


def test_features_of_blocks_equal_those_of_the_whole_song(songs):
    whole = memorization.band_features(songs[0], RATE)
    frames = 30
    blocks = list(memorization._iterate_blocks(songs[:1], CLIP, frames, 100, RATE))
    assert len(blocks) > 3
    for _, first, block in blocks:
        np.testing.assert_allclose(block, whole[first : first + 100], rtol=1e-5)
    starts = [first + k for _, first, block in blocks for k in range(len(block) - frames + 1)]
    assert starts == list(range(len(whole) - frames + 1))  # every excerpt, once


def test_silence_and_steady_tones_have_no_similar_excerpt(songs):
    time = np.arange(CLIP) / RATE
    steady = 0.3 * np.sin(2 * np.pi * 440 * time)
    dither = np.random.default_rng(0).integers(-1, 2, (2, 20 * RATE)) / 32768
    clips = np.stack([np.zeros(CLIP), dither[0, :CLIP], steady])
    music = [np.zeros(20 * RATE), dither[1], np.tile(steady, 3), *songs[:2]]
    nearest = memorization.find_nearest(clips, music, RATE)
    assert nearest.silent.tolist() == [True, True, False]
    assert (nearest.similarity[:2] == 0).all() and nearest.similarity[2] < 0.3
    ranking = memorization.rank_similarity(nearest, nearest._replace(similarity=np.zeros(99)))
    assert not ranking.flagged[:2].any() and (ranking.rank[:2] == 1).all()
    assert memorization.most_similar(nearest).tolist() == [2]


def test_find_nearest_refuses_incomparable_clips(songs):
    good = np.stack([songs[0][:CLIP]] * 2)
    broken = good.copy()
    broken[1, 5] = np.nan
    with pytest.raises(ValueError, match=r"clips \[1\] hold NaN"):
        memorization.find_nearest(broken, songs, RATE)
    with pytest.raises(ValueError, match="no song is as long"):
        memorization.find_nearest(good, [songs[0][: CLIP - 1]], RATE)
    with pytest.raises(ValueError, match="are not \\[M, N\\]"):
        memorization.find_nearest(good[:, : RATE // 2], songs, RATE)
    with pytest.raises(ValueError, match="98 held-out clips cannot resolve 1.00%"):
        memorization.find_memorized(good, np.zeros((98, CLIP)), iter(()), RATE)
