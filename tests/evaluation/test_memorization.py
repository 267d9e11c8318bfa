"""A copy is found wherever it was cut and however loud it is; new music is not taken for one."""

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
    """Chords of a few roots, notes and rests of unequal length, in one arrangement.  # [N]"""
    rng = np.random.default_rng(seed)
    steps, parts = rng.choice(24, 5, replace=False), []
    while sum(map(len, parts)) < seconds * RATE:
        level = 0.0 if rng.random() < 0.1 else rng.uniform(0.3, 1)
        parts.append(level * chord(rng.choice(steps), rng.integers(1, 5)))
    return np.concatenate(parts)[: seconds * RATE]


def copy_of(song, start, seed):
    """An excerpt from a sample, 3 dB louder, with noise 30 dB below it.  # [CLIP] float32"""
    wave = song[start : start + CLIP] * 10 ** (3 / 20)
    noise = np.random.default_rng(seed).standard_normal(CLIP)
    return (wave + noise * wave.std() * 10 ** (-30 / 20)).astype(np.float32)


@pytest.fixture(scope="module")
def songs():
    return [melody(seed, 20) for seed in range(30)]


@pytest.fixture(scope="module")
def scanned(songs):
    """What is found for planted copies, and for clips of two disjoint sets of other songs."""
    rng = np.random.default_rng(0)
    song, start = rng.integers(0, 30, 40), rng.integers(0, 20 * RATE - CLIP, 40)
    planted = [copy_of(songs[s], o, k) for k, (s, o) in enumerate(zip(song, start, strict=True))]
    others = [melody(seed, 9).reshape(3, CLIP) for seed in range(100, 200)]
    new, held_out = np.concatenate(others[:50]), np.concatenate(others[50:])
    clips = np.concatenate([planted, new])
    return song, start / RATE, *memorization.find_memorized(clips, held_out, songs, RATE)


def test_planted_excerpts_are_located(scanned):
    song, start, found, _, verdict = scanned
    assert verdict.flagged[:40].mean() >= 0.95
    right = found.song[:40] == song
    # Rests and repeated chords may be alike at two places; nearly all are told apart.
    near = np.abs(found.offset[:40] - start) <= memorization.HOP
    assert (right & near).mean() >= 0.95


def test_new_clips_are_flagged_no_more_often_than_allowed(scanned):
    """Of 150 new clips 1.5 are expected; more than 6 has a probability of 0.1 %."""
    *_, verdict = scanned
    assert verdict.flagged[40:].sum() <= 6


def test_the_closest_are_the_planted(scanned):
    _, _, found, _, _ = scanned
    first = memorization.most_similar(found)
    assert len(first) == 20 and (first < 40).all()
    assert (np.diff(found.similarity[first]) <= 0).all()


def test_flags_threshold_and_ranks_agree(scanned):
    _, _, found, held_out, verdict = scanned
    np.testing.assert_array_equal(found.similarity > verdict.threshold, verdict.flagged)
    above = (held_out.similarity > verdict.threshold).mean()
    assert above <= 0.01
    by_hand = [(1 + sum(held_out.similarity >= s)) / 151 for s in found.similarity]
    np.testing.assert_allclose(verdict.rank, by_hand, rtol=1e-12)


def test_false_positives_are_what_was_asked_for_whatever_the_distribution():
    """Over many draws the share of flagged new clips is floor(0.05 * 60) / 60 exactly."""
    rng = np.random.default_rng(1)
    flagged = []
    for _ in range(2000):
        values = rng.standard_cauchy(79)  # 59 to calibrate, 20 to test
        nearest = lambda v: memorization.Nearest(v * 0, v * 0, v, np.zeros(len(v), bool))
        flagged.append(
            memorization.rank_similarity(nearest(values[59:]), nearest(values[:59]), 0.05).flagged
        )
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize("gain", [0.05, 0.5, 2.0])
def test_gain_changes_nothing(songs, gain):
    clips = np.stack([melody(7, 3), songs[1][1234 : 1234 + CLIP]])
    plain, louder = (memorization.find_nearest(g * clips, songs[:3], RATE) for g in (1.0, gain))
    np.testing.assert_allclose(louder.similarity, plain.similarity, atol=1e-5)
    np.testing.assert_array_equal(louder.song, plain.song)
    quiet_songs = memorization.find_nearest(clips, [gain * song for song in songs[:3]], RATE)
    np.testing.assert_allclose(quiet_songs.similarity, plain.similarity, atol=1e-5)


