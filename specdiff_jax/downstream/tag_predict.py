"""--mode=tag --predict FILE...: what a trained tagger says of sound files of any length."""

import jax
import numpy as np
from ml_collections import ConfigDict

from specdiff_jax.audio.ingest import ingest
from specdiff_jax.data import collection
from specdiff_jax.downstream import backbone, tag_job
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints
from specdiff_jax.training.validation import best_folder

SHOWN = 5  # of the likeliest tags, at least


def run(config, paths):
    """Prints what is said of each file, and writes it beside the file where tag.write_sidecars.

    Raises:
      ValueError: there is no tagger; a file cannot be read (after the others were done).
    """
    job, params, thresholds = best(config.workdir)
    failed = []
    for path in paths:
        try:
            found = predicted(job, params, thresholds, path)
        except ValueError as error:
            log(f"not tagged: {path}: {error}")
            failed.append(path)
            continue
        for line in lines(path, found):
            print(line)
        if config.tag.write_sidecars:
            write_json(f"{path}.tags.json", found)
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files could not be tagged: {failed[0]}")


def best(workdir):
    """(Tagger, params, thresholds [V] or None) of the best checkpoint of a run."""
    folder = best_folder(workdir)
    if not checkpoints.steps(folder):
        raise ValueError(f"workdir={workdir} holds no tagger; run --mode=tag without --predict")
    step = checkpoints.require_step(folder)
    saved = checkpoints.read_run(folder, step)
    job = tag_job.Tagger(ConfigDict(saved["config"]))
    params = job.restore(step, folder).ema_params
    return job, jax.device_put(params), saved["thresholds"]


def predicted(job, params, thresholds, path):
    """{"file", "seconds", "windows", "tags": [{"tag", "probability", "said"}]}, likeliest first.

    The probability is the mean over windows side by side.
    """
    pcm, *_ = ingest(str(path), collection.build_audio_format(job.config))
    least = job.config.model.patch[1] * job.rep.hop
    if len(pcm) < least:
        raise ValueError(f"{len(pcm)} samples are shorter than one patch of {least}")
    cut = windows(pcm, job.rep.samples)
    likely = backbone.in_batches(
        job.likely(), params, cut[None], job.config.train.batch_size
    )  # [1, W, V]
    likely = likely.mean(axis=1, dtype=np.float64)
    said = classification.predict_tags(likely, thresholds)[0]
    order = np.argsort(-likely[0], kind="stable")
    rows = [
        {"tag": job.tags.names[k], "probability": float(likely[0, k]), "said": bool(said[k])}
        for k in order
    ]
    seconds = len(pcm) / job.rep.sample_rate
    return {"file": str(path), "seconds": seconds, "windows": len(cut), "tags": rows}


def windows(pcm, size):
    """Windows side by side from the beginning; sound shorter than one is repeated to fill it.

    What is left at the end is dropped while it is shorter than half a window; else a last window
    ends where the sound does.  # [N, A] -> [W, size, A]
    """
    if len(pcm) < size:
        return np.resize(pcm, (1, size, pcm.shape[1]))
    whole, left = divmod(len(pcm), size)
    starts = [i * size for i in range(whole)] + [len(pcm) - size] * (2 * left >= size)
    return np.stack([pcm[start : start + size] for start in starts])


def lines(path, found):
    """What is said of a file, for a reader: a star marks what reaches its threshold."""
    yield f"{path}: {found['seconds']:.1f} s, mean of {found['windows']} windows"
    for place, row in enumerate(found["tags"]):
        if place < SHOWN or row["said"]:
            yield f"  {'*' if row['said'] else ' '} {row['probability']:.3f} {row['tag']}"
