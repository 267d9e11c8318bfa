"""Sets of embeddings into scores, scores into flags, lines for the terminal, and a CSV."""

import dataclasses

import numpy as np
from scipy import stats

from specdiff_jax.evaluation.metrics import frechet, kernel, prdc
from specdiff_jax.evaluation.metrics.bootstrap import wilson_interval
from specdiff_jax.runtime import files

P_VALUE_LIMIT = 1e-3  # chance below which there are more copies than false positives
SILENT_LIMIT = 0.5  # share of a set's clips


def score_embeddings(made, real, seed=0):
    """Scores of one set of embeddings against the reference's.

    Args:
      made, real: (vectors [M, W, d] of M clips, groups [M] of clips that hang together).

    Returns:
      {"n", "d", "flags"} and {"value", "low", "high"} for each score that there are vectors enough
      for: fad, fad_inf, kad (with "p"), precision, recall, density, coverage.
    """
    (vectors, groups), (reference, reference_groups) = (
        flatten_windows(*side) for side in (made, real)
    )
    found = {"n": len(vectors), "d": vectors.shape[1], "flags": []}
    songs = {"groups": groups, "reference_groups": reference_groups}
    try:
        found["fad"] = to_dict(frechet.fad(vectors, reference, **songs))
        if frechet.has_few_vectors(vectors, reference):
            found["flags"].append("fewer than 10 d vectors")
        found["fad_inf"] = to_dict(frechet.fad_inf(vectors, reference, **songs, seed=seed))
    except ValueError:
        few = "endless FAD: too few songs" if "fad" in found else "FAD: too few vectors"
        found["flags"].append(few)
    songs_of_clips = {"groups": made[1], "reference_groups": real[1]}
    means = (vectors.mean(axis=1) for vectors, _ in (made, real))
    far = kernel.kad(*means, seed=seed, **songs_of_clips)
    found["kad"] = to_dict(far.estimate) | {"p": far.p_value, "bandwidth": far.bandwidth}
    try:
        near = prdc.prdc(vectors, reference, **songs, seed=seed)
        found |= {name: to_dict(estimate) for name, estimate in near.items()}
    except ValueError:
        found["flags"].append("too few vectors for neighbours")
    return found


def flatten_windows(vectors, groups):
    """[M, W, d], [M] -> [M W, d], [M W]."""
    return vectors.reshape(-1, vectors.shape[2]), np.repeat(groups, vectors.shape[1])


def to_dict(estimate):
    """An Estimate for JSON."""
    return dataclasses.asdict(estimate)


def measure_memorized_fraction(flagged, false_positives):
    """The share of clips nearer to training music than new music is.

    Returns:
      {"value", "low", "high", "p"}: p is the chance of so many where all are new.
    """
    count, total = int(flagged.sum()), len(flagged)
    found = to_dict(wilson_interval(count / total, 0.0, total))
    return found | {"p": float(stats.binom.sf(count - 1, total, false_positives))}


def add_flags(rows):
    """Adds to every row what its numbers warn of."""
    for row in rows:
        row["flags"] = []
        if row["silent"] > SILENT_LIMIT:
            row["flags"].append(f"silent: {row['silent']:.0%} of the clips")
        if row["copies"]["p"] < P_VALUE_LIMIT:
            row["flags"].append(f"copies of training music: {row['copies']['value']:.0%}")


def format_interval(estimate, places=2):
    """A value with its interval, as 1.23 (1.10 to 1.36)."""
    value, low, high = (f"{estimate[key]:.{places}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def format_table(rows):
    """The table for a terminal: the first embedder's kernel distance, copies, flags of each set."""
    embedder = next(iter(rows[0]["scores"]))
    found = [f"kernel distance x 1000 ({embedder}), 95 % interval; share of copies; flags"]
    for row in rows:
        far = row["scores"][embedder]["kad"]
        far = format_interval({key: 1000 * far[key] for key in ("value", "low", "high")}, 1)
        flags, copied = "; ".join(row["flags"]), f"{row['copies']['value']:.1%}"
        found.append(f"  {row['name']:<34} n {row['clips']:<5} {far:<28} {copied:<7} {flags}")
    return found


def write_scores(path, rows):
    """A line for every set and embedder, nested values in columns of joined names."""
    table = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in ("scores", "signals")}
        per = row.get("scores") or {"": {}}
        table += [flatten_row(plain | {"embedder": name} | score) for name, score in per.items()]
    files.write_csv(path, table)


def flatten_row(row):
    """{"a": {"b": 1}} -> {"a_b": 1}, lists joined; the name itself for "value"."""
    found = {}
    for key, value in row.items():
        if isinstance(value, dict):
            parts = {key if name == "value" else f"{key}_{name}": x for name, x in value.items()}
            found |= flatten_row(parts)
        else:
            found[key] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return found