def test_an_excerpt_moves_with_its_song(songs):
    """Cut on the frame grid it is exact; the song begun later is found later."""
    start = 50 * HOP
    clip = songs[4][None, start : start + CLIP]
    found = memorization.find_nearest(clip, songs[:6], RATE)
    assert found.song[0] == 4 and found.similarity[0] > 0.99
    assert found.offset[0] == pytest.approx(start / RATE)
    later = [np.concatenate([np.zeros(7 * HOP), song]) for song in songs[:6]]
    moved = memorization.find_nearest(clip, later, RATE)
    assert moved.offset[0] - found.offset[0] == pytest.approx(7 * HOP / RATE)
    assert moved.similarity[0] == pytest.approx(found.similarity[0], abs=1e-5)


def correlation(clip, excerpt):
    """The definition: correlation over time and bands, less a little for what does not move."""
    a, b = clip - clip.mean(axis=0), excerpt - excerpt.mean(axis=0)
    norm = lambda moving, all_: np.sum(moving**2) + memorization.STEADY * np.sum(all_**2)
    return np.sum(a * b) / np.sqrt(norm(a, clip) * norm(b, excerpt))


def test_it_is_the_best_of_all_correlations_one_by_one(songs, monkeypatch):
    """Also where a song lies in several blocks and where the last batch is not full."""
    monkeypatch.setattr(memorization, "BATCH", 3)
    monkeypatch.setattr(memorization, "BLOCK", 10)
    lengths = (20, 2, 5, 20, 3)  # the second is too short
    music = [song[: seconds * RATE] for song, seconds in zip(songs, lengths, strict=False)]
    clips = np.concatenate([melody(300 + k, 3)[None] for k in range(4)])
    found = memorization.find_nearest(clips, music, RATE)
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
        assert found.similarity[k] == pytest.approx(max(best.values()), abs=2e-5)
        at = (found.song[k], round(found.offset[k] * RATE / HOP))
        assert best[at] == pytest.approx(max(best.values()), abs=2e-5)


def test_blocks_of_a_song_s_wave_give_the_features_of_the_whole(songs):
    whole = memorization.band_features(songs[0], RATE)
    frames = 30
    blocks = list(memorization._iterate_blocks(songs[:1], CLIP, frames, 100, RATE))
    assert len(blocks) > 3
    for _, first, block in blocks:
        np.testing.assert_allclose(block, whole[first : first + 100], rtol=1e-5)
    starts = [first + k for _, first, block in blocks for k in range(len(block) - frames + 1)]
    assert starts == list(range(len(whole) - frames + 1))  # every excerpt, once


def test_silence_and_steady_tones_are_near_nothing(songs):
    time = np.arange(CLIP) / RATE
    steady = 0.3 * np.sin(2 * np.pi * 440 * time)
    dither = np.random.default_rng(0).integers(-1, 2, (2, 20 * RATE)) / 32768
    clips = np.stack([np.zeros(CLIP), dither[0, :CLIP], steady])
    music = [np.zeros(20 * RATE), dither[1], np.tile(steady, 3), *songs[:2]]
    found = memorization.find_nearest(clips, music, RATE)
    assert found.silent.tolist() == [True, True, False]
    assert (found.similarity[:2] == 0).all() and found.similarity[2] < 0.3
    verdict = memorization.rank_similarity(found, found._replace(similarity=np.zeros(99)))
    assert not verdict.flagged[:2].any() and (verdict.rank[:2] == 1).all()
    assert memorization.most_similar(found).tolist() == [2]


def test_what_cannot_be_compared_is_an_error(songs):
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
