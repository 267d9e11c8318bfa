"""--mode=tag: a tagger trained by train.loop, stopped and chosen on valid, tested once.

With --predict: what the best tagger says of files; see tag_predict.py.
"""

import json
import math
import pathlib
import shutil

import numpy as np

from specdiff_jax import (
    checkpoints,
    data,
    prepare,
    tag_predict,
    tag_rules,
    tags_page,
    train,
)
from specdiff_jax.audio.spoil import SPOILS
from specdiff_jax.evaluation import tag_scores
from specdiff_jax.logs import Logs, say, write_csv, write_json
from specdiff_jax.tagging import Tagger, heard
from specdiff_jax.workdir import read_json

SCORE = "pr_auc_macro"  # what is best on valid


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
    config = job.config
    step = checkpoints.newest_good(config.workdir)
    if step is None:
        state, step = job.begin(), 0
    else:
        state = job.restore(config.workdir, step)
        say(f"resumed from the checkpoint of step {step}")
    write_json(pathlib.Path(config.workdir) / "config.json", config.to_dict())
    kind = "one a song" if job.tags.one else "any number a song"
    say(f"tag: {len(job.tags.names)} tags, {kind}; {len(job.songs.entries)} songs to learn from")
    with Logs(config.workdir, step, job.num_steps) as logs, train.Interrupts() as interrupts:
        validation = Validation(job, step)
        if step < job.num_steps and not validation.enough():
            train.loop(job, state, step, logs, validation, interrupts)


class Validation:
    """Scores the moving average on the held-out songs; keeps the best, and its thresholds."""

    def __init__(self, job, step):
        self.job, self.likely = job, job.likely()
        self.truth = job.tags.of(job.valid_songs)
        if not tag_scores.two_sided(self.truth).any():
            raise ValueError(
                "every valid song has the same tags; raise data.valid_fraction or add songs"
            )
        self.waves = song_waves(job, job.valid_songs)
        self.history = history(job.config.workdir)
        self.folder = best_folder(job.config)
        for later in checkpoints.steps(self.folder):  # saved by a run that was killed after it
            if later > step:
                shutil.rmtree(checkpoints.folder_of(self.folder, later))

    def __call__(self, state, step, logs):
        """Whether to stop: so many validations without a better one."""
        likely = song_means(heard(self.likely, state.ema_params, self.waves, self.job.config))
        at = None if self.job.tags.one else tag_scores.thresholds(self.truth, likely)
        found = tag_scores.scores(self.truth, likely, tag_scores.decided(likely, at))
        if not any(score >= found[SCORE] for _, score in self.history):
            self.keep(state, found, at)
        self.history.append((step, found[SCORE]))
        logs.write("tags", step, found)  # after the best is safe: a resume trusts this line
        best = max(self.history, key=lambda line: line[1])
        say(
            f"tag: macro PR-AUC {found[SCORE]:.4f}, macro F1 {found['f1_macro']:.4f} on valid at "
            f"step {step} of {self.job.num_steps}; the best is {best[1]:.4f} at step {best[0]}"
        )
        return self.enough()

    def keep(self, state, found, at):
        writer = checkpoints.Writer(self.folder, 1)
        chosen = {"thresholds": None if at is None else at.tolist(), "valid": found}
        writer.save(state, self.job.to_dict() | chosen)
        writer.finish()

    def enough(self):
        patience, scores = self.job.config.tag.patience, [score for _, score in self.history]
        return bool(patience and scores and len(scores) - 1 - int(np.argmax(scores)) >= patience)


def best_folder(config):
    return pathlib.Path(config.workdir) / "best"


def history(workdir):
    """[(step, macro PR-AUC)] of the validations that a run has logged."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [(line["step"], line[SCORE]) for line in lines if line["kind"] == "tags"]


def song_waves(job, songs):
    """int16 windows of each song, evenly spread from its beginning to its end.  # [S, W, N, A]"""
    count, samples = job.config.tag.windows, job.rep.samples
    places = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    offsets = songs.starts[:, None] + np.rint(
        (songs.lengths - samples)[:, None] * places[None]
    ).astype(np.int64)
    pcm = data.read_crops(songs, offsets.reshape(-1), samples)
    return pcm.reshape(len(songs.starts), count, *pcm.shape[1:])


def song_means(likely):
    """Mean over the windows of each song.  # [S, W, V] -> [S, V]"""
    return likely.mean(axis=1, dtype=np.float64)


# ---- the test


def tested(job):
    """Scores the best on the test songs, once, and writes what was found."""
    config, folder = job.config, best_folder(job.config)
    workdir = pathlib.Path(config.workdir)
    step = checkpoints.trained_step(folder)
    sha256 = checkpoints.manifest_sha256(folder, step)
    before = read_json(workdir / "tags.json")
    if before is not None and before["about"]["sha256"] == sha256:
        say(f"tested already: {workdir / 'tags.html'}")
        return tags_page.write(workdir)
    saved = checkpoints.read_run(folder, step)
    params, at = job.restore(folder, step).ema_params, saved["thresholds"]
    songs = job.held_out("test")
    truth, waves = job.tags.of(songs), song_waves(job, songs)
    of = lambda sound: song_means(heard(job.likely(), params, sound, config))
    likely = of(waves)
    said = tag_scores.decided(likely, at)
    found = {
        "about": about(job, step, sha256, songs),
        "valid": saved["valid"],
        "history": history(workdir),
        "test": tag_scores.summary(truth, likely, said),
        "tags": tag_scores.table(job.tags.names, truth, likely, said, at),
        "confusion": tag_scores.confusion(truth, said).tolist() if job.tags.one else None,
        "robustness": robustness(job, truth, waves, of, at),
        "songs": [
            {"name": entry["name"], "likely": row.tolist()}
            for entry, row in zip(songs.entries, likely, strict=True)
        ],
    }
    write_json(workdir / "tags.json", finite(found))
    write_csv(workdir / "tags.csv", found["tags"])
    say(f"tag: macro PR-AUC {found['test'][SCORE]['value']:.4f} on {len(truth)} test songs")
    say(f"tag: {tags_page.write(workdir)}")


def about(job, step, sha256, songs):
    t, f = job.config.tag, job.config.finetune
    return {
        "name": job.config.name,
        "step": step,
        "sha256": sha256,
        "init_from": f.init_from,
        "block": t.block,
        "t": t.t,
        "learns": t.learns,
        "one": job.tags.one,
        "windows": t.windows,
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
    for name, (spoil, strength) in SPOILS.items():
        say(f"tag: the test songs again, {name}")
        sound = [spoil(data.to_wave(pcm), job.rep.sample_rate, **strength) for pcm in waves]
        likely = of(np.stack(sound))
        scores = tag_scores.scores(truth, likely, tag_scores.decided(likely, at))
        rows.append({"change": name} | scores)
    return rows


def finite(value):
    """What JSON can hold: None for what is no number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
