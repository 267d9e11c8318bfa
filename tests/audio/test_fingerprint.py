"""Copies of one recording are found whatever was done to them; other music never is."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from specdiff_jax.audio import files, fingerprint
from tests.helpers import synth

RATE = 22_050
SECONDS = 20
SONGS = 6


def melody(seed, seconds=SECONDS, beat=0.25, instruments=2):
    """Random decaying notes of a C major scale, in `instruments` random timbres.  # [N] float32"""
    random = np.random.default_rng(seed)
    scale = 261.6 * 2 ** (np.array([-12, -10, -8, -7, -5, -3, -1, 0, 2, 4, 5, 7, 9, 11, 12]) / 12)
    wave = np.zeros(int(seconds * RATE), np.float32)
    for _ in range(instruments):
        partials, decay = random.integers(2, 9), random.uniform(2, 8)
        start = 0.0
        while start < seconds - 1:
            note = synth.harmonics(random.choice(scale), 1.0, RATE, partials)
            time = np.arange(len(note)) / RATE
            first = int(start * RATE)
            wave[first : first + len(note)] += note * np.exp(-decay * time) * random.uniform(0.3, 1)
            start += beat * random.integers(1, 4)
    return wave


def drums(seconds=SECONDS):
    """One bar of two seconds of kick, snare and hat, the same samples in every bar."""
    random = np.random.default_rng(99)
    time = np.arange(int(0.3 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (50 * time + 5 * (1 - np.exp(-30 * time)))) * np.exp(-12 * time)
    snare = random.standard_normal(len(time)) * np.exp(-18 * time)
    hat = 0.3 * np.diff(random.standard_normal(len(time) + 1)) * np.exp(-60 * time)
    bar = np.zeros(2 * RATE)
    for eighth in range(8):
        first = eighth * RATE // 4
        hit = hat + kick * (eighth in (0, 4, 5)) + snare * (eighth in (2, 6))
        bar[first : first + len(hit)] += hit[: len(bar) - first]
    return np.tile(bar, seconds // 2).astype(np.float32) * 0.3


def marks(wave, sample_rate=RATE):
    return fingerprint.fingerprint(wave, sample_rate)


def coded(wave, **settings):
    """Through a lossy encoder and back."""
    sound = io.BytesIO()
    soundfile.write(sound, wave, RATE, **settings)
    sound.seek(0)
    return soundfile.read(sound, dtype="float32")


def noisy(wave):
    noise = np.random.default_rng(5).standard_normal(len(wave)).astype(np.float32)
    return wave + noise * wave.std() * 10 ** (-30 / 20)


COPIES = {
    "int16": lambda wave: (files.to_int16(wave), RATE),
    "12 dB down": lambda wave: (files.to_int16(wave * 10 ** (-12 / 20)), RATE),
    "trimmed": lambda wave: (wave[int(3.017 * RATE) : -10 * RATE], RATE),
    "16 kHz": lambda wave: (soxr.resample(wave, RATE, 16_000), 16_000),
    "44.1 kHz": lambda wave: (soxr.resample(wave, RATE, 44_100), 44_100),
    "noise at -30 dB": lambda wave: (noisy(wave), RATE),
    "mp3 at 32 kbit/s": lambda wave: coded(
        wave, format="MP3", compression_level=0.84, bitrate_mode="CONSTANT"
    ),
    "the lowest Vorbis": lambda wave: coded(wave, format="OGG", compression_level=1.0),
}


@pytest.fixture(scope="module")
def songs():
    return [melody(seed) for seed in range(SONGS)]


@pytest.fixture(scope="module")
def originals(songs):
    return [marks(song) for song in songs]


@pytest.mark.parametrize("copy", COPIES)
def test_find_duplicates_finds_copies_alone(songs, originals, copy):
    copies = [marks(*COPIES[copy](song)) for song in songs[:3]]
    pairs = fingerprint.find_duplicates(originals + copies)
    assert [pair[:2] for pair in pairs] == [(k, SONGS + k) for k in range(3)]
    assert all(score > 1.5 * fingerprint.MIN_SCORE for _, _, score in pairs)


def test_other_pieces_score_far_below_the_threshold(originals):
    pairs = fingerprint.find_duplicates(originals, 0.0, 0)
    assert len(pairs) > 5 and max(pair[2] for pair in pairs) < 0.5 * fingerprint.MIN_SCORE


def test_the_same_drum_loop_or_the_same_chords_do_not_make_a_copy(songs):
    accompaniment = synth.chords([130.8, 174.6, 196.0, 130.8] * 5, 1.0, RATE)
    for shared in (drums(), 0.5 * accompaniment):
        pieces = [marks(song + shared) for song in songs]
        assert not fingerprint.find_duplicates(pieces)


def test_a_power_of_two_of_gain_changes_nothing(songs, originals):
    np.testing.assert_array_equal(marks(songs[0] / 8), originals[0])


def test_trimming_moves_the_frames_and_keeps_the_hashes(songs, originals):
    whole = {tuple(mark) for mark in originals[0]}
    later = marks(songs[0][5 * RATE :]) + [0, 5 * 32]
    kept = sum(tuple(mark) in whole for mark in later)
    assert kept > 0.9 * len(later) > 50


def test_blocks_leave_no_seams(songs, originals, monkeypatch):
    monkeypatch.setattr(fingerprint, "BLOCK", 3)
    ours = {tuple(mark) for mark in marks(songs[0])}
    theirs = {tuple(mark) for mark in originals[0]}
    assert len(ours & theirs) > 0.99 * len(ours | theirs)


def test_the_order_of_songs_does_not_matter(songs, originals):
    music = originals + [marks(*COPIES["trimmed"](song)) for song in songs[:3]]
    order = np.random.default_rng(0).permutation(len(music))
    shuffled = fingerprint.find_duplicates([music[k] for k in order])
    result = {tuple(sorted((order[i], order[j]))) for i, j, _ in shuffled}
    assert result == {pair[:2] for pair in fingerprint.find_duplicates(music)} and len(result) == 3


def by_hand(a, b):
    """The score of two songs, from the definition: best two neighbouring bins of offsets."""
    times = [{h: [t for g, t in song if g == h] for h, _ in song} for song in (a, b)]
    bins = {}
    for h in times[0].keys() & times[1].keys():
        vote = 1 / min(len(times[0][h]), len(times[1][h]))
        for t in times[0][h]:
            for u in times[1][h]:
                at = (u - t) // fingerprint.STEP
                bins[at] = bins.get(at, 0) + vote
    best = max((votes + bins.get(at + 1, 0) for at, votes in bins.items()), default=0)
    return min(1.0, best / min(len(times[0]), len(times[1])))


def test_scores_are_the_definition_s():
    random = np.random.default_rng(0)
    music = [random.integers(0, [60, 40], (n, 2)).tolist() for n in (30, 80, 50, 60)]
    pairs = fingerprint.find_duplicates([np.array(song, np.int32) for song in music], 0.0, 0.0)
    assert [pair[:2] for pair in pairs] == [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for i, j, score in pairs:
        assert score == pytest.approx(by_hand(music[i], music[j]))


def test_what_everybody_shares_says_nothing():
    marks = np.stack([np.arange(100), np.arange(100)], axis=1).astype(np.int32)
    assert len(fingerprint.find_duplicates([marks] * 3)) == 3
    assert not fingerprint.find_duplicates([marks] * (fingerprint.COMMON + 1))


def test_silence_has_no_marks_and_never_matches():
    dither = np.random.default_rng(0).integers(-1, 2, 5 * RATE).astype(np.int16)
    silent = [np.zeros(5 * RATE), np.zeros(0), np.zeros(10, np.int16), dither]
    silent = [marks(wave) for wave in silent]
    assert all(result.shape == (0, 2) for result in silent)
    assert not fingerprint.find_duplicates(silent) and not fingerprint.find_duplicates([])


@pytest.mark.parametrize("sound", ["music", "noise", "tone", "clicks"])
def test_marks_are_few_whatever_the_sound(originals, sound):
    wave = {
        "music": melody(0),
        "noise": np.random.default_rng(0).uniform(-0.5, 0.5, SECONDS * RATE),
        "tone": synth.harmonics(1000.0, SECONDS, RATE),
        "clicks": np.arange(SECONDS * RATE) % 5000 == 0,
    }[sound].astype(np.float32)
    result = marks(wave)
    assert len(result) <= fingerprint.PEAKS * fingerprint.PARTNERS * SECONDS
    assert (np.diff(result[:, 1]) >= 0).all() and result[:, 0].max(initial=0) < 2**24
    assert sound != "music" or len(result) > 5 * SECONDS


def test_groups_are_all_that_a_chain_of_pairs_joins():
    random = np.random.default_rng(0)
    pairs = [(*sorted(random.choice(20, 2, replace=False)), 0.5) for _ in range(12)]
    joined = np.eye(20, dtype=int)
    for i, j, _ in pairs:
        joined[i, j] = joined[j, i] = 1
    reached = np.linalg.matrix_power(joined, 20) > 0
    group = fingerprint.group_songs(20, pairs)
    np.testing.assert_array_equal(group[:, None] == group[None, :], reached)
    assert set(group.tolist()) == set(range(max(group) + 1))
    np.testing.assert_array_equal(fingerprint.group_songs(3, []), [0, 1, 2])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_tone_in_the_band_keeps_its_height_and_place_and_one_above_it_goes(rate):
    time = np.arange(2 * rate) / rate
    ours = np.arange(2 * fingerprint.RATE) / fingerprint.RATE
    inside = slice(100, -100)
    for hertz in (100, 700, 1200):
        slow = fingerprint._slow(np.sin(2 * np.pi * hertz * time).astype(np.float32), rate)
        wanted = np.sin(2 * np.pi * hertz * ours)
        assert np.abs(slow - wanted)[inside].max() < 0.05
    slow = fingerprint._slow(np.sin(2 * np.pi * 3300 * time).astype(np.float32), rate)
    assert np.abs(slow[inside]).max() < 0.05
