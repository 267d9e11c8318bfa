"""Metrics of multi-label tagging by scikit-learn, with intervals over songs.

Targets are [S, V] bool, probabilities [S, V] float, predictions [S, V] bool. A tag that all songs
have, or none, has neither ROC-AUC nor PR-AUC; means over tags leave it out.
"""

import dataclasses

import numpy as np
from sklearn import metrics

from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

DEFAULT_THRESHOLD = 0.5  # the threshold of a tag that no song, or every song, has
RESAMPLES = 400  # for the intervals: each costs a sort of the songs for each tag


def fit_thresholds(targets, probabilities):
    """Return the threshold of each tag with the best F1.  # [V]

    It lies half-way to the next lower probability, so that no song lies on the threshold.
    """
    thresholds = np.full(targets.shape[1], DEFAULT_THRESHOLD)
    for tag in np.flatnonzero(has_both_classes(targets)):
        precision, recall, at = metrics.precision_recall_curve(
            targets[:, tag], probabilities[:, tag]
        )
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = at[int(np.argmax(f1[:-1]))]
        below = probabilities[probabilities[:, tag] < best, tag]
        thresholds[tag] = (best + below.max()) / 2 if len(below) else best / 2
    return thresholds


def predict_tags(probabilities, thresholds):
    """Return the tags at or above their thresholds; without any, the most probable tag alone."""
    if thresholds is not None:
        return probabilities >= np.asarray(thresholds)[None]
    return probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1])[None]


def has_both_classes(targets):
    """Return which tags some songs have and some do not.  # [V] bool"""
    return targets.any(axis=0) & ~targets.all(axis=0)


def pr_auc(targets, probabilities):
    """Return the average precision of each tag, NaN where it has none.  # [V]"""
    return score_each_tag(metrics.average_precision_score, targets, probabilities)


def roc_auc(targets, probabilities):
    """Return the area under the ROC curve of each tag, NaN where it has none.  # [V]"""
    return score_each_tag(metrics.roc_auc_score, targets, probabilities)


def score_each_tag(metric, targets, probabilities):
    """Return a metric of each tag, NaN where it is undefined.  # [V]"""
    defined = has_both_classes(targets)
    pairs = zip(targets.T, probabilities.T, defined, strict=True)
    return np.array([metric(t, p) if both else np.nan for t, p, both in pairs])


def finite_mean(values):
    """Return the mean of the values that are finite, NaN without any."""
    values = np.asarray(values)[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def subset_accuracy(targets, predictions):
    """Return the share of songs whose predictions all equal their targets."""
    return float(metrics.accuracy_score(targets, predictions))


METRICS = {  # name: (targets, probabilities, predictions) -> float
    "accuracy": lambda targets, probabilities, predictions: subset_accuracy(targets, predictions),
    "f1_micro": lambda targets, probabilities, predictions: average_precision_recall_f1(
        targets, predictions, "micro"
    )[2],
    "f1_macro": lambda targets, probabilities, predictions: average_precision_recall_f1(
        targets, predictions, "macro"
    )[2],
    "roc_auc_macro": lambda targets, probabilities, predictions: finite_mean(
        roc_auc(targets, probabilities)
    ),
    "pr_auc_macro": lambda targets, probabilities, predictions: finite_mean(
        pr_auc(targets, probabilities)
    ),
}


def average_precision_recall_f1(targets, predictions, average):
    """Return (precision, recall, F1) over tags; a tag that is never predicted counts as 0.

    The mean over tags ("macro") is over those that some song has: otherwise each rare tag that a
    bootstrap draw misses would lower the draw's mean.
    """
    if average == "macro":
        present = targets.any(axis=0)
        if not present.any():
            return 0.0, 0.0, 0.0
        targets, predictions = targets[:, present], predictions[:, present]
    return metrics.precision_recall_fscore_support(
        targets, predictions, average=average, zero_division=0
    )[:3]


def compute_metrics(targets, probabilities, predictions):
    """Return {metric: float}: METRICS, and precision and recall, micro and macro."""
    results = {
        name: float(metric(targets, probabilities, predictions)) for name, metric in METRICS.items()
    }
    return results | precision_recall(targets, predictions)


def precision_recall(targets, predictions):
    """Return {"precision_micro": float, ...}, micro and macro."""
    results = {}
    for average in ("micro", "macro"):
        precision, recall, _ = average_precision_recall_f1(targets, predictions, average)
        results |= {f"precision_{average}": float(precision), f"recall_{average}": float(recall)}
    return results


def summarize_metrics(targets, probabilities, predictions, resamples=RESAMPLES):
    """Return {metric: {"value", "low", "high"}} with 95% intervals by bootstrap over songs.

    Precision and recall, micro and macro, come without.
    """
    tags = targets.shape[1]
    rows = np.concatenate([targets, probabilities, predictions], axis=1)  # [S, 3 V]
    parts = lambda drawn: (drawn[:, :tags] > 0.5, drawn[:, tags : 2 * tags], drawn[:, -tags:] > 0.5)
    results = {}
    for name, metric in METRICS.items():
        # A draw without any tag of both classes has no area: 0.5, as by guessing.
        statistic = lambda drawn, of=metric: np.nan_to_num(of(*parts(drawn)), nan=DEFAULT_THRESHOLD)
        estimate = bootstrap_interval(rows, statistic, resamples=resamples)
        results[name] = dataclasses.asdict(estimate)
    plain = precision_recall(targets, predictions)
    return results | {name: {"value": value} for name, value in plain.items()}


def tabulate_tags(names, targets, probabilities, predictions, thresholds):
    """Return a row for each tag: support, precision, recall, F1, both areas, its threshold."""
    each = metrics.precision_recall_fscore_support(
        targets, predictions, average=None, zero_division=0
    )
    areas = roc_auc(targets, probabilities), pr_auc(targets, probabilities)
    rows = []
    for k, name in enumerate(names):
        row = {"tag": name, "support": int(each[3][k])}
        row |= dict(zip(("precision", "recall", "f1"), (float(e[k]) for e in each), strict=False))
        for key, area in zip(("roc_auc", "pr_auc"), areas, strict=True):
            row[key] = float(area[k]) if np.isfinite(area[k]) else None
        rows.append(row | {"threshold": None if thresholds is None else float(thresholds[k])})
    return rows


def confusion_matrix(targets, predictions):
    """Return songs by target tag (rows) and predicted tag (columns), one of each.  # [V, V] int"""
    labels = np.arange(targets.shape[1])
    return metrics.confusion_matrix(
        targets.argmax(axis=1), predictions.argmax(axis=1), labels=labels
    )
