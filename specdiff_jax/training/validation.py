"""Validation: the x_0 error beside linear denoisers, and the best checkpoint of a run."""

import json
import pathlib
import shutil

import numpy as np

from specdiff_jax.diffusion import linear_denoisers
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints

BASELINES = {
    "constant": "the best constant",
    "band_wiener": "the per-band Wiener filter",
    "linear_frame": "the best linear denoiser of a frame",
    "linear_patch": "the best linear denoiser of a patch",
}


def noise_levels(count):
    """Return the centers of `count` equal bins of t in (0, 1).  # [count]"""
    return (np.arange(count) + 0.5) / count


def linear_baselines(train_x0, valid_x0, patch, schedule, levels):
    """Return the x_0 errors on held-out data of linear denoisers fitted to the training data.

    Args:
      train_x0, valid_x0: iterables of x_0 [B, F, T, C].
      patch: (bins, frames) of the model.
      levels: [K] times t.

    Returns:
      {name: [K floats]} with the names of BASELINES.
    """
    alpha = np.asarray(schedule.alpha(levels), np.float64)
    sigma = np.asarray(schedule.sigma(levels), np.float64)
    fitted = linear_denoisers.fit(train_x0, patch)
    moments = linear_denoisers.measure_moments(fitted, valid_x0, patch)

    def errors(name, gain=1.0):
        values = gain * fitted[name][2]
        pairs = zip(alpha, sigma, strict=True)
        return [linear_denoisers.x0_error(values, moments[name], a, s) for a, s in pairs]

    # With no gain the per-band filter is its mean: a constant.
    return {"constant": errors("band_wiener", gain=0.0)} | {name: errors(name) for name in fitted}


def verdict(x0_error, errors, step, num_steps):
    """Return (healthy, one line) from the errors by noise level of a model and of the baselines.

    An equalizer can beat the per-band filter; a model that has learned music beats the linear
    denoiser of its own patch.
    """
    mean = float(np.mean(x0_error))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    beaten = [name for name in BASELINES if mean < means[name]]
    if not np.isfinite(mean):
        return False, f"unhealthy: x_0 error is not finite at step {step}"
    strongest = min(means, key=means.get)
    ratio = mean / means[strongest]
    figure = f"x_0 error {mean:.4f} at step {step} of {num_steps}"
    if len(beaten) == len(BASELINES):
        return (
            True,
            f"healthy: {figure}, {ratio:.2f} of {BASELINES[strongest]} ({means[strongest]:.4f})",
        )
    unbeaten = min((n for n in BASELINES if n not in beaten), key=means.get)
    hint = "train on" if step < num_steps else "train longer, or see the loss curve"
    if not beaten:
        hint = "nothing learned yet: " + hint
    return False, (
        f"not healthy yet: {figure}, {mean / means[unbeaten]:.2f} of {BASELINES[unbeaten]} "
        f"({means[unbeaten]:.4f}); {hint}"
    )


class DenoisingValidation:
    """Compares the EMA's x_0 error on fixed (crop, t, eps) with linear denoisers."""

    def __init__(self, job):
        self.job = job
        self.levels = noise_levels(job.config.valid.num_noise_levels)
        self.x0_error = job.x0_error(self.levels)
        train_x0 = job.encode_crops(job.songs, job.config.valid.baseline_crops)
        valid_x0 = job.encode_crops(job.valid_songs, job.config.valid.crops)
        self.baselines = linear_baselines(
            train_x0, valid_x0, job.model.patch, job.schedule, self.levels
        )

    def stopped(self):
        """Return False: a diffusion model trains to its last step."""
        return False

    def __call__(self, state, step, logs):
        errors = [float(e) for e in self.x0_error(state.ema_params)]
        healthy, line = verdict(errors, self.baselines, step, self.job.num_steps)
        levels = self.levels.tolist()
        record = {"x0_error": float(np.mean(errors)), "x0_error_by_level": errors}
        logs.write("valid", step, record | {"levels": levels})
        report = {"step": step, "healthy": healthy, "verdict": line, "levels": levels}
        report |= {"x0_error": errors, "baselines": self.baselines}
        write_json(pathlib.Path(self.job.config.workdir) / "health.json", report)
        log(line)
        return False


def best_folder(workdir):
    """Return where a run keeps its best checkpoint."""
    return pathlib.Path(workdir) / "best"


def read_history(workdir, kind, score):
    """Return [(step, score)] of the validations of a kind that a run has logged."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [(line["step"], line[score]) for line in lines if line["kind"] == kind]


class BestCheckpoint:
    """The best checkpoint of a run by one score, higher is better, the first of equals.

    Args:
      job: with config and to_dict().
      kind: of the lines in metrics.jsonl; score: its name there.
      patience: validations without a better one that stop the training; None never does.
      step: that the run resumes from.
    """

    def __init__(self, job, kind, score, patience, step):
        self.job, self.kind, self.score, self.patience = job, kind, score, patience
        self.history = read_history(job.config.workdir, kind, score)
        self.folder = best_folder(job.config.workdir)
        for later in checkpoints.steps(self.folder):  # saved by a run that was killed after it
            if later > step:
                shutil.rmtree(checkpoints.folder_of(self.folder, later))

    def update(self, state, step, metrics, extra, logs):
        """Save the state if no earlier one was as good, and log the metrics.

        Args:
          metrics: {name: scalar}, the score among them.
          extra: what the checkpoint keeps beside job.to_dict().

        Returns:
          (step, score) of the best so far.
        """
        if not any(score >= metrics[self.score] for _, score in self.history):
            writer = checkpoints.Writer(self.folder, 1)
            writer.save(state, self.job.to_dict() | extra)
            writer.finish()
        self.history.append((step, metrics[self.score]))
        logs.write(self.kind, step, metrics)  # after the best is safe: a resume trusts this line
        return max(self.history, key=lambda line: line[1])

    def stopped(self):
        """Return whether `patience` validations passed without a better score."""
        scores = [score for _, score in self.history]
        since = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return bool(self.patience and since >= self.patience)
