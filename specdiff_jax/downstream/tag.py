"""--mode=tag: a tagger trained by train.loop, stopped and chosen on valid, tested once.

With --predict: what the best tagger says of files; see tag_predict.py.
"""

import math
import pathlib

import numpy as np

from specdiff_jax.audio.corruptions import CORRUPTIONS
from specdiff_jax.data import crops, prepare
from specdiff_jax.downstream import backbone, tag_predict, tag_rules
from specdiff_jax.downstream.tag_job import Tagger
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.reports import tag_report
from specdiff_jax.runtime.files import read_json, write_csv, write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, validation
from specdiff_jax.training.train import fit
from specdiff_jax.training.validation import best_folder

KIND, SCORE = "tags", "pr_auc_macro"  # of the lines in metrics.jsonl; what is best on valid


def run(config, predict=()):
    """Trains, tests and writes tags.json, tags.csv and tags.html; or speaks of files."""
    if predict:
        return tag_predict.run(config, predict)
    tag_rules.check(config)
    prepare.run(config)
    job = Tagger(config)
    job.take_songs()
    trained(job)
    tested(job)


def trained(job):
    """Trains from the newest good checkpoint, or from the start, until enough."""
    kind = "one a song" if job.tags.one else "any number a song"
    told = f"tag: {len(job.tags.names)} tags, {kind}; {len(job.songs.entries)} songs to learn from"
    log(told)
    job.make_validation = lambda step: Validation(job, step)
    fit(job)


class Validation:
    """Scores the moving average on the held-out songs; keeps the best, and its thresholds."""

    def __init__(self, job, step):
        self.job, self.likely = job, job.likely()
        self.truth = job.tags.of(job.valid_songs)
        if not classification.has_both_classes(self.truth).any():
            raise ValueError(
                "every valid song has the same tags; raise data.valid_fraction or add songs"
            )
        self.waves = song_waves(job, job.valid_songs)
        self.best = validation.BestCheckpoint(job, KIND, SCORE, job.config.head.patience, step)
        self.stopped = self.best.stopped

    def __call__(self, state, step, logs):
        """Whether to stop: so many validations without a better one."""
        size = self.job.config.train.batch_size
        heard = backbone.in_batches(self.likely, state.ema_params, self.waves, size)
        likely = song_means(heard)
        at = None if self.job.tags.one else classification.fit_thresholds(self.truth, likely)
        found = classification.compute_metrics(
            self.truth, likely, classification.predict_tags(likely, at)
        )
        kept = {"thresholds": None if at is None else at.tolist(), "valid": found}
        top_step, top = self.best.update(state, step, found, kept, logs)
        log(
            f"tag: macro PR-AUC {found[SCORE]:.4f}, macro F1 {found['f1_macro']:.4f} on valid at "
            f"step {step} of {self.job.num_steps}; the best is {top:.4f} at step {top_step}"
        )
        return self.stopped()


def history(workdir):
    """[(step, macro PR-AUC)] of the validations that a run has logged."""
    return validation.read_history(workdir, KIND, SCORE)


def song_waves(job, songs):
    """int16 windows of each song, evenly spread from its beginning to its end.  # [S, W, N, A]"""
    return crops.read_spread_crops(songs, job.rep.samples, job.config.head.windows)


def song_means(likely):
    """Mean over the windows of each song.  # [S, W, V] -> [S, V]"""
    return likely.mean(axis=1, dtype=np.float64)


# ---- the test


def tested(job):
    """Scores the best on the test songs, once, and writes what was found."""
    config, folder = job.config, best_folder(job.config.workdir)
    workdir = pathlib.Path(config.workdir)
    step = checkpoints.require_step(folder)
    sha256 = checkpoints.manifest_sha256(folder, step)
    before = read_json(workdir / "tags.json")
    if before is not None and before["about"]["sha256"] == sha256:
        log(f"tested already: {workdir / 'tags.html'}")
        return tag_report.write_tag_report(workdir)
    saved = checkpoints.read_run(folder, step)
    params, at = job.restore(step, folder).ema_params, saved["thresholds"]
    songs = job.held_out("test")
    truth, waves = job.tags.of(songs), song_waves(job, songs)
    heard = job.likely()
    size = config.train.batch_size
    of = lambda sound: song_means(backbone.in_batches(heard, params, sound, size))
    likely = of(waves)
    said = classification.predict_tags(likely, at)
    found = {
        "about": about(job, step, sha256, songs),
        "valid": saved["valid"],
        "history": history(workdir),
        "test": classification.summarize_metrics(truth, likely, said),
        "tags": classification.tabulate_tags(job.tags.names, truth, likely, said, at),
        "confusion": classification.confusion_matrix(truth, said).tolist()
        if job.tags.one
        else None,
        "robustness": robustness(job, truth, waves, of, at),
        "songs": [
            {"name": entry["name"], "likely": row.tolist()}
            for entry, row in zip(songs.entries, likely, strict=True)
        ],
    }
    write_json(workdir / "tags.json", finite(found))
    write_csv(workdir / "tags.csv", found["tags"])
    log(f"tag: macro PR-AUC {found['test'][SCORE]['value']:.4f} on {len(truth)} test songs")
    log(f"tag: {tag_report.write_tag_report(workdir)}")


def about(job, step, sha256, songs):
    h, f = job.config.head, job.config.finetune
    return {
        "name": job.config.name,
        "step": step,
        "sha256": sha256,
        "init_from": f.init_from,
        "block": h.block,
        "t": h.noise_level,
        "trainable": h.trainable,
        "one": job.tags.one,
        "windows": h.windows,
        "seconds": job.rep.samples / job.rep.sample_rate,
        "sample_rate": job.rep.sample_rate,
        "songs": {
            "train": len(job.songs.entries),
            "valid": len(job.valid_songs.entries),
            "test": len(songs.entries),
        },
    }


def robustness(job, truth, waves, of, at):
    """A row for each way of spoiling the test songs: the scores, thresholds as they are."""
    if not job.config.tag.robustness:
        return []
    rows = []
    for name, (spoil, strength) in CORRUPTIONS.items():
        log(f"tag: the test songs again, {name}")
        sound = [spoil(crops.pcm_to_wave(pcm), job.rep.sample_rate, **strength) for pcm in waves]
        likely = of(np.stack(sound))
        scores = classification.compute_metrics(
            truth, likely, classification.predict_tags(likely, at)
        )
        rows.append({"change": name} | scores)
    return rows


def finite(value):
    """What JSON can hold: None for what is no number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
