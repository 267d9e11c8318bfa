"""Labels are inferred from texts where captions name them, and never otherwise."""

import json

import numpy as np
import pytest

from specdiff_jax.conditioning import label_reader

NAMES = ("mode:major", "mode:minor", "instrument:flute", "instrument:harp", "key:F", "loud")


@pytest.fixture(scope="module")
def captions():
    """Return (labels [N, V], vectors [N, P], songs [N], directions [V, P]) of captions.

    Each label but the key, which no caption names, adds its direction to the vector. One of three
    captions of a song names no mode.
    """
    rng = np.random.default_rng(0)
    songs = np.repeat(np.arange(150), 3)
    own = np.zeros((150, 6), bool)
    own[np.arange(150), rng.integers(0, 2, 150)] = True
    own[:, 2:] = rng.random((150, 4)) < 0.4
    labels = own[songs]
    named = labels.copy()
    named[::3, :2] = False
    named[:, 4] = False
    directions = rng.standard_normal((6, 24))
    return labels, named @ directions + 0.2 * rng.standard_normal((450, 24)), songs, directions


@pytest.fixture(scope="module")
def reader(captions):
    labels, vectors, songs, _ = captions
    return json.loads(json.dumps(label_reader.fit(NAMES, labels, vectors, songs)))


@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_labels_are_inferred_from_vectors_of_any_length(captions, reader, size):
    directions = captions[-1]
    for named in [(0, 2), (1, 3, 5), (1,), (0, 2, 3, 5)]:
        text = size * directions[list(named)].sum(axis=0)
        assert label_reader.infer_labels(reader, text) == tuple(NAMES[index] for index in named)


def test_labels_that_captions_do_not_name_are_never_inferred(captions, reader):
    assert reader["labels"] == [name for name in NAMES if name != "key:F"]
    labels, vectors, songs, _ = captions
    shuffled = np.random.default_rng(1).permutation(vectors)
    assert label_reader.fit(NAMES[:2], labels[:, :2], shuffled, songs) is None


def test_exclusive_kind_has_its_best_label_alone(captions, reader):
    directions = captions[-1]
    assert reader["exclusive"] == ["key", "mode"]
    assert label_reader.infer_labels(reader, 2 * directions[0] + directions[1]) == ("mode:major",)
    assert label_reader.infer_labels(reader, directions[0] + 2 * directions[1]) == ("mode:minor",)
    assert label_reader.infer_labels(reader, directions[2] + directions[3]) == NAMES[2:4]


def test_labels_of_other_songs_are_inferred_with_the_promised_precision(captions):
    """Evaluate on captions with noise of different levels."""
    rng = np.random.default_rng(2)
    labels, vectors, songs, _ = captions
    vague = vectors + rng.exponential(2.0, (len(vectors), 1)) * rng.standard_normal(vectors.shape)
    fitted, others = songs < 100, songs >= 100
    reader = label_reader.fit(NAMES, labels[fitted], vague[fitted], songs[fitted])
    inferred = [label_reader.infer_labels(reader, vector) for vector in vague[others]]
    right = [
        row[NAMES.index(name)]
        for names, row in zip(inferred, labels[others], strict=True)
        for name in names
    ]
    assert len(right) > 100 and np.mean(right) > label_reader.MIN_PRECISION - 0.06


def test_threshold_is_the_lowest_score_with_enough_precision():
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0])
    right = np.array([1, 1, 1, 1, 1, 0, 0], bool)
    assert label_reader.find_threshold(scores, right) == 5.0
    assert label_reader.find_threshold(scores[::-1], right[::-1]) == 5.0
    assert label_reader.find_threshold(scores, ~right) == np.inf  # the highest scores are wrong
    assert label_reader.find_threshold(scores[:2], right[:2]) == np.inf  # too few
    # Labels with the same score are inferred together, or none is.
    assert label_reader.find_threshold(np.array([9.0, 8.0, 7.0, 7.0, 7.0]), right[2:]) == np.inf
