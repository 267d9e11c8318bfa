"""--mode=embed: vectors for search, trained by train.loop, chosen on valid, tested once.

What is best is the share of windows of held-out songs whose nearest other window, none overlapping
it, is of the same song: recall@1.
"""

import pathlib

import jax
import numpy as np

from specdiff_jax.data import caption_features, crops, prepare
from specdiff_jax.downstream import backbone, embed_rules, trained_embedding
from specdiff_jax.downstream.embed_job import Embedding
from specdiff_jax.evaluation.metrics import retrieval
from specdiff_jax.runtime.files import read_json, write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, validation
from specdiff_jax.training.train import fit

KIND, SCORE = "embedding", "recall_1"  # of the lines in metrics.jsonl; what is best on valid


def run(config):
    """Trains and tests; writes embedding.json. --mode=index and search then use the best."""
    embed_rules.check(config)
    prepare.run(config)
    job = Embedding(config)
    job.take_songs()
    trained(job)
    tested(config)


def trained(job):
    """Trains from the newest good checkpoint, or from the start, until enough."""
    e, count = job.config.embed, len(job.songs.entries)
    by = f"labels of {', '.join(e.kinds)}" if e.kinds else "two crops of each song"
    told = f"embed: {e.dim} numbers a window, by {by}" + (", and captions" if e.text else "")
    log(f"{told}; {count} songs to learn from")
    job.make_validation = lambda step: Validation(job, step)
    fit(job)


class Validation:
    """Scores the moving average on the held-out songs, and keeps the best."""

    def __init__(self, job, step):
        self.job, self.scores = job, Scores(job, job.valid_songs)
        self.best = validation.BestCheckpoint(job, KIND, SCORE, job.config.head.patience, step)
        self.stopped = self.best.stopped

    def __call__(self, state, step, logs):
        """Whether to stop: so many validations without a better one."""
        found = self.scores.of(state.ema_params)
        top_step, top = self.best.update(state, step, found, {"valid": found}, logs)
        texts = f", of a caption's song {found['text_recall_1']:.4f}" if self.job.text else ""
        log(
            f"embed: recall@1 of another crop {found[SCORE]:.4f}{texts} on valid at step {step} of "
            f"{self.job.num_steps}; the best is {top:.4f} at step {top_step}"
        )
        return self.stopped()


class Scores:
    """How well windows of songs find their like, {name: number} of any parameters.

    Raises:
      ValueError: every song is too short for two windows that do not overlap.
    """

    def __init__(self, job, songs):
        count, samples = job.config.head.windows, job.rep.samples
        self.job, self.songs, self.vectors = job, songs, job.vectors()
        self.waves = crops.read_spread_crops(songs, samples, count)  # [S, W, N, A]
        offsets = crops.spread_offsets(songs, samples, count).reshape(-1)
        song = np.repeat(np.arange(len(songs.entries)), count)
        self.relevant = song[:, None] == song[None]  # [S * W, S * W]
        overlap = np.abs(offsets[:, None] - offsets[None]) < samples
        self.excluded = self.relevant & overlap
        self.captions = captioned(job, songs) if job.text else None

    def of(self, params):
        size = self.job.config.train.batch_size
        vectors = backbone.in_batches(self.vectors, params, self.waves, size)  # [S, W, E]
        flat = vectors.reshape(-1, vectors.shape[-1])
        found = told(retrieval.measure_retrieval(flat @ flat.T, self.relevant, self.excluded))
        if self.captions is None:
            return found
        relevant, pooled = self.captions
        texts = np.asarray(jax.jit(self.job.read)(params, pooled))  # [K, E]
        scores = np.einsum("ke,swe->ksw", texts, vectors).max(axis=2)  # as search finds songs
        by_text = told(retrieval.measure_retrieval(scores, relevant))
        return found | {f"text_{name}": value for name, value in by_text.items()}


def told(found):
    """The numbers of a Retrieval by name."""
    recalls = {f"recall_{k}": value for k, value in found.recall.items()}
    return recalls | {"mrr": found.mrr, "map_10": found.map_10, "queries": found.queries}


def captioned(job, songs):
    """(which songs have each caption [K, S], its pooled vector [K, P]) of held-out songs.

    Raises:
      ValueError: none of them has a caption.
    """
    place = prepare.locate_cache(job.config)
    e = job.config.embed
    _, (row_of, (_, _, pooled)) = caption_features.read_features(place, e.text, e.max_tokens)
    there = sorted({caption for entry in songs.entries for caption in entry["captions"]})
    if not there:
        raise ValueError(
            f"embed.text={e.text!r}: no held-out song has a caption; unset it, or raise "
            "data.valid_fraction and data.test_fraction"
        )
    has = np.array([[c in entry["captions"] for entry in songs.entries] for c in there])
    return has, pooled[[row_of[caption] for caption in there]]


# ---- the test


def tested(config):
    """Scores the best on the test songs, once, and writes embedding.json."""
    path = pathlib.Path(config.workdir) / "embedding.json"
    job, params, sha256 = trained_embedding.best(config.workdir)
    before = read_json(path)
    if before is not None and before["sha256"] == sha256:
        return log(f"tested already: {path}")
    folder = validation.best_folder(config.workdir)
    step = checkpoints.require_step(folder)
    found = Scores(job, job.held_out("test")).of(params)
    about = {"name": config.name, "step": step, "sha256": sha256, "embed": config.embed.to_dict()}
    about |= {"init_from": config.finetune.init_from, "seed": config.seed}
    valid = checkpoints.read_run(folder, step)["valid"]
    history = validation.read_history(config.workdir, KIND, SCORE)
    write_json(path, about | {"valid": valid, "test": found, "history": history})
    log(f"embed: recall@1 {found[SCORE]:.4f} of {found['queries']} windows of test songs; {path}")
