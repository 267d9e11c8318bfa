"""Analyze the result files of listening.html: rows with intervals.

Ratings: means and differences with 95% intervals by a bootstrap that resamples listeners and
clips at once (Owen 2007, "The pigeonhole bootstrap"): scores of one listener are correlated, and so
are scores of the same music. Listeners are screened as in ITU-R BS.1534-3, 4.1.2.
ABX: exact binomial test against guessing, Clopper-Pearson intervals.
"""

import itertools
import pathlib

import numpy as np

from specdiff_jax.evaluation.listening.page import FORMAT
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_table_mean
from specdiff_jax.runtime.files import parse_json
from specdiff_jax.runtime.text import one_line

REMEDY = "leave this file out, or save it again from the last screen of listening.html"
HIDDEN = {"reference": "hidden reference", "anchor": "hidden anchor"}
REFERENCE_SCORE, TOLERATED = 90, 15  # BS.1534-3: below 90 in more than 15% of the trials
RESAMPLES = 5000


def analyze_results(paths, screen=True, seed=0):
    """Return all rows of a test from its result files.

    Args:
      paths: result files of one and the same listening.html.
      screen: leave out the ratings of listeners who did not recognize the hidden reference. Their
        ABX answers stay: guessing is what that test measures.
      seed: of the bootstrap.

    Returns:
      {"listeners": screening rows, "scores": ..., "differences": ..., "abx": ...}, lists of dicts
      as the functions below describe them, and "screened", "matched".

    Raises:
      ValueError: one line that names the file and the remedy.
    """
    sessions = read_results(paths)
    listeners = screen_listeners(sessions)
    out = {row["listener"] for row in listeners if row["excluded"]} if screen else set()
    scores = score_table([one for one in sessions if one["listener"] not in out])
    return {
        "listeners": listeners,
        "scores": score_rows(scores, seed),
        "differences": difference_rows(scores, seed),
        "abx": abx_rows(sessions),
        "screened": screen,
        "matched": sessions[0]["matched"],
    }


# ---- files -> sessions


def read_results(paths):
    """Return [{"test", "session", "listener", "matched", "trials"}, ...], checked."""
    sessions, seen = [], {}
    for path in map(pathlib.Path, paths):
        try:
            session = parse_json(str(path), path.read_bytes(), parse_result)
        except (OSError, ValueError) as error:
            reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else error
            raise ValueError(f"{reason}; {REMEDY}") from error
        if sessions and session["test"] != sessions[0]["test"]:
            first = next(iter(seen.values()))
            raise ValueError(f"{path}: of another listening.html than {first}; analyze them apart")
        if session["session"] in seen:
            raise ValueError(f"{path}: the same session as {seen[session['session']]}; keep one")
        seen[session["session"]] = path
        sessions.append(session)
    if not sessions:
        raise ValueError("no result files; save one from the last screen of listening.html")
    return sessions


def parse_result(data):
    """Return the checked session of a result file; see `read_results`."""
    if data.get("format") != FORMAT:
        raise ValueError(f"not a result of a listening test, its format is {data.get('format')!r}")
    session, sets = str(data["session"]), [str(name) for name in data["sets"]]
    trials = [parse_trial(trial, sets) for trial in data["trials"]]
    if not trials:
        raise ValueError("holds no trials")
    return {
        "test": str(data["test"]),
        "session": session,
        # Sessions of one name are one listener; each session without a name is another.
        "listener": one_line(data["listener"]) or f"session {session[:8]}",
        "matched": bool(data["matched"]),
        "trials": trials,
    }


def parse_trial(trial, sets):
    """Return {"kind", "clip"} with "scores": {(role, name): 0..100}, or with "pair" and "right"."""
    kind, clip = trial["kind"], int(trial["clip"])
    if kind == "mushra":
        scores = {}
        for one in trial["ratings"]:
            role, score = one["role"], float(one["score"])
            name = one["set"] if role == "set" else HIDDEN.get(role)
            if name not in (sets if role == "set" else HIDDEN.values()) or not 0 <= score <= 100:
                raise ValueError(f"trial of clip {clip}: no rating: {one}")
            scores[role, name] = score
        if len(scores) != len(sets) + 2 or len(scores) != len(trial["ratings"]):
            raise ValueError(f"trial of clip {clip}: {len(scores)} of {len(sets) + 2} ratings")
        return {"kind": kind, "clip": clip, "scores": scores}
    if kind != "abx":
        raise ValueError(f"trial of clip {clip}: unknown kind {kind!r}")
    pair = [name for name in sets if name in (trial["a"], trial["b"])]
    if len(pair) != 2 or not {trial["x"], trial["answer"]} <= set(pair):
        raise ValueError(f"trial of clip {clip}: A, B, X and answer do not fit together")
    return {"kind": kind, "clip": clip, "pair": pair, "right": trial["x"] == trial["answer"]}


