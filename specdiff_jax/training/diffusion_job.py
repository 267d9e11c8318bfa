"""A config made into the objects of one run: what train, preflight, sample and others share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.augment import samples_needed
from specdiff_jax.conditioning import label_reader
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.config import build
from specdiff_jax.config.fields import json_equal
from specdiff_jax.data import caption_features, prepare
from specdiff_jax.data import songs as data
from specdiff_jax.diffusion.losses import x0_error_by_level
from specdiff_jax.runtime import mesh, xla_options
from specdiff_jax.runtime.logs import say
from specdiff_jax.training import checkpoints, init_from, optimizers, trained_model
from specdiff_jax.training.train_state import make_train_step

FREE = (
    "name",
    "workdir",
    "sample",
    "edit",
    "demo",
    "evaluate",
    "sweep",
    "export",
    "search",
    "tag",
    "embed",
    "valid",
    "mesh",
    "profile_steps",
)  # may change between a checkpoint and its resume
CAPTION_KEY = build.OWN_KEY + 2  # draws one caption of each song
FREE_FIELDS = {  # of the others
    "train": ("num_steps", "num_epochs", "valid_every", "checkpoint_every", "keep"),
    "model": ("attention", "remat", "dtype"),  # how it is computed, not what
}


class Run:
    """The songs, representation, vocabulary, model, schedule and optimiser of a config.

    The representation has no statistics until `fit_representation` or `restore` gives it some.
    """

    def __init__(self, config):
        self.config = config
        self.rep = build.representation(config)
        self.samples = samples_needed(self.rep.samples, build.augmentation(config))
        self.songs = prepare.songs_of(config, "train", self.samples)
        self.valid_songs = prepare.songs_of(config, "valid", self.rep.samples)
        if config.condition.balance:
            self.songs = data.balanced(self.songs, config.condition.balance)
        self.num_steps = build.num_steps(config, data.epoch_size(self.songs, self.samples))
        self.tx = optimizers.optimizer(config, self.num_steps)
        self.schedule = build.schedule(config)
        about, self.features = None, None
        if config.condition.text:
            c = config.condition
            about, self.features = caption_features.read(
                prepare.cache_of(config), c.text, c.max_tokens
            )
        self.know(vocabulary(config, self.songs, about))

    def know(self, vocabulary):
        """Takes a vocabulary, and the model that knows it."""
        self.vocabulary = vocabulary
        self.model = build.model(self.config, self.rep.shape, vocabulary)

    def fit_representation(self):
        """Statistics from evenly spread crops of the training split."""
        crops = fixed_crops(self.songs, self.rep, self.config.representation.fit_crops)
        self.rep = representations.fit(self.rep, crops)

    def init(self, params=None):
        """The state at step 0: with these parameters, else a function of the config alone."""
        make = lambda params: build.init(self.config, self.model, self.tx, self.rep.shape, params)
        return jax.jit(lambda params: mesh.held(make(params)))(params)

    def begin(self):
        """The state at step 0 and, in `self.rep`, statistics: fresh, or of finetune.init_from."""
        f = self.config.finetune
        reader = reader_of(self.vocabulary, self.songs, self.features)
        self.vocabulary = dataclasses.replace(self.vocabulary, reader=reader)
        if f.init_from is None:
            self.fit_representation()
            return self.init()
        old = init_from.read(f.init_from)
        own = init_from.representation(old.rep, self.rep)
        if f.new_statistics:
            self.fit_representation()
        else:
            self.rep = own
        fresh = build.initial_params(self.config, self.model, self.rep.shape)
        params, fates = init_from.fitted(fresh, old, self.config, self.rep.shape, self.vocabulary)
        state = self.init(params)
        told = init_from.lines(f.init_from, fates)
        told += init_from.label_lines(old.vocabulary, self.vocabulary)
        told += init_from.changes(old, self.config)
        for line in [*told, init_from.share(self.config, state.params)]:
            say(line)
        return state

    def to_dict(self):
        """What a checkpoint keeps beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
            "vocabulary": dataclasses.asdict(self.vocabulary),
        }

    def restore(self, step):
        """The state of a checkpoint and, in `self.rep`, its representation.

        Raises:
          ValueError: the checkpoint was trained with another config.
        """
        saved = trained_model.completed(checkpoints.read_run(self.config.workdir, step))
        refuse_changed(saved["config"], self.config.to_dict(), self.config.workdir)
        self.rep = representations.from_dict(saved["representation"])
        self.know(conditions.vocabulary_from(saved["vocabulary"]))
        return checkpoints.restore(self.config.workdir, step, jax.eval_shape(self.init))

    def train_step(self):
        """The jitted (state, held, steps [K], Batch [K, B]) -> (state, metrics of [K])."""
        loss = build.loss_fn(self.config, self.model, self.rep, self.schedule)
        average = optimizers.averaging(self.config)
        tell = telling(self.vocabulary)
        return dispatch_of(self.config, self.samples, tell, loss, self.tx, average)

    def feed(self, dispatches):
        """(held, batches): what lives on the device, and the Batch of each dispatch."""
        tables = conditions.tables(self.vocabulary, self.songs, self.features)
        return fed(self.config, self.songs, self.samples, tables, dispatches)

    def validation(self, levels):
        """The jitted params -> x_0 error on the fixed held-out crops at each level.  # [K]"""
        crops = fixed_crops(self.valid_songs, self.rep, self.config.valid.crops)
        size = min(self.config.train.batch_size, len(crops))
        in_batches = lambda x: x[: len(x) // size * size].reshape(-1, size, *x.shape[1:])
        batches, said = jax.tree.map(in_batches, (crops, self.valid_conditions()))

        @jax.jit
        def x0_error(params):
            denoise = build.denoiser(self.config, self.model, params, self.schedule)

            def of_batch(inputs):
                index, wave, condition = inputs
                key = jax.random.fold_in(jax.random.key(1), index)
                told = functools.partial(denoise, condition=condition)
                x_0 = mesh.by_batch(self.rep.encode)(wave)
                return x0_error_by_level(told, x_0, levels, self.schedule, key)

            return jax.lax.map(of_batch, (jnp.arange(len(batches)), batches, said)).mean(axis=0)

        return x0_error

    def valid_conditions(self):
        """The Condition of the fixed held-out crops, each song's first caption; or None."""
        offsets = data.tiled_offsets(self.valid_songs, self.rep.samples, self.config.valid.crops)
        batch = data.batch_of(self.valid_songs, offsets)
        tables = conditions.tables(self.vocabulary, self.valid_songs, self.features)
        held = jax.device_put(tables)
        return conditions.draw(self.vocabulary, held, batch.song, batch.start)

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


def telling(vocabulary):
    """(tables, Batch, key) -> the Condition that a vocabulary can tell of the crops, or None."""
    return lambda tables, batch, key: conditions.draw(
        vocabulary, tables, batch.song, batch.start, key
    )


def dispatch_of(config, samples, tell, loss, tx, average):
    """The jitted (state, held, steps [K], Batch [K, B]) -> (state, metrics of [K]) of any job.

    Args:
      samples: of a crop.
      tell: (tables, Batch, key) -> what the loss is told of each crop's song; see `telling`.
      loss: (params, (wave, what is told), key) -> (loss, {name: scalar}).
      tx, average: as `make_train_step` takes them.
    """
    one_step = make_train_step(loss, tx, average, config.optimizer.accumulate)

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=xla_options.options())
    def dispatch(state, held, steps, batches):
        pcm, tables = held

        def one(state, inputs):
            step, batch = inputs
            sound = batch.sound
            crops = sound if pcm is None else data.slice_crops(pcm, sound, samples)
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            caption_key = jax.random.fold_in(key, CAPTION_KEY)
            told = tell(tables, batch, caption_key)
            return one_step(state, step, (data.to_wave(crops), told), key)

        return jax.lax.scan(one, state, (steps, batches))

    return dispatch


