"""Labels that a text names: what captions tell is read, what they do not tell never is."""

import json

import numpy as np
import pytest

from specdiff_jax.conditioning import label_reader

NAMES = ("mode:major", "mode:minor", "instrument:flute", "instrument:harp", "key:F", "loud")


@pytest.fixture(scope="module")
def captions():
    """(told [N, V], vectors [N, P], songs [N]): a song has three captions, one tells no mode.

    A direction stands for each label but the key, which no caption tells.
    """
    rng = np.random.default_rng(0)
    songs = np.repeat(np.arange(150), 3)
    own = np.zeros((150, 6), bool)
    own[np.arange(150), rng.integers(0, 2, 150)] = True
    own[:, 2:] = rng.random((150, 4)) < 0.4
    told = own[songs]
    said = told.copy()
    said[::3, :2] = False
    said[:, 4] = False
    directions = rng.standard_normal((6, 24))
    return told, said @ directions + 0.2 * rng.standard_normal((450, 24)), songs, directions


@pytest.fixture(scope="module")
def kept(captions):
    told, vectors, songs, _ = captions
    return json.loads(json.dumps(label_reader.fit(NAMES, told, vectors, songs)))


@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_a_text_names_the_labels_whose_directions_it_has_at_any_length(captions, kept, size):
    directions = captions[-1]
    for named in [(0, 2), (1, 3, 5), (1,), (0, 2, 3, 5)]:
        text = size * directions[list(named)].sum(axis=0)
        assert label_reader.infer_labels(kept, text) == tuple(NAMES[index] for index in named)


def test_what_captions_do_not_tell_is_never_read(captions, kept):
    assert kept["labels"] == [name for name in NAMES if name != "key:F"]
    told, vectors, songs, _ = captions
    shuffled = np.random.default_rng(1).permutation(vectors)
    assert label_reader.fit(NAMES[:2], told[:, :2], shuffled, songs) is None


def test_of_a_kind_that_a_song_has_once_only_the_surest_is_read(captions, kept):
    directions = captions[-1]
    assert kept["alone"] == ["key", "mode"]
    assert label_reader.infer_labels(kept, 2 * directions[0] + directions[1]) == ("mode:major",)
    assert label_reader.infer_labels(kept, directions[0] + 2 * directions[1]) == ("mode:minor",)
    assert label_reader.infer_labels(kept, directions[2] + directions[3]) == NAMES[2:4]


def test_of_captions_of_other_songs_nine_in_ten_are_read_right(captions):
    """The promise of a threshold, where captions are as vague as each likes."""
    rng = np.random.default_rng(2)
    told, vectors, songs, _ = captions
    vague = vectors + rng.exponential(2.0, (len(vectors), 1)) * rng.standard_normal(vectors.shape)
    learned, others = songs < 100, songs >= 100
    kept = label_reader.fit(NAMES, told[learned], vague[learned], songs[learned])
    read = [label_reader.infer_labels(kept, vector) for vector in vague[others]]
    right = [
        truth[NAMES.index(name)]
        for names, truth in zip(read, told[others], strict=True)
        for name in names
    ]
    assert len(right) > 100 and np.mean(right) > label_reader.SURE - 0.06


def test_a_threshold_is_the_lowest_score_that_is_right_often_enough():
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0])
    right = np.array([1, 1, 1, 1, 1, 0, 0], bool)
    assert label_reader.find_threshold(scores, right) == 5.0
    assert label_reader.find_threshold(scores[::-1], right[::-1]) == 5.0
    assert label_reader.find_threshold(scores, ~right) == np.inf  # the surest are wrong
    assert label_reader.find_threshold(scores[:2], right[:2]) == np.inf  # too few to know
    # The same score cannot be told apart: both are read, or none.
    assert label_reader.find_threshold(np.array([9.0, 8.0, 7.0, 7.0, 7.0]), right[2:]) == np.inf
