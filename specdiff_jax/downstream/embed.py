"""--mode=embed: train vectors for search, choose the best checkpoint on valid, test it once.

The score is recall@1: the share of windows of held-out songs whose nearest other window that does
not overlap is of the same song.
"""

import pathlib

from specdiff_jax.config.fields import choose
from specdiff_jax.data import prepare
from specdiff_jax.downstream import embed_job, embedders, head_job
from specdiff_jax.downstream.contrastive import LOSSES
from specdiff_jax.downstream.embed_job import KIND, SCORE, RetrievalMetrics
from specdiff_jax.runtime.files import read_json, write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, validation
from specdiff_jax.training.train import fit

FORMAT = 2  # of embedding.json


def run(config):
    """Train, test and write embedding.json; --mode=index and search then use the best."""
    check(config)
    prepare.run(config)
    job = embed_job.make_job(config)
    job.take_songs()
    train(job)
    test(config)


def train(job):
    """Train from the newest good checkpoint, or from the start, until validation stops it."""
    e, count = job.config.embed, len(job.songs.entries)
    positives = f"labels of {', '.join(e.kinds)}" if e.kinds else "two crops of each song"
    positives += ", and captions" if e.text else ""
    log(f"embed: {e.dim} numbers a window, positives by {positives}; {count} training songs")
    fit(job)


def test(config):
    """Score the best checkpoint on the test songs, once, and write embedding.json."""
    path = pathlib.Path(config.workdir) / "embedding.json"
    folder = validation.best_folder(config.workdir)
    sha256 = checkpoints.manifest_sha256(folder, checkpoints.require_step(folder))
    before = read_json(path)
    if before is not None and (before.get("format"), before["sha256"]) == (FORMAT, sha256):
        return log(f"tested already: {path}")
    best = embedders.load_best(config.workdir)
    metrics = RetrievalMetrics(best.job, best.job.load_songs("test"))(best.params)
    results = {
        "format": FORMAT,
        "name": config.name,
        "step": best.step,
        "sha256": best.sha256,
        "embed": config.embed.to_dict(),
        "head": config.head.to_dict(),
        "init_from": config.finetune.init_from,
        "seed": config.seed,
        "valid": best.saved["valid"],
        "test": metrics,
        "history": validation.read_history(config.workdir, KIND, SCORE),
    }
    write_json(path, results)
    log(f"embed: recall@1 {metrics[SCORE]:.4f} of {metrics['queries']} test windows; {path}")


# ---- fields


def check(config):
    """Refuse fields of `embed` that make no sense, and fields that have no effect."""
    e, size = config.embed, config.train.batch_size
    head_job.check(config, "embed")
    choose(LOSSES, "embed.loss", e.loss)
    if (e.temperature is None) == (e.loss == "softmax"):
        raise ValueError(
            f"embed.temperature={e.temperature} does not go with embed.loss={e.loss!r}: set it for "
            "softmax, unset it for sigmoid, which trains it"
        )
    if e.temperature is not None and e.temperature <= 0:
        raise ValueError(f"embed.temperature={e.temperature} is not above 0")
    if e.dim < 2:
        raise ValueError(f"embed.dim={e.dim} is less than 2 numbers a vector")
    if config.head.windows < 2:
        raise ValueError(
            f"head.windows={config.head.windows}: retrieval needs two windows of a song; set 2"
        )
    if size < 4 or size % 2:
        raise ValueError(
            f"train.batch_size={size} is not even and at least 4: two crops of each song, and "
            "other songs as negatives"
        )
    if config.optimizer.grad_accum_steps != 1:
        raise ValueError(
            f"optimizer.grad_accum_steps={config.optimizer.grad_accum_steps} would leave each "
            "crop fewer negatives; set it to 1"
        )
    if config.augment.mix_up is not None:
        raise ValueError("augment.mix_up would mix songs that are negatives; set it to None")
    if e.min_songs is not None and not e.kinds:
        raise ValueError(f"embed.min_songs={e.min_songs} is not used without embed.kinds; unset it")
    check_text(e)


def check_text(e):
    """Refuse fields about captions that make no sense or have no effect."""
    for name in ("max_tokens", "text_weight"):
        if e[name] is not None and e.text is None:
            raise ValueError(f"embed.{name}={e[name]} is not used without embed.text; unset it")
    if e.text is not None and e.max_tokens is None:
        raise ValueError(f"embed.max_tokens must be set for embed.text={e.text!r}; 32 is usual")
    if e.text_weight is not None and e.text_weight <= 0:
        raise ValueError(f"embed.text_weight={e.text_weight} is not above 0; unset embed.text")
