"""Recall, MRR and MAP of retrieval, in expectation over all orders of equal scores.

A cut through items of equal score depends on how they happen to be sorted; the mean over all their
orders does not (McSherry & Najork 2008, "Computing Information Retrieval
Performance Measures Efficiently in the Presence of Tied Scores").
"""

import dataclasses
import math

import numpy as np

DEPTHS = (1, 5, 10)  # of recall
MAP_DEPTH = 10  # of the mean average precision


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Means over the queries that have a relevant item.

    Attributes:
      recall: {k: share of queries with something relevant among the first k}.
      mrr: mean of 1 / rank of the first relevant item.
      map_10: mean average precision of the first ten, over min(relevant items, 10).
      median_rank: of the first relevant item, 1 the best.
      queries: that were counted; unanswerable: those without anything relevant, left out.
      gallery: items that a query was compared with, on average.
    """

    recall: dict
    mrr: float
    map_10: float
    median_rank: float
    queries: int
    unanswerable: int
    gallery: float


def measure_retrieval(scores, relevant, excluded=None):
    """Return the Retrieval of Q queries in a gallery of G items.

    Args:
      scores: [Q, G], higher is nearer; only their order counts.
      relevant: [Q, G] bool, the items that should be retrieved.
      excluded: [Q, G] bool, items left out of a query's gallery, such as itself; or None.

    Raises:
      ValueError: shapes that differ, scores that are not numbers, or no query with an answer.
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant, bool)
    excluded = np.zeros_like(relevant) if excluded is None else np.asarray(excluded, bool)
    if scores.ndim != 2 or not scores.shape == relevant.shape == excluded.shape:
        shapes = scores.shape, relevant.shape, excluded.shape
        raise ValueError(
            f"retrieval: scores, relevant and excluded are not all [Q, G] but {shapes}"
        )
    if np.isnan(scores).any():
        raise ValueError("retrieval: scores hold NaN, which has no place in an order")
    kept = [np.flatnonzero(~row) for row in excluded]
    scored = [
        score_query(scores[q, k], relevant[q, k])
        for q, k in enumerate(kept)
        if relevant[q, k].any()
    ]
    if not scored:
        raise ValueError(f"retrieval: none of {len(scores)} queries has anything relevant")
    recalls, reciprocal, precision, rank = (np.array(part) for part in zip(*scored, strict=True))
    return Retrieval(
        recall=dict(zip(DEPTHS, recalls.mean(axis=0).tolist(), strict=True)),
        mrr=float(reciprocal.mean()),
        map_10=float(precision.mean()),
        median_rank=float(np.median(rank)),
        queries=len(scored),
        unanswerable=len(scores) - len(scored),
        gallery=float(np.mean([len(k) for k in kept])),
    )


def score_query(scores, relevant):
    """Return (recall at DEPTHS, 1 / rank, average precision, rank) of a query.  # [G], [G] bool"""
    groups = group_ties(scores, relevant)
    first = next(group for group in groups if group[2])
    recalls = [expected_recall(*first, depth) for depth in DEPTHS]
    return (
        recalls,
        expected_reciprocal_rank(*first),
        expected_average_precision(groups),
        expected_rank(*first),
    )


def group_ties(scores, relevant):
    """Return (items before, items, relevant items) of groups of equal scores, the highest first."""
    _, group = np.unique(-scores, return_inverse=True)
    sizes, hits = np.bincount(group), np.bincount(group, weights=relevant).astype(int)
    return list(
        zip((np.cumsum(sizes) - sizes).tolist(), sizes.tolist(), hits.tolist(), strict=True)
    )


def expected_recall(before, size, hits, depth):
    """Return the probability that one of the first `depth` items is relevant.

    The first group with a relevant item has `before` items before it.
    """
    room = min(max(depth - before, 0), size)
    return 1 - math.comb(size - hits, room) / math.comb(size, room)


def expected_reciprocal_rank(before, size, hits):
    """Return the expected 1 / rank of the first of `hits` among `size` in any order."""
    place = np.arange(1, size - hits + 2)
    continues = (size - place - hits + 1) / np.maximum(size - place, 1)  # none at `place` either
    share = hits / size * np.cumprod(np.append(1.0, continues[:-1]))
    return float((share / (before + place)).sum())


def expected_rank(before, size, hits):
    """Return the expected rank of the first of `hits` among `size` in any order."""
    return before + (size + 1) / (hits + 1)


def expected_average_precision(groups):
    """Return the expected average precision of the first MAP_DEPTH items.

    Where an item of a group is relevant, those of the group before it are so at (r - 1) / (n - 1).
    """
    total, seen = 0.0, 0
    for before, size, hits in groups:
        for place in range(1, min(size, MAP_DEPTH - before) + 1):
            others = (place - 1) * (hits - 1) / (size - 1) if size > 1 else 0.0
            total += hits / size * (seen + 1 + others) / (before + place)
        seen += hits
    return total / min(seen, MAP_DEPTH)
