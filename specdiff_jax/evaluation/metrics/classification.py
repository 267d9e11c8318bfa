"""How well tags are found: scikit-learn's measures of songs, with intervals over songs.

Truth is [S, V] bool, likely [S, V] probabilities, said [S, V] bool. A tag that all songs have, or
none, has neither ROC-AUC nor PR-AUC; means over tags leave it out.
"""

import dataclasses

import numpy as np
from sklearn import metrics

from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

DEFAULT_THRESHOLD = 0.5  # the threshold of a tag that no song, or every song, has
RESAMPLES = 400  # for the intervals: each costs a sort of the songs for each tag


def fit_thresholds(truth, likely):
    """Of each tag the probability from which on saying it gives the best F1.  # [V]

    Half-way to the next lower probability, so that none lies on the edge.
    """
    found = np.full(truth.shape[1], DEFAULT_THRESHOLD)
    for tag in np.flatnonzero(has_both_classes(truth)):
        precision, recall, at = metrics.precision_recall_curve(truth[:, tag], likely[:, tag])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = at[int(np.argmax(f1[:-1]))]
        below = likely[likely[:, tag] < best, tag]
        found[tag] = (best + below.max()) / 2 if len(below) else best / 2
    return found


def predict_tags(likely, at):
    """What is said: what reaches its threshold, or where `at` is None the likeliest tag alone."""
    if at is not None:
        return likely >= np.asarray(at)[None]
    return likely.argmax(axis=1)[:, None] == np.arange(likely.shape[1])[None]


def has_both_classes(truth):
    """Which tags some songs have and some have not.  # [V] bool"""
    return truth.any(axis=0) & ~truth.all(axis=0)


def pr_auc(truth, likely):
    """Average precision of each tag, NaN where it has none.  # [V]"""
    return score_each_tag(metrics.average_precision_score, truth, likely)


def roc_auc(truth, likely):
    """Area under the ROC curve of each tag, NaN where it has none.  # [V]"""
    return score_each_tag(metrics.roc_auc_score, truth, likely)


def score_each_tag(measure, truth, likely):
    there = has_both_classes(truth)
    pairs = zip(truth.T, likely.T, there, strict=True)
    return np.array([measure(t, p) if both else np.nan for t, p, both in pairs])


def finite_mean(values):
    """The mean of what is not NaN, NaN where all is."""
    values = np.asarray(values)[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def subset_accuracy(truth, said):
    """The share of songs of which exactly what is true is said."""
    return float(metrics.accuracy_score(truth, said))


METRICS = {  # name: (truth, likely, said) -> float
    "accuracy": lambda truth, likely, said: subset_accuracy(truth, said),
    "f1_micro": lambda truth, likely, said: average_precision_recall_f1(truth, said, "micro")[2],
    "f1_macro": lambda truth, likely, said: average_precision_recall_f1(truth, said, "macro")[2],
    "roc_auc_macro": lambda truth, likely, said: finite_mean(roc_auc(truth, likely)),
    "pr_auc_macro": lambda truth, likely, said: finite_mean(pr_auc(truth, likely)),
}


def average_precision_recall_f1(truth, said, average):
    """(precision, recall, F1) over tags; one that is never said counts as 0.

    The mean over tags ("macro") is of those that some song has: else a draw of the bootstrap would
    be the worse for each rare tag that it misses.
    """
    if average == "macro":
        there = truth.any(axis=0)
        if not there.any():
            return 0.0, 0.0, 0.0
        truth, said = truth[:, there], said[:, there]
    found = metrics.precision_recall_fscore_support(truth, said, average=average, zero_division=0)
    return found[:3]


def compute_metrics(truth, likely, said):
    """{measure: float}: MEASURES, and precision and recall, micro and macro."""
    found = {name: float(measure(truth, likely, said)) for name, measure in METRICS.items()}
    return found | precision_recall(truth, said)


def precision_recall(truth, said):
    """{"precision_micro": float, ...}, micro and macro."""
    found = {}
    for average in ("micro", "macro"):
        precision, recall, _ = average_precision_recall_f1(truth, said, average)
        found |= {f"precision_{average}": float(precision), f"recall_{average}": float(recall)}
    return found


def summarize_metrics(truth, likely, said, resamples=RESAMPLES):
    """{measure: {"value", "low", "high"}}: with 95% intervals by bootstrap over songs.

    Precision and recall, micro and macro, come without.
    """
    tags = truth.shape[1]
    rows = np.concatenate([truth, likely, said], axis=1)  # [S, 3 V]
    parts = lambda drawn: (drawn[:, :tags] > 0.5, drawn[:, tags : 2 * tags], drawn[:, -tags:] > 0.5)
    found = {}
    for name, measure in METRICS.items():
        # A draw without any song of two kinds has no area: as good as a guess.
        statistic = lambda drawn, of=measure: np.nan_to_num(
            of(*parts(drawn)), nan=DEFAULT_THRESHOLD
        )
        estimate = bootstrap_interval(rows, statistic, resamples=resamples)
        found[name] = dataclasses.asdict(estimate)
    plain = precision_recall(truth, said)
    return found | {name: {"value": value} for name, value in plain.items()}


def tabulate_tags(names, truth, likely, said, at):
    """A row for each tag: support, precision, recall, F1, both areas, its threshold."""
    each = metrics.precision_recall_fscore_support(truth, said, average=None, zero_division=0)
    areas = roc_auc(truth, likely), pr_auc(truth, likely)
    rows = []
    for k, name in enumerate(names):
        row = {"tag": name, "support": int(each[3][k])}
        row |= dict(zip(("precision", "recall", "f1"), (float(e[k]) for e in each), strict=False))
        for key, area in zip(("roc_auc", "pr_auc"), areas, strict=True):
            row[key] = float(area[k]) if np.isfinite(area[k]) else None
        rows.append(row | {"threshold": None if at is None else float(at[k])})
    return rows


def confusion_matrix(truth, said):
    """Songs of each tag (rows) by the tag that is said (columns), one of each.  # [V, V] int"""
    labels = np.arange(truth.shape[1])
    return metrics.confusion_matrix(truth.argmax(axis=1), said.argmax(axis=1), labels=labels)