# ---- ratings


def screen_listeners(sessions):
    """Return [{"listener", "trials", "below": references scored under 90, "excluded"}, ...]."""
    below = {session["listener"]: [] for session in sessions}
    for listener, _, (role, _), score in list_ratings(sessions):
        if role == "reference":
            below[listener].append(score < REFERENCE_SCORE)
    rows = [{"listener": a, "trials": len(b), "below": sum(b)} for a, b in below.items()]
    return [{**row, "excluded": 100 * row["below"] > TOLERATED * row["trials"]} for row in rows]


def list_ratings(sessions):
    """Return [(listener, clip, (role, name), score), ...]."""
    return [
        (session["listener"], trial["clip"], stimulus, score)
        for session in sessions
        for trial in session["trials"]
        for stimulus, score in trial.get("scores", {}).items()
    ]


def score_table(sessions):
    """Return {(role, name): scores [listeners, clips]}: the mean of several, NaN without any."""
    scored = list_ratings(sessions)
    listeners, clips, stimuli = (sorted({row[axis] for row in scored}) for axis in range(3))
    cells = {}
    for listener, clip, stimulus, score in scored:
        place = stimuli.index(stimulus), listeners.index(listener), clips.index(clip)
        cells.setdefault(place, []).append(score)
    table = np.full((len(stimuli), len(listeners), len(clips)), np.nan)
    for place, scores in cells.items():
        table[place] = np.mean(scores)
    return dict(zip(stimuli, table, strict=True))


def score_rows(table, seed):
    """Return [{"name", "role", "mean", "low", "high", "listeners", "trials"}, ...], best first."""
    rows = [
        {"name": name, "role": role, **mean_with_interval(scores, seed)}
        for (role, name), scores in table.items()
    ]
    return sorted(rows, key=lambda row: -row["mean"])


def difference_rows(table, seed):
    """Return [{"a", "b", "mean", "low", "high", "listeners", "trials"}, ...] of all pairs.

    The mean is that of the scores of a less those of b. The intervals are not widened for the
    number of pairs.
    """
    order = sorted(table, key=lambda stimulus: -np.nanmean(table[stimulus]))
    return [
        {"a": a[1], "b": b[1], **mean_with_interval(table[a] - table[b], seed)}
        for a, b in itertools.combinations(order, 2)
    ]


def mean_with_interval(scores, seed):
    """Return the mean of [listeners, clips], its 95% interval over both, and the counts."""
    present = np.isfinite(scores)
    estimate = bootstrap_table_mean(scores, seed, RESAMPLES)
    return {
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "listeners": int(present.any(axis=1).sum()),
        "trials": int(present.sum()),
    }


# ---- ABX


def abx_rows(sessions):
    """Return [{"a", "b", "listener", "right", "trials", "share", "low", "high", "p"}, ...].

    Each pair has a row of all listeners (None), then one each. p is the one-sided probability of
    as many right answers by guessing. The pooled interval assumes independent answers, which those
    of one listener are not quite; p assumes guesses, which are independent.
    """
    answers = {}
    for session in sessions:
        for trial in session["trials"]:
            if trial["kind"] == "abx":
                people = answers.setdefault(tuple(trial["pair"]), {})
                people.setdefault(session["listener"], []).append(trial["right"])
    rows = []
    for (a, b), people in answers.items():
        pooled = [right for answer in people.values() for right in answer]
        for listener, answer in [(None, pooled), *people.items()]:
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "listener": listener,
                    **binomial_interval(sum(answer), len(answer)),
                }
            )
    return rows


def binomial_interval(right, trials):
    """Return the share of right answers, its Clopper-Pearson 95% interval and p of guessing."""
    from scipy import stats

    guessing = stats.binomtest(right, trials, 0.5, alternative="greater")
    interval = stats.binomtest(right, trials).proportion_ci(method="exact")
    return {
        "right": right,
        "trials": trials,
        "share": right / trials,
        "low": float(interval.low),
        "high": float(interval.high),
        "p": float(guessing.pvalue),
    }
