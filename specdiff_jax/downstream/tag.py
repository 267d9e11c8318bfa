"""--mode=tag: train a tagger, choose the best checkpoint on valid, test it once.

With --predict: the tags of sound files by the best tagger; see tag_predict.py.
"""

import math
import pathlib

import numpy as np

from specdiff_jax.audio.corruptions import CORRUPTIONS
from specdiff_jax.data import crops, prepare
from specdiff_jax.downstream import head_job, tag_job, tag_predict
from specdiff_jax.downstream.tag_job import KIND, SCORE, predict_songs
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.reports import tag_report
from specdiff_jax.runtime.files import read_json, write_csv, write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, validation
from specdiff_jax.training.train import fit

FORMAT = 2  # of tags.json


def run(config, predict=()):
    """Train, test and write tags.json, tags.csv and tags.html; or predict the tags of files."""
    if predict:
        return tag_predict.run(config, predict)
    tag_job.check(config)
    prepare.run(config)
    job = tag_job.make_job(config)
    job.take_songs()
    train(job)
    test(job)


def train(job):
    """Train from the newest good checkpoint, or from the start, until validation stops it."""
    tags, count = job.task.tags, len(job.songs.entries)
    log(
        f"tag: {len(tags.names)} tags, {'one a song' if tags.one else 'any number a song'}; "
        f"{count} training songs"
    )
    fit(job)


def read_history(workdir):
    """Return [(step, macro PR-AUC)] of the validations that a run has logged."""
    return validation.read_history(workdir, KIND, SCORE)


def test(job):
    """Score the best checkpoint on the test songs, once, and write the results."""
    workdir = pathlib.Path(job.config.workdir)
    folder = validation.best_folder(workdir)
    sha256 = checkpoints.manifest_sha256(folder, checkpoints.require_step(folder))
    before = read_json(workdir / "tags.json")
    if before is not None and (before.get("format"), before["about"]["sha256"]) == (FORMAT, sha256):
        log(f"tested already: {workdir / 'tags.html'}")
        return tag_report.write_tag_report(workdir)
    results = score_test(head_job.load_best(workdir, lambda _: job))
    write_json(workdir / "tags.json", replace_nonfinite(results))
    write_csv(workdir / "tags.csv", results["tags"])
    value, count = results["test"][SCORE]["value"], len(results["songs"])
    log(f"tag: macro PR-AUC {value:.4f} on {count} test songs")
    log(f"tag: {tag_report.write_tag_report(workdir)}")


def score_test(best):
    """Return what tags.json holds: the metrics of the test songs, tag by tag and song by song."""
    job, thresholds = best.job, best.saved["thresholds"]
    tags, songs = job.task.tags, job.load_songs("test")
    targets = tags.targets(songs)
    waves = crops.read_spread_crops(songs, job.rep.samples, job.config.head.windows)
    network = tag_job.make_predict(job)
    predict = lambda sound: predict_songs(job, network, best.params, sound)
    probabilities = predict(waves)
    decisions = classification.predict_tags(probabilities, thresholds)
    rows = zip(songs.entries, probabilities, strict=True)
    return {
        "format": FORMAT,
        "about": describe_run(job, best.step, best.sha256, songs),
        "valid": best.saved["valid"],
        "history": read_history(job.config.workdir),
        "test": classification.summarize_metrics(targets, probabilities, decisions),
        "tags": classification.tabulate_tags(tags.names, targets, probabilities, decisions, thresholds),
        "confusion": (
            classification.confusion_matrix(targets, decisions).tolist() if tags.one else None
        ),
        "robustness": measure_robustness(job, targets, waves, predict, thresholds),
        "songs": [{"name": entry["name"], "probabilities": row.tolist()} for entry, row in rows],
    }


def describe_run(job, step, sha256, songs):
    """Return what tags.json keeps of the run, for `json`."""
    h = job.config.head
    return {
        "name": job.config.name,
        "step": step,
        "sha256": sha256,
        "init_from": job.config.finetune.init_from,
        "block": h.block,
        "noise_level": h.noise_level,
        "trainable": h.trainable,
        "one": job.task.tags.one,
        "windows": h.windows,
        "seconds": job.rep.samples / job.rep.sample_rate,
        "sample_rate": job.rep.sample_rate,
        "songs": {
            "train": len(job.songs.entries),
            "valid": len(job.valid_songs.entries),
            "test": len(songs.entries),
        },
    }


def measure_robustness(job, targets, waves, predict, thresholds):
    """Return a row for each corruption of the test songs: the metrics at the same thresholds."""
    if not job.config.tag.robustness:
        return []
    rows = []
    for name, (corrupt, strength) in CORRUPTIONS.items():
        log(f"tag: the test songs with {name}")
        sound = [corrupt(crops.pcm_to_wave(pcm), job.rep.sample_rate, **strength) for pcm in waves]
        probabilities = predict(np.stack(sound))
        decisions = classification.predict_tags(probabilities, thresholds)
        metrics = classification.compute_metrics(targets, probabilities, decisions)
        rows.append({"corruption": name} | metrics)
    return rows


def replace_nonfinite(value):
    """Return what JSON can hold: None in the place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
