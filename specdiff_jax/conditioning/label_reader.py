"""Labels that a text names, inferred from its pooled vector by linear maps fitted to captions.

A network that was trained on few songs responds to the words of their captions and to few others;
the text encoder places other words for the same near them. Inferred labels are a condition as if
the user had written them too.
"""

import base64

import numpy as np

from specdiff_jax.conditioning.labels import label_table
from specdiff_jax.conditioning.text import caption_table

PENALTY = 0.1  # of the ridge regression, for vectors of unit length
MIN_PRECISION = 0.9  # of a label over the captions in which it is inferred
MIN_CORRECT = 3  # captions in which it is inferred correctly, for it to be inferred at all
FOLDS = 5  # of the songs: a caption is scored by a fit to other songs


def fit(names, labels, vectors, songs):
    """Fit the reader that `infer_labels` needs; None where no label can be inferred.

    Each label has a ridge regression on the vectors. Its threshold is the lowest score, among
    songs left out of the fit, with MIN_PRECISION; a label that captions do not name has none.

    Args:
      names: V labels. labels: [N, V] bool, those of the song of each of N captions.
      vectors: [N, P] pooled features of the captions. songs: [N] int, the song of each.

    Returns:
      A dict for `json`.
    """
    x, y, fold = append_one(vectors), labels.astype(np.float64), songs % FOLDS
    parts = [x[fold == k] for k in range(FOLDS)]
    squares = np.stack([part.T @ part for part in parts])  # [FOLDS, P + 1, P + 1]
    products = np.stack([part.T @ y[fold == k] for k, part in enumerate(parts)])
    scores = np.empty(y.shape)
    for k, part in enumerate(parts):
        others = np.arange(FOLDS) != k
        weights = solve_ridge(squares[others].sum(axis=0), products[others].sum(axis=0))
        scores[fold == k] = part @ weights
    columns = zip(scores.T, labels.T, strict=True)
    thresholds = np.array([find_threshold(*column) for column in columns])
    readable = np.isfinite(thresholds)
    if not readable.any():
        return None
    weights = solve_ridge(squares.sum(axis=0), products.sum(axis=0))[:, readable]
    kinds = group_by_kind(names).items()
    return {
        "labels": [name for name, kept in zip(names, readable, strict=True) if kept],
        "exclusive": sorted(kind for kind, at in kinds if labels[:, at].sum(1).max() < 2),
        "thresholds": [round(float(score), 4) for score in thresholds[readable]],
        "weights": base64.b64encode(weights.astype(np.float16).tobytes()).decode(),
    }


def fit_to_songs(vocabulary, songs, features):
    """Return the reader fitted to the captions of songs; None without labels or text."""
    if not (vocabulary.labels and vocabulary.text):
        return None
    table = caption_table(songs, features)
    song = np.repeat(np.arange(len(table.count)), table.count)  # of each caption
    labels = label_table(songs, vocabulary.labels)[song]
    pooled = table.features.pooled[table.captions[: len(song)]]
    return fit(vocabulary.labels, labels, pooled, song)


def infer_labels(reader, pooled):
    """Return the labels that a text names, of an exclusive kind the one with the highest score.

    Args:
      reader: what `fit` returned. pooled: [P] of the text.
    """
    names = reader["labels"]
    weights = np.frombuffer(base64.b64decode(reader["weights"]), np.float16)
    weights = weights.reshape(-1, len(names))
    margins = (append_one(pooled[None]) @ weights)[0] - reader["thresholds"]
    named = set(np.flatnonzero(margins >= 0))
    for kind, at in group_by_kind(names).items():
        if kind in reader["exclusive"] and named & set(at):
            named -= set(at) - {max(at, key=lambda index: margins[index])}
    return tuple(names[index] for index in sorted(named))


def append_one(vectors):
    """Return vectors at unit length with a 1 for the bias.  # [N, P] -> [N, P + 1] float64"""
    vectors = np.asarray(vectors, np.float64)
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.concatenate([vectors / np.maximum(size, 1e-9), np.ones_like(size)], axis=1)


def solve_ridge(squares, products):
    """Return the weights of a ridge regression from x^T x and x^T y."""
    return np.linalg.solve(squares + PENALTY * np.eye(len(squares)), products)


def find_threshold(scores, correct):
    """Return the lowest score with MIN_PRECISION and MIN_CORRECT at or above it, else infinity."""
    order = np.argsort(-scores, kind="stable")
    scores, count = scores[order], np.cumsum(correct[order])
    last = np.append(scores[1:] < scores[:-1], True)  # of those with the same score
    precise = count >= MIN_PRECISION * np.arange(1, len(count) + 1)
    enough = last & (count >= MIN_CORRECT) & precise
    return scores[np.flatnonzero(enough)[-1]] if enough.any() else np.inf


def group_by_kind(names):
    """Return {kind: indices of its labels "kind:value"}; a plain label is of no kind."""
    kinds = {}
    for index, name in enumerate(names):
        if ":" in name:
            kinds.setdefault(name.split(":")[0], []).append(index)
    return kinds
