"""Retrieval metrics against values by hand and the mean over every order of equal scores."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from specdiff_jax.evaluation.metrics import retrieval


def test_measure_retrieval_equals_values_by_hand():
    scores = [[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]]
    relevant = [[0, 1, 0, 1], [1, 0, 0, 0]]
    metrics = retrieval.measure_retrieval(scores, relevant)
    assert metrics.recall == {1: 0.5, 5: 1.0, 10: 1.0}
    assert metrics.mrr == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.map_10 == pytest.approx(((1 / 2 + 2 / 4) / 2 + 1) / 2)
    assert metrics.median_rank == 1.5
    assert (metrics.queries, metrics.unanswerable, metrics.gallery) == (2, 0, 4)


def test_measure_retrieval_of_ties_equals_values_by_hand():
    """One relevant item among four equal scores has each rank with probability 1 / 4."""
    metrics = retrieval.measure_retrieval([[1.0] * 4], [[0, 0, 1, 0]])
    assert metrics.recall[1] == 0.25 and metrics.median_rank == 2.5
    assert metrics.mrr == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4) == metrics.map_10


def metrics_of_order(order, relevant):
    """Return the metrics of one order, item by item."""
    hits = [bool(relevant[i]) for i in order]
    first = hits.index(True) + 1
    precision = sum(sum(hits[: p + 1]) / (p + 1) for p in range(min(10, len(hits))) if hits[p])
    recalls = [any(hits[:k]) for k in retrieval.DEPTHS]
    return [*recalls, 1 / first, precision / min(sum(hits), 10), first]


@pytest.mark.parametrize("seed", range(6))
def test_score_query_of_ties_is_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 3, 6) / 2, rng.random(6) < 0.5
    relevant[rng.integers(6)] = True
    orders = [o for o in itertools.permutations(range(6)) if (np.diff(scores[list(o)]) <= 0).all()]
    expected = np.mean([metrics_of_order(order, relevant) for order in orders], axis=0)
    recalls, *others = retrieval.score_query(scores, relevant)
    np.testing.assert_allclose([*recalls, *others], expected, rtol=1e-12)


def test_average_precision_is_cut_after_ten_items():
    scores, relevant = -np.arange(30.0), np.arange(30) % 2 == 0
    recalls, reciprocal, precision, rank = retrieval.score_query(scores, relevant)
    assert recalls == [1, 1, 1] and reciprocal == rank == 1
    assert precision == pytest.approx(metrics_of_order(range(30), relevant)[-2])


def test_average_precision_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, relevant = rng.random((40, 9)), rng.random((40, 9)) < 0.4
    relevant[:, 0] = True
    metrics = retrieval.measure_retrieval(scores, relevant)
    expected = label_ranking_average_precision_score(relevant, scores)
    assert metrics.map_10 == pytest.approx(expected, abs=1e-12)


def test_excluded_items_change_nothing():
    rng = np.random.default_rng(1)
    scores, relevant = rng.integers(0, 4, (5, 12)) / 4, rng.random((5, 12)) < 0.4
    relevant[:, 8] = True
    excluded = np.zeros((5, 12), bool)
    excluded[:, :3] = True
    metrics = retrieval.measure_retrieval(scores, relevant, excluded)
    assert metrics == retrieval.measure_retrieval(scores[:, 3:], relevant[:, 3:])
    assert metrics.gallery == 9


def test_queries_without_a_relevant_item_are_left_out_and_counted():
    scores, relevant = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[0, 0], [1, 0]])
    metrics = retrieval.measure_retrieval(scores, relevant)
    assert (metrics.queries, metrics.unanswerable, metrics.median_rank) == (1, 1, 2)


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([[1.0, 2.0]], [[0, 0]], "none of 1 queries has anything relevant"),
        ([[1.0, np.nan]], [[0, 1]], "scores hold NaN"),
        ([[1.0, 2.0]], [[0, 1, 0]], "are not all"),
    ],
)
def test_measure_retrieval_refuses_invalid_input(scores, relevant, message):
    with pytest.raises(ValueError, match=message):
        retrieval.measure_retrieval(scores, relevant)
