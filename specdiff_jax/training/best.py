"""A job on a trunk through train.loop: resumed, stopped in time, its best on valid kept aside.

workdir/checkpoints/    the newest, to go on from        workdir/best/    the best, to use
"""

import json
import pathlib
import shutil

import numpy as np

from specdiff_jax.runtime.logs import Logs, say, write_json
from specdiff_jax.training import checkpoints, train


def best_folder(workdir):
    return pathlib.Path(workdir) / "best"


def trained(job, told, validation):
    """Trains from the newest good checkpoint, or from the start, until enough.

    Args:
      job: what train.loop asks for, with begin() and restore(workdir, step).
      told: lines to say before the first step.
      validation: step -> what train.loop takes as `validate`, with enough().
    """
    config = job.config
    step = checkpoints.newest_good(config.workdir)
    if step is None:
        state, step = job.begin(), 0
    else:
        state = job.restore(config.workdir, step)
        say(f"resumed from the checkpoint of step {step}")
    write_json(pathlib.Path(config.workdir) / "config.json", config.to_dict())
    say(told)
    with Logs(config.workdir, step, job.num_steps) as logs, train.Interrupts() as interrupts:
        validate = validation(step)
        if step < job.num_steps and not validate.enough():
            train.loop(job, state, step, logs, validate, interrupts)


def history(workdir, kind, score):
    """[(step, score)] of the validations of a kind that a run has logged."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [(line["step"], line[score]) for line in lines if line["kind"] == kind]


class Best:
    """The best checkpoint of a run by one score, higher is better, the first of equals.

    Args:
      job: with config and to_dict().
      kind: of the lines in metrics.jsonl; score: its name there.
      patience: validations without a better one that are enough; None is never.
      step: that the run goes on from.
    """

    def __init__(self, job, kind, score, patience, step):
        self.job, self.kind, self.score, self.patience = job, kind, score, patience
        self.history = history(job.config.workdir, kind, score)
        self.folder = best_folder(job.config.workdir)
        for later in checkpoints.steps(self.folder):  # saved by a run that was killed after it
            if later > step:
                shutil.rmtree(checkpoints.folder_of(self.folder, later))

    def offer(self, state, step, found, kept, logs):
        """Keeps the state where no earlier was as good, and logs what was found.

        Args:
          found: {name: scalar}, the score among them.
          kept: what the checkpoint keeps beside job.to_dict().

        Returns:
          (step, score) of the best so far.
        """
        if not any(score >= found[self.score] for _, score in self.history):
            writer = checkpoints.Writer(self.folder, 1)
            writer.save(state, self.job.to_dict() | kept)
            writer.finish()
        self.history.append((step, found[self.score]))
        logs.write(self.kind, step, found)  # after the best is safe: a resume trusts this line
        return max(self.history, key=lambda line: line[1])

    def enough(self):
        scores = [score for _, score in self.history]
        since = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return bool(self.patience and since >= self.patience)
