"""Scores of tags against their definitions; thresholds; intervals over songs; spoiled sound."""

import numpy as np
import pytest

from specdiff_jax.audio import corruptions
from specdiff_jax.evaluation.metrics import classification

RNG = np.random.default_rng(0)
TRUTH = RNG.random((40, 3)) < 0.4
LIKELY = np.clip(0.4 * TRUTH + 0.6 * RNG.random((40, 3)), 0, 1)


def test_areas_are_what_they_are_defined_as():
    for tag in range(3):
        true, score = TRUTH[:, tag], LIKELY[:, tag]
        won = [(p > n) + 0.5 * (p == n) for p in score[true] for n in score[~true]]
        np.testing.assert_allclose(
            classification.roc_auc(TRUTH, LIKELY)[tag], np.mean(won), atol=1e-12
        )
        order = true[np.argsort(-score)]
        precision = np.cumsum(order) / np.arange(1, len(order) + 1)
        exact = precision[order].mean()
        np.testing.assert_allclose(classification.pr_auc(TRUTH, LIKELY)[tag], exact, atol=1e-12)


def test_precision_recall_and_f1_are_what_they_are_defined_as():
    said = LIKELY > 0.5
    hit, spoken, there = (x.sum(axis=0) for x in (said & TRUTH, said, TRUTH))
    micro = hit.sum() / spoken.sum(), hit.sum() / there.sum()
    np.testing.assert_allclose(
        classification.average_precision_recall_f1(TRUTH, said, "micro")[:2], micro, atol=1e-12
    )
    f1 = 2 * hit / (spoken + there)
    macro = (hit / spoken).mean(), (hit / there).mean(), f1.mean()
    np.testing.assert_allclose(
        classification.average_precision_recall_f1(TRUTH, said, "macro"), macro, atol=1e-12
    )
    found = classification.compute_metrics(TRUTH, LIKELY, said)  # of valid too
    there_is = [found[f"{name}_micro"] for name in ("precision", "recall")]
    np.testing.assert_allclose(there_is, micro, atol=1e-12)
    there_is = [found[f"{name}_macro"] for name in ("precision", "recall")]
    np.testing.assert_allclose(there_is, macro[:2], atol=1e-12)
    rows = classification.tabulate_tags("abc", TRUTH, LIKELY, said, np.full(3, 0.5))
    assert [row["support"] for row in rows] == there.tolist()
    np.testing.assert_allclose([row["f1"] for row in rows], f1, atol=1e-12)
    exact = (said == TRUTH).all(axis=1).mean()
    np.testing.assert_allclose(classification.subset_accuracy(TRUTH, said), exact, atol=1e-12)


def test_fit_thresholds_maximize_f1():
    likely = LIKELY
    at = classification.fit_thresholds(TRUTH, LIKELY)
    best = classification.tabulate_tags(
        "abc", TRUTH, LIKELY, classification.predict_tags(LIKELY, at), at
    )
    for edge in np.linspace(0, 1, 101):
        other = classification.tabulate_tags("abc", TRUTH, LIKELY, likely >= edge, at)
        assert all(b["f1"] >= o["f1"] - 1e-12 for b, o in zip(best, other, strict=True))
    assert not np.isin(at, LIKELY).any()


def test_a_tag_of_no_song_or_of_all_has_no_area_and_no_threshold_of_its_own():
    truth = TRUTH.copy()
    truth[:, 0], truth[:, 1] = False, True
    assert np.isnan(classification.pr_auc(truth, LIKELY)).tolist() == [True, True, False]
    assert classification.fit_thresholds(truth, LIKELY)[:2].tolist() == [0.5, 0.5]
    of_one = classification.roc_auc(truth, LIKELY)[2]
    mean = classification.compute_metrics(truth, LIKELY, LIKELY > 0.5)["roc_auc_macro"]
    np.testing.assert_allclose(mean, of_one)


def test_intervals_hold_the_value_and_the_confusion_counts_every_song():
    found = classification.summarize_metrics(TRUTH, LIKELY, LIKELY > 0.5, resamples=50)
    for name in classification.METRICS:
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
    said = classification.predict_tags(LIKELY, None)
    assert (said.sum(axis=1) == 1).all()
    one = np.eye(3, dtype=bool)[np.arange(40) % 3]
    counts = classification.confusion_matrix(one, said)
    assert counts.sum() == 40 and np.trace(counts) == (one & said).sum()


# ---- spoiled sound

RATE = 16000
WAVES = 0.1 * RNG.standard_normal((2, RATE)).astype(np.float32)


def test_noise_is_as_loud_as_said_and_gain_clips():
    noise = corruptions.add_white_noise(WAVES, RATE, 10.0) - WAVES
    ratio = 10 * np.log10((WAVES**2).mean() / (noise**2).mean())
    np.testing.assert_allclose(ratio, 10, atol=0.1)
    np.testing.assert_allclose(corruptions.apply_gain(WAVES, RATE, -20.0), 0.1 * WAVES, rtol=1e-5)
    assert np.abs(corruptions.apply_gain(WAVES, RATE, 60.0)).max() == 1


def test_a_low_pass_leaves_what_is_below_and_removes_what_is_above():
    time = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * time)[None].astype(np.float32) for f in (500, 6000))
    inside = slice(2000, -2000)  # the filter begins and ends somewhere
    found = corruptions.apply_low_pass(low, RATE, 2000.0)[:, inside]
    np.testing.assert_allclose(found, low[:, inside], atol=1e-3)
    assert np.abs(corruptions.apply_low_pass(high, RATE, 2000.0)[:, inside]).max() < 1e-3
    assert corruptions.apply_low_pass(high, RATE, 8000.0) is high


@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_keeps_the_shape_and_most_of_a_tone(channels):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    waves = np.broadcast_to(tone, (2, *(channels,) * (channels > 1), RATE))
    back = corruptions.code_mp3(waves, RATE, 0.99)
    assert back.shape == waves.shape and not np.array_equal(back, waves)
    spectrum = np.abs(np.fft.rfft(back.reshape(-1, RATE)[0]))
    assert spectrum.argmax() == 440
    np.testing.assert_allclose(back[..., 2000:-2000].std(), tone.std(), rtol=0.1)


def test_a_shift_of_pitch_moves_a_tone_and_keeps_its_length():
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    higher = corruptions.shift_pitch(tone[None], RATE, 12.0)[0]
    assert len(higher) == RATE and abs(np.abs(np.fft.rfft(higher)).argmax() - 880) <= 5


def test_interval_of_rare_tags_is_not_biased_low():
    """All is right, so every draw says so, with or without the one song of the second tag."""
    truth = np.zeros((20, 2), bool)
    truth[::2, 0] = truth[0, 1] = True
    found = classification.summarize_metrics(truth, np.where(truth, 0.9, 0.1), truth, resamples=100)
    assert found["f1_macro"] == {"value": 1.0, "low": 1.0, "high": 1.0}
