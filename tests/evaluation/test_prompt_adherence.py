"""Is what was asked for heard? By a listener that is right, one that guesses, and a joint space."""

import types

import numpy as np
import pytest

from specdiff_jax.evaluation import controls, evaluate, label_classifier, prompt_adherence

ENTRIES = [{"labels": [f"instrument:{name}", "mode:minor"]} for name in ("harp", "organ") * 40]


class Listener:
    """Thinks of two instruments: sure of its own, to a degree, whatever the clip."""

    def __init__(self, sure, values):
        first = np.where(values, sure, 1 - sure)
        self.thought = np.stack([first, 1 - first], axis=1)

    def likely(self, heard):
        return {"instrument": self.thought[heard]}

    def most(self, thought):
        names = np.array(["harp", "organ"])
        return {kind: names[np.argmax(each, axis=1)] for kind, each in thought.items()}


def clips(count):
    return controls.Clips("made", "generated", np.zeros((count, 8), np.float32), np.arange(count))


def test_a_right_listener_hears_all_and_chance_is_the_share_of_alike_wishes():
    right = np.arange(80) % 2 == 0
    (row,) = prompt_adherence.score_clips(Listener(0.9, right), clips(80), np.arange(80), ENTRIES)
    assert row["accuracy"] == 1.0 and row["chance"] == pytest.approx(0.5, abs=0.1)
    wrong = np.roll(np.arange(80), 1)
    (row,) = prompt_adherence.score_clips(Listener(0.9, right), clips(80), wrong, ENTRIES)
    assert row["accuracy"] == 0.0 and row["set"] == "made"


def test_divergences_are_zero_between_equals_and_closed_form_between_opposites():
    right, own = np.arange(80) % 2 == 0, np.arange(80)
    listener = Listener(0.9, right)
    (same,) = prompt_adherence.score_clips(listener, clips(80), own, ENTRIES, real=own)
    assert same["kl_real_to_generated"] == pytest.approx(0, abs=1e-9)
    (other,) = prompt_adherence.score_clips(listener, clips(80), np.roll(own, 1), ENTRIES, real=own)
    sure = (0.9 + label_classifier.PROBABILITY_FLOOR) / (1 + 2 * label_classifier.PROBABILITY_FLOOR)
    exact = (2 * sure - 1) * np.log(sure / (1 - sure))
    assert other["kl_real_to_generated"] == pytest.approx(exact, rel=1e-6)
    assert other["kl_generated_to_real"] == pytest.approx(exact, rel=1e-6)
    assert 0.3 * exact < same["kl_real_to_shuffled"] < 0.7 * exact


def test_clips_are_like_their_own_texts_and_not_like_those_of_others():
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((30, 256))
    windows = 5 * texts[:, None] + rng.standard_normal((30, 3, 256))
    found = prompt_adherence.text_similarity(windows, texts)
    assert found["similarity"]["value"] == pytest.approx(5 / np.sqrt(26), abs=0.01)
    assert found["shuffled"]["low"] < 0 < found["shuffled"]["high"]
    two = prompt_adherence.text_similarity(windows[:2], texts[:2])  # of two, each gets the other's
    crossed = np.mean([windows[a] @ texts[1 - a] for a in (0, 1)])
    assert np.sign(two["shuffled"]["value"]) == np.sign(crossed)


def test_only_what_was_asked_for_by_captions_is_held_against_them(monkeypatch):
    texts = np.eye(4)
    heard = {
        name: (np.repeat(texts[:, None], 2, axis=1), np.arange(4))
        for name in ("generated", "white noise", controls.UNTRAINED)
    }
    kinds = {"generated": "generated", "white noise": "control", controls.UNTRAINED: "control"}
    sets = [controls.Clips(name, kind, None, None) for name, kind in kinds.items()]
    like = controls.Clips("real music, asked for", "real", None, None)
    m = types.SimpleNamespace(asked=[{"captions": ["a"]}] * 4, like=like, rep=None)
    real = texts[::-1, None]
    monkeypatch.setattr(evaluate, "embed_set", lambda embedder, clips, rep: (real, None))
    ear = types.SimpleNamespace(name="path:ear", embed_text=lambda captions: texts[: len(captions)])
    rows = evaluate.measure_text_similarity(ear, m, sets, heard)
    assert [row["set"] for row in rows] == ["generated", controls.UNTRAINED, like.name]
    assert [row["similarity"]["value"] for row in rows] == [1.0, 1.0, 0.0]
    m.asked[0] = {"captions": []}
    assert evaluate.measure_text_similarity(ear, m, sets, heard) == []
    deaf = types.SimpleNamespace(name="logmel", embed_text=None)
    assert evaluate.measure_text_similarity(deaf, m, sets, heard) == []


def test_kinds_are_what_stands_before_the_colon():
    assert prompt_adherence.list_kinds(["mode:minor", "loud", "mode:major", "key:a"]) == (
        "mode",
        "key",
    )
    assert label_classifier.get_values({"labels": ["mode:minor", "key:a"]}, "mode") == ["minor"]
