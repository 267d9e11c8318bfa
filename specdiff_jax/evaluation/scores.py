"""Scores of sets of embeddings, flags on the scores, lines for the terminal, and a CSV."""

import dataclasses

import numpy as np
from scipy import stats

from specdiff_jax.evaluation.metrics import frechet, kernel, prdc
from specdiff_jax.evaluation.metrics.bootstrap import wilson_interval
from specdiff_jax.runtime import files

P_VALUE_LIMIT = 1e-3  # below it a set has more memorized clips than false positives explain
SILENT_LIMIT = 0.5  # share of a set's clips


def score_embeddings(generated, real, seed=0):
    """Return the scores of one set of embeddings against the reference's.

    Args:
      generated, real: (vectors [M, W, d] of M clips, groups [M], equal for dependent clips).

    Returns:
      {"n", "d", "flags"} and {"value", "low", "high"} of each score that has enough vectors: fad,
      fad_inf, kad (with "p"), precision, recall, density, coverage.
    """
    vectors, groups = flatten_windows(*generated)
    reference, reference_groups = flatten_windows(*real)
    scores = {"n": len(vectors), "d": vectors.shape[1], "flags": []}
    songs = {"groups": groups, "reference_groups": reference_groups}
    try:
        scores["fad"] = to_dict(frechet.fad(vectors, reference, **songs))
        if frechet.has_few_vectors(vectors, reference):
            scores["flags"].append("fewer than 10 d vectors")
        scores["fad_inf"] = to_dict(frechet.fad_inf(vectors, reference, **songs, seed=seed))
    except ValueError:
        few = "FAD-infinity: too few songs" if "fad" in scores else "FAD: too few vectors"
        scores["flags"].append(few)
    means = (vectors.mean(axis=1) for vectors, _ in (generated, real))
    clip_groups = {"groups": generated[1], "reference_groups": real[1]}
    kad = kernel.kad(*means, seed=seed, **clip_groups)
    scores["kad"] = to_dict(kad.estimate) | {"p": kad.p_value, "bandwidth": kad.bandwidth}
    try:
        estimates = prdc.prdc(vectors, reference, **songs, seed=seed)
        scores |= {name: to_dict(estimate) for name, estimate in estimates.items()}
    except ValueError:
        scores["flags"].append("precision, recall, density, coverage: too few vectors")
    return scores


def flatten_windows(vectors, groups):
    """Return every window as a vector of its own: [M, W, d], [M] -> [M W, d], [M W]."""
    return vectors.reshape(-1, vectors.shape[2]), np.repeat(groups, vectors.shape[1])


def to_dict(estimate):
    """Return an Estimate for JSON: {value, low, high}."""
    return dataclasses.asdict(estimate)


def measure_memorized_fraction(flagged, false_positives):
    """Return the fraction of clips that are closer to training music than new music is.

    Args:
      flagged: [M] bool; false_positives: the probability of a flag for a new clip.

    Returns:
      {"value", "low", "high", "p"}: p is the binomial probability of so many if all are new.
    """
    count, total = int(flagged.sum()), len(flagged)
    interval = to_dict(wilson_interval(count / total, 0.0, total))
    return interval | {"p": float(stats.binom.sf(count - 1, total, false_positives))}


def add_flags(rows):
    """Add to every row {"flags": [str]}: silent or memorized clips."""
    for row in rows:
        row["flags"] = []
        if row["silent"] > SILENT_LIMIT:
            row["flags"].append(f"silent: {row['silent']:.0%} of the clips")
        if row["memorized"]["p"] < P_VALUE_LIMIT:
            row["flags"].append(f"memorized training music: {row['memorized']['value']:.0%}")


def format_interval(estimate, places=2):
    """Return a value with its interval, as 1.23 (1.10 to 1.36)."""
    value, low, high = (f"{estimate[key]:.{places}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def format_table(rows):
    """Return lines for a terminal: the first embedder's KAD, memorized share, flags of each set."""
    embedder = next(iter(rows[0]["scores"]))
    lines = [f"KAD x 1000 ({embedder}), 95 % interval; share memorized; flags"]
    for row in rows:
        kad = row["scores"][embedder]["kad"]
        kad = format_interval({key: 1000 * kad[key] for key in ("value", "low", "high")}, 1)
        flags, memorized = "; ".join(row["flags"]), f"{row['memorized']['value']:.1%}"
        lines.append(f"  {row['name']:<34} n {row['clips']:<5} {kad:<28} {memorized:<7} {flags}")
    return lines


def write_scores(path, rows):
    """Write a line for every set and embedder, nested values in columns of joined names."""
    table = []
    for row in rows:
        shared = {key: value for key, value in row.items() if key not in ("scores", "signals")}
        scores = row.get("scores") or {"": {}}
        table += [
            flatten_row(shared | {"embedder": name} | score) for name, score in scores.items()
        ]
    files.write_csv(path, table)


def flatten_row(row):
    """Return {"a_b": 1} of {"a": {"b": 1}}; lists become text, "value" takes the outer name."""
    flat = {}
    for key, value in row.items():
        if isinstance(value, dict):
            parts = {key if name == "value" else f"{key}_{name}": x for name, x in value.items()}
            flat |= flatten_row(parts)
        else:
            flat[key] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return flat
