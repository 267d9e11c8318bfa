"""How well a checkpoint denoises held-out music: error by noise level, and what it rebuilds."""

import copy
import functools

import jax
import numpy as np
import tqdm

from specdiff_jax.audio import distances
from specdiff_jax.audio.representation import spans
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data import feeding
from specdiff_jax.diffusion import losses, reconstruction, samplers
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval
from specdiff_jax.evaluation.metrics.ssim import ssim
from specdiff_jax.sampling import generator, options
from specdiff_jax.training import validation

NUM_LEVELS = 20
START_LEVELS = tuple(
    float(t) for t in np.arange(1, 10) / 10
)  # the levels that music is rebuilt from
METHODS = ("the noisy input", "at one glance", "by the sampler")
MEASURES = ("x0_error", "ssim", "log_spectral_distance_db")
MAX_BATCH = 16


class HeldOutCrops:
    """Fixed crops of held-out songs, and what is said of each.

    Attributes:
      waves: [M, ..., N]; songs: [M], the groups of every interval; said: Condition of M.
    """

    def __init__(self, trained, job, songs, count):
        self.encode, rep = jax.jit(trained.rep.encode), trained.rep
        self.waves, offsets = crops_module.read_tiled_waves(songs, rep.samples, count)
        batch = feeding.make_batch(songs, offsets)
        self.songs = batch.song
        held = jax.device_put(trained.vocabulary.tables(songs, job.features))
        self.said = trained.vocabulary.draw(held, batch)

    def spread(self, count):
        """So many of them, from all over the songs."""
        few = copy.copy(self)
        last = len(self.waves) - 1
        rows = np.unique(np.linspace(0, last, count).astype(int))
        few.waves, few.songs = self.waves[rows], self.songs[rows]
        few.said = jax.tree.map(lambda x: x[rows], self.said)
        return few

    def batches(self):
        """(x_0, condition, keys, kept) of at most BATCH clips; the last is filled with its own."""
        total = len(self.waves)
        size = min(MAX_BATCH, total)
        for first in range(0, total, size):
            kept = min(size, total - first)
            rows = first + np.arange(size) % kept
            said = jax.tree.map(lambda x, rows=rows: x[rows], self.said)
            yield self.encode(self.waves[rows]), said, samplers.item_keys(0, rows), kept


def told_denoiser(trained):
    """(params, condition) -> denoise(x_t, t), the schedule."""

    def told(params, said):
        return functools.partial(trained.denoiser(params).denoise, condition=said)

    return told, trained.schedule


def measure_errors(trained, job, crops):
    """A row for each of BINS noise levels: errors of x_0 and eps, and the baselines'.

    eps errors are given as measured and, by the identity SNR * x_0 error, as they must be.
    """
    levels = validation.noise_levels(NUM_LEVELS)
    told, schedule = told_denoiser(trained)

    @jax.jit
    def errors(params, x_0, said, keys):
        return reconstruction.errors_by_item(told(params, said), x_0, keys, levels, schedule)

    found = [
        [part[:, :kept] for part in errors(trained.params, x_0, said, keys)]
        for x_0, said, keys, kept in crops.batches()
    ]
    of_x0, of_eps = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))  # [K, M]
    originals = (np.asarray(x_0[:kept]) for x_0, _, _, kept in crops.batches())
    train_x0 = job.encode_crops(job.songs, job.config.valid.baseline_crops)
    baselines = validation.linear_baselines(
        train_x0, originals, trained.config.model.patch, schedule, levels
    )
    snr = np.exp(np.asarray(schedule.log_snr(levels), np.float64))
    return [
        {
            "t": float(t),
            **interval_fields("x0_error", of_x0[k], crops),
            "eps_error": float(of_eps[k].mean()),
            "eps_error_by_identity": float(snr[k] * of_x0[k].mean()),
            **{name: values[k] for name, values in baselines.items()},
        }
        for k, t in enumerate(levels)
    ]


def measure_bound(trained, job, crops):
    """The variational bound in nats a dimension, with its interval; see losses."""
    told, schedule = told_denoiser(trained)

    @jax.jit
    def of_batch(params, x_0, said, keys):
        def of_one(item):
            x_0, said, key = jax.tree.map(lambda x: x[None], item)
            return losses.variational_bound(told(params, said), x_0, schedule, key[0])

        return jax.lax.map(of_one, (x_0, said, keys))

    found = [
        of_batch(trained.params, x_0, said, keys)[:kept]
        for x_0, said, keys, kept in crops.batches()
    ]
    return interval_fields("nats_a_dimension", np.concatenate(found), crops)


def measure_reconstruction(trained, job, crops):
    """A row for each of STARTS and ANSWERS: how near to the original, by three measures.

    SSIM is of the features as an image, within the span that the representation gives them; the
    log-spectral distance is between decoded sounds.
    """
    rep, curve = trained.rep, generator.read_curve(trained)
    told, schedule = told_denoiser(trained)
    sampler = options.make_sampler(trained.config, schedule)

    @jax.jit
    def rebuild(params, x_0, said, keys, times, level):
        answers = reconstruction.reconstruct(
            told(params, said), sampler, x_0, keys, times, level, schedule
        )
        return [(x, rep.decode(x)) for x in answers]

    decode = jax.jit(rep.decode)
    grids = [
        options.make_time_grid(trained.config, schedule, curve, start) for start in START_LEVELS
    ]
    scores = {(start, name): [] for start in START_LEVELS for name in METHODS}
    batches = list(crops.batches())
    for x_0, said, keys, kept in tqdm.tqdm(batches, "rebuilding", unit=" batches", leave=False):
        original = x_0[:kept], decode(x_0)[:kept]
        for level, (start, times) in enumerate(zip(START_LEVELS, grids, strict=True)):
            made = rebuild(trained.params, x_0, said, keys, times, level)
            for name, (x, wave) in zip(METHODS, made, strict=True):
                scores[start, name].append(
                    compare_to_original((x[:kept], wave[:kept]), original, rep)
                )
    rows = []
    for (start, name), parts in scores.items():
        values = zip(MEASURES, np.concatenate(parts, axis=1), strict=True)
        found = [interval_fields(key, row, crops) for key, row in values]
        rows.append({"t": start, "answer": name} | found[0] | found[1] | found[2])
    return rows


def compare_to_original(answer, original, rep):
    """NEARNESS of each clip, an answer and an original (x_0, wave) of B.  # [3, B]"""
    (x, wave), (x_0, real) = (tuple(map(np.asarray, pair)) for pair in (answer, original))
    scale = np.asarray(rep.std) / spans(rep)  # to features within one unit
    images = [np.moveaxis(each * scale, -1, 0) for each in (x, x_0)]  # C x [B, F, T]
    alike = np.mean([ssim(a, b, 1.0) for a, b in zip(*images, strict=True)], axis=0)
    return np.stack(
        [
            np.mean((x - x_0) ** 2, axis=(1, 2, 3)),
            alike,
            [distances.log_spectral_distance_db(a, b) for a, b in zip(real, wave, strict=True)],
        ]
    )


def interval_fields(name, values, crops):
    """{name, name_low, name_high}: the mean over clips, its 95 % interval over songs."""
    found = bootstrap_interval(values, groups=crops.songs)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
