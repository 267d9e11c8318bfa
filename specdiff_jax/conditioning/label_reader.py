"""Labels that a text names, read off its pooled vector by a linear map that captions taught.

A network that saw few songs hears the words of their captions and few others; the encoder of the
text knows what else means the same. What is read is asked for as if the user had written it too.
"""

import base64

import numpy as np

from specdiff_jax.conditioning.vocabulary import tables

PENALTY = 0.1  # of the regression, for vectors of unit length
SURE = 0.9  # of captions in which a label is read, those whose song has it
FEWEST = 3  # of those, for it to be read at all
FOLDS = 5  # of the songs: a caption is judged by what other songs taught


def fit(names, told, vectors, songs):
    """What `read` needs, for `json`; None where no label can be read.

    Ridge regression of each label on the vectors, and the lowest score of songs not learned from
    at which it is right SURE of the time: a label that captions do not tell has none.

    Args:
      names: V labels. told: [N, V] bool, whether the song of each of N captions has them.
      vectors: [N, P] pooled features of the captions. songs: [N] int, whose each is.
    """
    x, y, fold = append_one(vectors), told.astype(np.float64), songs % FOLDS
    parts = [x[fold == k] for k in range(FOLDS)]
    squares = np.stack([part.T @ part for part in parts])  # [FOLDS, P + 1, P + 1]
    products = np.stack([part.T @ y[fold == k] for k, part in enumerate(parts)])
    scores = np.empty(y.shape)
    for k, part in enumerate(parts):
        others = np.arange(FOLDS) != k
        scores[fold == k] = part @ solve_ridge(
            squares[others].sum(axis=0), products[others].sum(axis=0)
        )
    least = np.array([find_threshold(*column) for column in zip(scores.T, told.T, strict=True)])
    known = np.isfinite(least)
    if not known.any():
        return None
    weights = solve_ridge(squares.sum(axis=0), products.sum(axis=0))[:, known]
    return {
        "labels": [name for name, there in zip(names, known, strict=True) if there],
        "alone": sorted(
            kind for kind, at in group_by_kind(names).items() if told[:, at].sum(1).max() < 2
        ),
        "thresholds": [round(float(score), 4) for score in least[known]],
        "weights": base64.b64encode(weights.astype(np.float16).tobytes()).decode(),
    }


def infer_labels(kept, pooled):
    """The labels that a text names, of exclusive kinds the surest alone.

    Args:
      kept: what `fit` made. pooled: [P] of the text.
    """
    names = kept["labels"]
    weights = np.frombuffer(base64.b64decode(kept["weights"]), np.float16).reshape(-1, len(names))
    over = (append_one(pooled[None]) @ weights)[0] - kept["thresholds"]
    heard = set(np.flatnonzero(over >= 0))
    for kind, at in group_by_kind(names).items():
        if kind in kept["alone"] and heard & set(at):
            heard -= set(at) - {max(at, key=lambda index: over[index])}
    return tuple(names[index] for index in sorted(heard))


def append_one(vectors):
    """Vectors at unit length, and a one for what is added.  # [N, P] -> [N, P + 1] float64"""
    vectors = np.asarray(vectors, np.float64)
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.concatenate([vectors / np.maximum(size, 1e-9), np.ones_like(size)], axis=1)


def solve_ridge(squares, products):
    """The weights of a ridge regression from x^T x and x^T y."""
    return np.linalg.solve(squares + PENALTY * np.eye(len(squares)), products)


def find_threshold(scores, right):
    """The lowest score at and above which SURE of all are right, FEWEST at least; else infinite."""
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(right[order])
    last = np.append(scores[1:] < scores[:-1], True)  # of those that score alike
    enough = last & (found >= FEWEST) & (found >= SURE * np.arange(1, len(found) + 1))
    return scores[np.flatnonzero(enough)[-1]] if enough.any() else np.inf


def group_by_kind(names):
    """{kind: places of its labels "kind:value"}; a plain label is of no kind."""
    found = {}
    for index, name in enumerate(names):
        if ":" in name:
            found.setdefault(name.split(":")[0], []).append(index)
    return found


def fit_to_songs(vocabulary, songs, features):
    """Return what `read` needs, fitted to the captions of songs; None without labels or text."""
    if not (vocabulary.labels and vocabulary.text):
        return None
    told = tables(vocabulary, songs, features)
    owner = np.repeat(np.arange(len(told.count)), told.count)  # song of each caption
    text = told.captions[: len(owner)]
    return fit(vocabulary.labels, told.labels[owner], told.pooled[text], owner)
