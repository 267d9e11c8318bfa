"""A config made into the objects of one run: what train, preflight, sample and others share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax import build, checkpoints, data, optimizers, prepare
from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.augment import samples_needed
from specdiff_jax.diffusion.losses import x0_error_by_level
from specdiff_jax.state import make_train_step

FREE = (
    "name",
    "workdir",
    "sample",
    "edit",
    "valid",
)  # may change between a checkpoint and its resume
FREE_TRAIN = ("num_steps", "num_epochs", "valid_every", "checkpoint_every", "keep")


class Run:
    """The songs, representation, model, schedule and optimiser of a config.

    The representation has no statistics until `fit_representation` or `restore` gives it some.
    """

    def __init__(self, config):
        self.config = config
        self.rep = build.representation(config)
        cache = prepare.cache_of(config)
        self.samples = samples_needed(self.rep.samples, build.augmentation(config))
        self.songs = data.load_songs(cache, "train", self.samples)
        self.valid_songs = data.load_songs(cache, "valid", self.rep.samples)
        self.num_steps = build.num_steps(config, data.crops_of(self.songs, self.samples).sum())
        self.tx = optimizers.optimizer(config, self.num_steps)
        self.schedule = build.schedule(config)
        self.model = build.model(config, self.rep.shape)

    def fit_representation(self):
        """Statistics from evenly spread crops of the training split."""
        crops = fixed_crops(self.songs, self.rep, self.config.representation.fit_crops)
        self.rep = representations.fit(self.rep, crops)

    def init(self):
        """The state at step 0, a function of the config alone."""
        return build.init(self.config, self.model, self.tx, self.rep.shape)

    def to_dict(self):
        """What a checkpoint keeps beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
        }

    def restore(self, step):
        """The state of a checkpoint and, in `self.rep`, its representation.

        Raises:
          ValueError: the checkpoint was trained with another config.
        """
        saved = checkpoints.read_run(self.config.workdir, step)
        refuse_changed(saved["config"], self.config.to_dict(), self.config.workdir)
        self.rep = representations.from_dict(saved["representation"])
        return checkpoints.restore(self.config.workdir, step, jax.eval_shape(self.init))

    def train_step(self):
        """The jitted (state, pcm, steps [K], batches [K, B, ...]) -> (state, metrics of [K])."""
        o, seed, samples = self.config.optimizer, self.config.seed, self.samples
        loss = build.loss_fn(self.config, self.model, self.rep, self.schedule)
        average = optimizers.averaging(self.config)
        one_step = make_train_step(loss, self.tx, average, o.accumulate)

        @functools.partial(jax.jit, donate_argnums=0)
        def dispatch(state, pcm, steps, batches):
            def one(state, inputs):
                step, batch = inputs
                crops = batch if pcm is None else data.slice_crops(pcm, batch, samples)
                key = jax.random.fold_in(jax.random.key(seed), step)
                return one_step(state, step, data.to_wave(crops), key)

            return jax.lax.scan(one, state, (steps, batches))

        return dispatch

    def feed(self, dispatches):
        """(pcm, batches): all songs on the device and offsets, or None and the crops themselves."""
        batch_size, d = self.config.train.batch_size, self.config.data
        arguments = (self.songs, self.samples, self.config.seed, batch_size, dispatches)
        if not data.on_device(self.songs, d.feed, d.device_gigabytes):
            return None, data.host_batches(*arguments)
        offsets = (rows.astype(np.int32) for rows in data.offset_batches(*arguments))
        return jax.device_put(self.songs.read_all()), offsets

    def validation(self, levels):
        """The jitted params -> x_0 error on the fixed held-out crops at each level.  # [K]"""
        crops = fixed_crops(self.valid_songs, self.rep, self.config.valid.crops)
        size = min(self.config.train.batch_size, len(crops))
        batches = crops[: len(crops) // size * size].reshape(-1, size, *crops.shape[1:])

        @jax.jit
        def x0_error(params):
            denoise = build.denoiser(self.config, self.model, params, self.schedule)

            def of_batch(inputs):
                index, wave = inputs
                key = jax.random.fold_in(jax.random.key(1), index)
                return x0_error_by_level(denoise, self.rep.encode(wave), levels, self.schedule, key)

            return jax.lax.map(of_batch, (jnp.arange(len(batches)), batches)).mean(axis=0)

        return x0_error

    def train_batches(self):
        """x_0 of the training crops that the baselines are fitted to, a batch at a time."""
        return self.encoded(self.songs, self.config.valid.baseline_crops)

    def valid_batches(self):
        """x_0 of the validation crops, a batch at a time."""
        return self.encoded(self.valid_songs, self.config.valid.crops)

    def encoded(self, songs, count, size=16):
        encode = jax.jit(self.rep.encode)
        crops = fixed_crops(songs, self.rep, count)
        for start in range(0, len(crops), size):
            yield np.asarray(encode(crops[start : start + size]))


def fixed_crops(songs, rep, count):
    """Evenly spread crops of a split.  # [<= count, N] or [<= count, A, N] float32"""
    offsets = data.tiled_offsets(songs, rep.samples, count)
    return data.to_wave(data.read_crops(songs, offsets, rep.samples))


def refuse_changed(saved, wanted, workdir):
    """Raises ValueError naming the first field that a resume may not change."""
    for section in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(section), wanted.get(section)
        if section in FREE or old == new:
            continue
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new, section = {section: old}, {section: new}, ""
        for field in sorted(old.keys() | new.keys()):
            free = section == "train" and field in FREE_TRAIN
            if not free and json_equal(old.get(field)) != json_equal(new.get(field)):
                name = f"{section}.{field}".lstrip(".")
                raise ValueError(
                    f"{workdir} was trained with {name}={old.get(field)!r}, the config says "
                    f"{new.get(field)!r}; set workdir elsewhere or the field back"
                )


def json_equal(value):
    """A value as JSON gives it back: tuples become lists."""
    return list(value) if isinstance(value, tuple) else value
