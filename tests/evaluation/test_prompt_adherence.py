"""Prompt adherence scores a right classifier 1, a wrong one 0, and matched texts above others."""

import types

import numpy as np
import pytest

from specdiff_jax.evaluation import controls, evaluate, label_classifier, prompt_adherence

ENTRIES = [{"labels": [f"instrument:{name}", "mode:minor"]} for name in ("harp", "organ") * 40]


class StubClassifier:
    """Predicts "harp" with a given confidence where `is_harp`, "organ" elsewhere."""

    def __init__(self, confidence, is_harp):
        first = np.where(is_harp, confidence, 1 - confidence)
        self.probabilities = np.stack([first, 1 - first], axis=1)

    def predict_probabilities(self, places):
        return {"instrument": self.probabilities[places]}

    def most_probable(self, probabilities):
        names = np.array(["harp", "organ"])
        return {kind: names[np.argmax(p, axis=1)] for kind, p in probabilities.items()}


def zero_clips(count):
    return controls.Clips("set", "generated", np.zeros((count, 8), np.float32), np.arange(count))


def test_score_clips_is_1_of_a_right_and_0_of_a_wrong_classifier():
    is_harp, clips = np.arange(80) % 2 == 0, zero_clips(80)
    classifier = StubClassifier(0.9, is_harp)
    (row,) = prompt_adherence.score_clips(classifier, clips, np.arange(80), ENTRIES)
    assert row["accuracy"] == 1.0 and row["chance"] == pytest.approx(0.5, abs=0.1)
    wrong = np.roll(np.arange(80), 1)
    (row,) = prompt_adherence.score_clips(classifier, clips, wrong, ENTRIES)
    assert row["accuracy"] == 0.0 and row["set"] == "set"


def test_divergence_is_zero_of_equals_and_closed_form_of_opposites():
    is_harp, own, clips = np.arange(80) % 2 == 0, np.arange(80), zero_clips(80)
    classifier = StubClassifier(0.9, is_harp)
    (same,) = prompt_adherence.score_clips(classifier, clips, own, ENTRIES, real=own)
    assert same["kl_real_to_generated"] == pytest.approx(0, abs=1e-9)
    opposite = np.roll(own, 1)
    (other,) = prompt_adherence.score_clips(classifier, clips, opposite, ENTRIES, real=own)
    floor = label_classifier.PROBABILITY_FLOOR
    p = (0.9 + floor) / (1 + 2 * floor)
    exact = (2 * p - 1) * np.log(p / (1 - p))
    assert other["kl_real_to_generated"] == pytest.approx(exact, rel=1e-6)
    assert other["kl_generated_to_real"] == pytest.approx(exact, rel=1e-6)
    assert 0.3 * exact < same["kl_real_to_shuffled"] < 0.7 * exact


def test_text_similarity_is_high_of_own_texts_and_zero_of_others():
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((30, 256))
    windows = 5 * texts[:, None] + rng.standard_normal((30, 3, 256))
    scores = prompt_adherence.text_similarity(windows, texts)
    assert scores["similarity"]["value"] == pytest.approx(5 / np.sqrt(26), abs=0.01)
    assert scores["shuffled"]["low"] < 0 < scores["shuffled"]["high"]
    two = prompt_adherence.text_similarity(windows[:2], texts[:2])  # each gets the other's
    crossed = np.mean([windows[a] @ texts[1 - a] for a in (0, 1)])
    assert np.sign(two["shuffled"]["value"]) == np.sign(crossed)


def test_text_similarity_covers_only_prompted_sets(monkeypatch):
    texts = np.eye(4)
    kinds = {"generated": "generated", "white noise": "control", controls.UNTRAINED: "control"}
    vectors = {name: (np.repeat(texts[:, None], 2, axis=1), np.arange(4)) for name in kinds}
    sets = [controls.Clips(name, kind, None, None) for name, kind in kinds.items()]
    music = controls.Clips("real music of the prompts", "real", None, None)
    entries = [{"captions": ["a"]}] * 4
    inputs = types.SimpleNamespace(prompt_entries=entries, prompt_music=music, rep=None)
    real = texts[::-1, None]
    monkeypatch.setattr(evaluate, "embed_set", lambda embedder, clips, rep: (real, None))
    embed_text = lambda captions: texts[: len(captions)]
    joint = types.SimpleNamespace(name="path:joint", embed_text=embed_text)
    rows = evaluate.measure_text_similarity(joint, inputs, sets, vectors)
    assert [row["set"] for row in rows] == ["generated", controls.UNTRAINED, music.name]
    assert [row["similarity"]["value"] for row in rows] == [1.0, 1.0, 0.0]
    inputs.prompt_entries[0] = {"captions": []}
    assert evaluate.measure_text_similarity(joint, inputs, sets, vectors) == []
    sound_only = types.SimpleNamespace(name="logmel", embed_text=None)
    assert evaluate.measure_text_similarity(sound_only, inputs, sets, vectors) == []


def test_list_kinds_is_the_text_before_the_colon():
    labels = ["mode:minor", "loud", "mode:major", "key:a"]
    assert prompt_adherence.list_kinds(labels) == ("mode", "key")
    assert label_classifier.get_values({"labels": ["mode:minor", "key:a"]}, "mode") == ["minor"]
