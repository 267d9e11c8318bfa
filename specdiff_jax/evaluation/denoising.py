"""How well a model denoises held-out music: error by noise level, bound, reconstruction."""

import copy
import functools

import jax
import numpy as np
import tqdm

from specdiff_jax.audio import distances
from specdiff_jax.audio.representation import feature_ranges
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data import feeding
from specdiff_jax.diffusion import losses, reconstruction, samplers
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval
from specdiff_jax.evaluation.metrics.ssim import ssim
from specdiff_jax.sampling import generator, options
from specdiff_jax.training import validation

NUM_LEVELS = 20
START_LEVELS = tuple(float(t) for t in np.arange(1, 10) / 10)  # that music is reconstructed from
METHODS = ("noisy input", "one denoising step", "sampler")
MEASURES = ("x0_error", "ssim", "log_spectral_distance_db")
MAX_BATCH = 16


class HeldOutCrops:
    """Fixed crops of held-out songs with their conditions.

    Attributes:
      waves: [M, ..., N]; songs: [M], the groups of every interval; condition: Condition of M.
    """

    def __init__(self, model, songs, text_features, count):
        self.encode, rep = jax.jit(model.rep.encode), model.rep
        self.waves, offsets = crops_module.read_tiled_waves(songs, rep.samples, count)
        batch = feeding.make_batch(songs, offsets)
        self.songs = batch.song
        tables = jax.device_put(model.vocabulary.tables(songs, text_features))
        self.condition = model.vocabulary.draw(tables, batch)

    def subset(self, count):
        """Return HeldOutCrops of `count` of them, evenly spread over the songs."""
        few = copy.copy(self)
        last = len(self.waves) - 1
        rows = np.unique(np.linspace(0, last, count).astype(int))
        few.waves, few.songs = self.waves[rows], self.songs[rows]
        few.condition = jax.tree.map(lambda x: x[rows], self.condition)
        return few

    def batches(self):
        """Yield (x_0, condition, keys, count); only the first `count` of a batch are new clips.

        The last batch is filled with its own clips, so that all batches are of one size.
        """
        total = len(self.waves)
        size = min(MAX_BATCH, total)
        for first in range(0, total, size):
            count = min(size, total - first)
            rows = first + np.arange(size) % count
            condition = jax.tree.map(lambda x, rows=rows: x[rows], self.condition)
            yield self.encode(self.waves[rows]), condition, samplers.item_keys(0, rows), count


def bind_condition(model, params, condition):
    """Return denoise(x_t, t) of a model under one condition."""
    return functools.partial(model.denoiser(params).denoise, condition=condition)


def measure_errors(model, crops, train_x0):
    """Return a row for each of NUM_LEVELS noise levels: errors of x_0 and eps, and baselines.

    Errors of eps are given as measured and as the identity SNR * x_0 error implies.

    Args:
      crops: HeldOutCrops; train_x0: iterable of x_0 [B, F, T, C] to fit the baselines to.
    """
    levels, schedule = validation.noise_levels(NUM_LEVELS), model.schedule

    @jax.jit
    def errors(params, x_0, condition, keys):
        denoise = bind_condition(model, params, condition)
        return reconstruction.errors_by_item(denoise, x_0, keys, levels, schedule)

    parts = [
        [part[:, :count] for part in errors(model.params, x_0, condition, keys)]
        for x_0, condition, keys, count in crops.batches()
    ]
    x0_errors, eps_errors = (
        np.concatenate(part, axis=1) for part in zip(*parts, strict=True)
    )  # [K, M] each
    originals = (np.asarray(x_0[:count]) for x_0, _, _, count in crops.batches())
    baselines = validation.linear_baselines(
        train_x0, originals, model.model.patch, schedule, levels
    )
    snr = np.exp(np.asarray(schedule.log_snr(levels), np.float64))
    return [
        {
            "t": float(t),
            **interval_fields("x0_error", x0_errors[k], crops),
            "eps_error": float(eps_errors[k].mean()),
            "eps_error_by_identity": float(snr[k] * x0_errors[k].mean()),
            **{name: values[k] for name, values in baselines.items()},
        }
        for k, t in enumerate(levels)
    ]


def measure_bound(model, crops):
    """Return the variational bound in nats per dimension, with its interval; see losses."""

    @jax.jit
    def bound_of_batch(params, x_0, condition, keys):
        def bound_of_one(item):
            x_0, condition, key = jax.tree.map(lambda x: x[None], item)
            denoise = bind_condition(model, params, condition)
            return losses.variational_bound(denoise, x_0, model.schedule, key[0])

        return jax.lax.map(bound_of_one, (x_0, condition, keys))

    bounds = [
        bound_of_batch(model.params, x_0, condition, keys)[:count]
        for x_0, condition, keys, count in crops.batches()
    ]
    return interval_fields("nats_per_dimension", np.concatenate(bounds), crops)


def measure_reconstruction(model, crops):
    """Return a row for each of START_LEVELS and METHODS: closeness to the original, MEASURES.

    SSIM is of the features as an image, within the span that the representation gives them; the
    log-spectral distance is between decoded sounds.
    """
    rep, curve = model.rep, generator.read_curve(model)
    sampler = options.make_sampler(model.config, model.schedule)

    @jax.jit
    def reconstruct(params, x_0, condition, keys, times, level):
        denoise = bind_condition(model, params, condition)
        estimates = reconstruction.reconstruct(
            denoise, sampler, x_0, keys, times, level, model.schedule
        )
        return [(x, rep.decode(x)) for x in estimates]

    decode = jax.jit(rep.decode)
    grid_from = functools.partial(options.make_time_grid, model.config, model.schedule, curve)
    grids = [grid_from(start) for start in START_LEVELS]
    scores = {(start, method): [] for start in START_LEVELS for method in METHODS}
    batches = tqdm.tqdm(list(crops.batches()), "reconstruction", unit=" batches", leave=False)
    for x_0, condition, keys, count in batches:
        original = x_0[:count], decode(x_0)[:count]
        for level, (start, times) in enumerate(zip(START_LEVELS, grids, strict=True)):
            estimates = reconstruct(model.params, x_0, condition, keys, times, level)
            for method, (x, wave) in zip(METHODS, estimates, strict=True):
                estimate = x[:count], wave[:count]
                scores[start, method].append(compare_to_original(estimate, original, rep))
    rows = []
    for (start, method), parts in scores.items():
        row = {"t": start, "method": method}
        for name, values in zip(MEASURES, np.concatenate(parts, axis=1), strict=True):
            row |= interval_fields(name, values, crops)
        rows.append(row)
    return rows


def compare_to_original(estimate, original, rep):
    """Return the MEASURES of each clip, an estimate and an original (x_0, wave) of B.  # [3, B]"""
    (x, wave), (x_0, real) = (tuple(map(np.asarray, pair)) for pair in (estimate, original))
    scale = np.asarray(rep.std) / feature_ranges(rep)  # to features within one unit
    images = [np.moveaxis(each * scale, -1, 0) for each in (x, x_0)]  # C x [B, F, T]
    similarity = np.mean([ssim(a, b, 1.0) for a, b in zip(*images, strict=True)], axis=0)
    return np.stack(
        [
            np.mean((x - x_0) ** 2, axis=(1, 2, 3)),
            similarity,
            [distances.log_spectral_distance_db(a, b) for a, b in zip(real, wave, strict=True)],
        ]
    )


def interval_fields(name, values, crops):
    """Return {name, name_low, name_high}: the mean over clips, its 95 % interval over songs."""
    interval = bootstrap_interval(values, groups=crops.songs)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