def fed(config, songs, samples, tables, dispatches, draw=data.crop_offsets):
    """(held, batches): what lives on the device, and the Batch of each dispatch.

    Held are (songs, tables of what they are called), or (None, tables) where the batches carry
    the crops themselves. `draw` says where the crops of a step begin, as data.crop_offsets does.
    """
    d = config.data
    size = config.train.batch_size
    arguments = (songs, samples, config.seed, size, dispatches, mesh.share(size), draw)
    if not data.on_device(songs, d.feed, d.device_gigabytes):
        held, batches = (None, tables), data.host_batches(*arguments)
    else:
        held, batches = (songs.read_all(), tables), data.offset_batches(*arguments)
        batches = (batch._replace(sound=batch.sound.astype(np.int32)) for batch in batches)
    return mesh.put_whole(held), map(mesh.put_batch, batches)


def vocabulary(config, songs, about):
    """The Vocabulary of a config: what its training songs are called."""
    c = config.condition
    labels = conditions.labels_of(songs, c.min_songs) if c.labels else ()
    return conditions.Vocabulary(labels, tuple(c.numbers), about)


def reader_of(vocabulary, songs, features):
    """What `label_reader.read` needs, of the captions of songs; None without labels or text."""
    if not (vocabulary.labels and vocabulary.text):
        return None
    told = conditions.tables(vocabulary, songs, features)
    owner = np.repeat(np.arange(len(told.count)), told.count)  # song of each caption
    text = told.captions[: len(owner)]
    return label_reader.fit(vocabulary.labels, told.labels[owner], told.pooled[text], owner)


def fixed_crops(songs, rep, count):
    """Evenly spread crops of a split.  # [<= count, N] or [<= count, A, N] float32"""
    return data.tiled_waves(songs, rep.samples, count)[0]


def refuse_changed(saved, wanted, workdir, free_sections=FREE):
    """Raises ValueError naming the first field that a resume may not change."""
    for section in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(section), wanted.get(section)
        if section in free_sections or old == new:
            continue
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new, section = {section: old}, {section: new}, ""
        for field in sorted(old.keys() | new.keys()):
            free = field in FREE_FIELDS.get(section, ())
            if not free and json_equal(old.get(field)) != json_equal(new.get(field)):
                name = f"{section}.{field}".lstrip(".")
                raise ValueError(
                    f"{workdir} was trained with {name}={old.get(field)!r}, the config says "
                    f"{new.get(field)!r}; set workdir elsewhere or the field back"
                )
