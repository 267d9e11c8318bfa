"""Metrics of tags against their definitions; thresholds; intervals over songs; corruptions."""

import numpy as np
import pytest

from specdiff_jax.audio import corruptions
from specdiff_jax.evaluation.metrics import classification

RNG = np.random.default_rng(0)
TARGETS = RNG.random((40, 3)) < 0.4
PROBABILITIES = np.clip(0.4 * TARGETS + 0.6 * RNG.random((40, 3)), 0, 1)


def test_roc_auc_and_pr_auc_equal_their_definitions():
    for tag in range(3):
        true, score = TARGETS[:, tag], PROBABILITIES[:, tag]
        won = [(p > n) + 0.5 * (p == n) for p in score[true] for n in score[~true]]
        np.testing.assert_allclose(
            classification.roc_auc(TARGETS, PROBABILITIES)[tag], np.mean(won), atol=1e-12
        )
        order = true[np.argsort(-score)]
        precision = np.cumsum(order) / np.arange(1, len(order) + 1)
        exact = precision[order].mean()
        np.testing.assert_allclose(
            classification.pr_auc(TARGETS, PROBABILITIES)[tag], exact, atol=1e-12
        )


def test_precision_recall_and_f1_equal_their_definitions():
    predictions = PROBABILITIES > 0.5
    hits, predicted, positive = (
        x.sum(axis=0) for x in (predictions & TARGETS, predictions, TARGETS)
    )
    micro = hits.sum() / predicted.sum(), hits.sum() / positive.sum()
    average = lambda kind: classification.average_precision_recall_f1(TARGETS, predictions, kind)
    np.testing.assert_allclose(average("micro")[:2], micro, atol=1e-12)
    f1 = 2 * hits / (predicted + positive)
    macro = (hits / predicted).mean(), (hits / positive).mean(), f1.mean()
    np.testing.assert_allclose(average("macro"), macro, atol=1e-12)
    results = classification.compute_metrics(TARGETS, PROBABILITIES, predictions)
    actual = [results[f"{name}_micro"] for name in ("precision", "recall")]
    np.testing.assert_allclose(actual, micro, atol=1e-12)
    actual = [results[f"{name}_macro"] for name in ("precision", "recall")]
    np.testing.assert_allclose(actual, macro[:2], atol=1e-12)
    rows = classification.tabulate_tags("abc", TARGETS, PROBABILITIES, predictions, np.full(3, 0.5))
    assert [row["support"] for row in rows] == positive.tolist()
    np.testing.assert_allclose([row["f1"] for row in rows], f1, atol=1e-12)
    exact = (predictions == TARGETS).all(axis=1).mean()
    np.testing.assert_allclose(
        classification.subset_accuracy(TARGETS, predictions), exact, atol=1e-12
    )


def test_fit_thresholds_maximize_f1():
    at = classification.fit_thresholds(TARGETS, PROBABILITIES)
    best = classification.tabulate_tags(
        "abc", TARGETS, PROBABILITIES, classification.predict_tags(PROBABILITIES, at), at
    )
    for threshold in np.linspace(0, 1, 101):
        predictions = classification.predict_tags(PROBABILITIES, [threshold] * 3)
        hits = (predictions & TARGETS).sum(axis=0)
        f1 = 2 * hits / (predictions.sum(axis=0) + TARGETS.sum(axis=0))
        assert all(row["f1"] >= other - 1e-12 for row, other in zip(best, f1, strict=True))
    assert not np.isin(at, PROBABILITIES).any()


def test_tag_of_no_song_or_of_all_has_no_area_and_the_default_threshold():
    targets = TARGETS.copy()
    targets[:, 0], targets[:, 1] = False, True
    assert np.isnan(classification.pr_auc(targets, PROBABILITIES)).tolist() == [True, True, False]
    assert classification.fit_thresholds(targets, PROBABILITIES)[:2].tolist() == [0.5, 0.5]
    of_one = classification.roc_auc(targets, PROBABILITIES)[2]
    results = classification.compute_metrics(targets, PROBABILITIES, PROBABILITIES > 0.5)
    np.testing.assert_allclose(results["roc_auc_macro"], of_one)


def test_metric_intervals_contain_the_value_and_confusion_matrix_counts_every_song():
    results = classification.summarize_metrics(
        TARGETS, PROBABILITIES, PROBABILITIES > 0.5, resamples=25
    )
    for name in classification.METRICS:
        assert results[name]["low"] <= results[name]["value"] <= results[name]["high"], name
    predictions = classification.predict_tags(PROBABILITIES, None)
    assert (predictions.sum(axis=1) == 1).all()
    one = np.eye(3, dtype=bool)[np.arange(40) % 3]
    counts = classification.confusion_matrix(one, predictions)
    assert counts.sum() == 40 and np.trace(counts) == (one & predictions).sum()


# ---- corruptions

RATE = 16000
WAVES = 0.1 * RNG.standard_normal((2, RATE)).astype(np.float32)


def test_add_white_noise_has_the_requested_snr_and_apply_gain_clips():
    noise = corruptions.add_white_noise(WAVES, RATE, 10.0) - WAVES
    ratio = 10 * np.log10((WAVES**2).mean() / (noise**2).mean())
    np.testing.assert_allclose(ratio, 10, atol=0.1)
    np.testing.assert_allclose(corruptions.apply_gain(WAVES, RATE, -20.0), 0.1 * WAVES, rtol=1e-5)
    assert np.abs(corruptions.apply_gain(WAVES, RATE, 60.0)).max() == 1


def test_apply_low_pass_keeps_frequencies_below_and_removes_those_above():
    time = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * time)[None].astype(np.float32) for f in (500, 6000))
    inside = slice(2000, -2000)  # without the transients of the filter
    filtered = corruptions.apply_low_pass(low, RATE, 2000.0)[:, inside]
    np.testing.assert_allclose(filtered, low[:, inside], atol=1e-3)
    assert np.abs(corruptions.apply_low_pass(high, RATE, 2000.0)[:, inside]).max() < 1e-3
    assert corruptions.apply_low_pass(high, RATE, 8000.0) is high


@pytest.mark.parametrize("channels", [1, 2])
def test_code_mp3_keeps_the_shape_and_most_of_a_tone(channels):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    waves = np.broadcast_to(tone, (2, *(channels,) * (channels > 1), RATE))
    back = corruptions.code_mp3(waves, RATE, 0.99)
    assert back.shape == waves.shape and not np.array_equal(back, waves)
    spectrum = np.abs(np.fft.rfft(back.reshape(-1, RATE)[0]))
    assert spectrum.argmax() == 440
    np.testing.assert_allclose(back[..., 2000:-2000].std(), tone.std(), rtol=0.1)


def test_shift_pitch_doubles_the_frequency_and_keeps_the_length():
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    higher = corruptions.shift_pitch(tone[None], RATE, 12.0)[0]
    assert len(higher) == RATE and abs(np.abs(np.fft.rfft(higher)).argmax() - 880) <= 5


def test_f1_interval_of_rare_tags_is_not_biased_low():
    """Every draw is all right, with or without the one song of the second tag."""
    targets = np.zeros((20, 2), bool)
    targets[::2, 0] = targets[0, 1] = True
    probabilities = np.where(targets, 0.9, 0.1)
    results = classification.summarize_metrics(targets, probabilities, targets, resamples=40)
    assert results["f1_macro"] == {"value": 1.0, "low": 1.0, "high": 1.0}
