"""--mode=tag: train a tagger, choose the best checkpoint on valid, test it once.

With --predict FILE...: the tags of sound files of any length by the best tagger.
"""

import math
import pathlib

import numpy as np

from specdiff_jax.audio.corruptions import CORRUPTIONS
from specdiff_jax.audio.decode import decode_audio
from specdiff_jax.data import collection, crops, prepare
from specdiff_jax.downstream import head_job, tag_job
from specdiff_jax.downstream.tag_job import KIND, SCORE, predict_songs
from specdiff_jax.evaluation.embedders.embedder import split_windows
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.reports import tag_report
from specdiff_jax.runtime.files import read_json, write_csv, write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, validation
from specdiff_jax.training.train import fit
from specdiff_jax.training.validation import best_folder

FORMAT = 2  # of tags.json
MIN_SHOWN = 5  # of the most probable tags, whether they reach their thresholds or not


def run(config, predict=()):
    """Train, test and write tags.json, tags.csv and tags.html; or predict the tags of files."""
    if predict:
        return predict_files(config, predict)
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
    folder = best_folder(workdir)
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
    waves = tag_job.read_windows(job, songs)
    network = tag_job.make_predict(job)
    predict = lambda sound: predict_songs(job, network, best.params, sound)
    probabilities = predict(waves)
    decisions = classification.predict_tags(probabilities, thresholds)
    rows = classification.tabulate_tags(tags.names, targets, probabilities, decisions, thresholds)
    by_song = zip(songs.entries, probabilities, strict=True)
    return {
        "format": FORMAT,
        "about": describe_run(job, best.step, best.sha256, songs),
        "valid": best.saved["valid"],
        "history": read_history(job.config.workdir),
        "test": classification.summarize_metrics(targets, probabilities, decisions),
        "tags": rows,
        "confusion": (
            classification.confusion_matrix(targets, decisions).tolist() if tags.one else None
        ),
        "robustness": measure_robustness(job, targets, waves, predict, thresholds),
        "songs": [{"name": entry["name"], "probabilities": row.tolist()} for entry, row in by_song],
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


# ---- --predict


def predict_files(config, paths):
    """Print the tags of each file, and write them beside the file by tag.write_sidecars.

    Raises:
      ValueError: there is no tagger; a file cannot be read (the others are predicted first).
    """
    job, params, thresholds = load_best(config.workdir)
    failed = []
    for path in paths:
        try:
            prediction = predict_file(job, params, thresholds, path)
        except ValueError as error:
            log(f"not tagged: {path}: {error}")
            failed.append(path)
            continue
        for line in format_prediction(path, prediction):
            print(line)
        if config.tag.write_sidecars:
            write_json(f"{path}.tags.json", prediction)
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files could not be tagged: {failed[0]}")


def load_best(workdir):
    """Return (HeadJob, params, thresholds [V] or None) of the best checkpoint of a tagger."""
    if not checkpoints.steps(best_folder(workdir)):
        raise ValueError(f"workdir={workdir} holds no tagger; run --mode=tag without --predict")
    best = head_job.load_best(workdir, tag_job.make_job)
    return best.job, best.params, best.saved["thresholds"]


def predict_file(job, params, thresholds, path):
    """Return the tags of a file, the most probable first, as the mean over adjacent windows.

    Returns:
      {"file", "seconds", "windows", "tags": [{"tag", "probability", "predicted"}]}
    """
    pcm, *_ = decode_audio(str(path), collection.build_audio_format(job.config))
    least = job.rep.min_samples(job.config.model.patch[1])
    if len(pcm) < least:
        raise ValueError(f"{len(pcm)} samples are shorter than one patch of {least}")
    pieces = split_windows(pcm, job.rep.samples)  # [W, N, A]
    probabilities = tag_job.predict_songs(job, tag_job.make_predict(job), params, pieces[None])
    decisions = classification.predict_tags(probabilities, thresholds)[0]
    rows = [
        {
            "tag": job.task.tags.names[k],
            "probability": float(probabilities[0, k]),
            "predicted": bool(decisions[k]),
        }
        for k in np.argsort(-probabilities[0], kind="stable")
    ]
    seconds = len(pcm) / job.rep.sample_rate
    return {"file": str(path), "seconds": seconds, "windows": len(pieces), "tags": rows}


def format_prediction(path, prediction):
    """Yield the lines that the user reads; a star marks tags that reach their threshold."""
    seconds, count = prediction["seconds"], prediction["windows"]
    yield f"{path}: {seconds:.1f} s, mean of {count} windows"
    for place, row in enumerate(prediction["tags"]):
        if place < MIN_SHOWN or row["predicted"]:
            star = "*" if row["predicted"] else " "
            yield f"  {star} {row['probability']:.3f} {row['tag']}"
