"""The diffusion model as a job of `train.fit`: its songs, its loss, its validation.

wave [B, N] -> stft -> encode: x_0 [B, F, T, C] -> q_sample: x_t -> DiT -> target -> mse -> loss
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import representation as representations
from specdiff_jax.audio.augment import augment, samples_needed
from specdiff_jax.conditioning import label_reader
from specdiff_jax.conditioning import vocabulary as vocabularies
from specdiff_jax.conditioning.conditioners import drop_conditions
from specdiff_jax.config import build
from specdiff_jax.data import caption_features, crops, feeding, prepare
from specdiff_jax.data.songs import balance_labels
from specdiff_jax.diffusion.losses import diffusion_loss, x0_error_by_level
from specdiff_jax.runtime import mesh, random_streams
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, finetuning, init_from, optimizers
from specdiff_jax.training.train_state import init_params, init_state, make_dispatch
from specdiff_jax.training.validation import DenoisingValidation


class DiffusionJob:
    """The songs, representation, vocabulary, model, schedule and optimizer of a config.

    The representation has no statistics until `start` or `restore` gives it some.
    """

    def __init__(self, config):
        self.config = config
        self.rep = build.representation(config)
        self.samples = samples_needed(self.rep.samples, build.augmentation(config))
        self.songs = prepare.load_split(config, "train", self.samples)
        self.valid_songs = prepare.load_split(config, "valid", self.rep.samples)
        if config.condition.label_balance:
            self.songs = balance_labels(self.songs, config.condition.label_balance)
        self.num_steps = build.num_steps(config, crops.epoch_size(self.songs, self.samples))
        self.tx = optimizers.optimizer(config, self.num_steps)
        self.schedule = build.schedule(config)
        text, self.features = None, None
        if config.condition.text:
            c = config.condition
            text, self.features = caption_features.read_features(
                prepare.locate_cache(config), c.text, c.max_tokens
            )
        self.set_vocabulary(vocabularies.fit(config, self.songs, text))

    def set_vocabulary(self, vocabulary):
        """Take a vocabulary, and build the model for it."""
        self.vocabulary = vocabulary
        self.model = build.model(self.config, self.rep.shape, vocabulary)

    # ---- the state: new, or of a checkpoint

    def init(self, params=None):
        """Return the state at step 0: with these parameters, else a function of the seed alone."""

        def make(params):
            if params is None:
                params = init_params(self.model, self.config.seed)
            return init_state(finetuning.add_lora(self.config, params), self.tx)

        return jax.jit(lambda params: mesh.constrain_state(make(params)))(params)

    def start(self):
        """Return the state at step 0 and fit the representation, or take both of init_from."""
        reader = label_reader.fit_to_songs(self.vocabulary, self.songs, self.features)
        self.vocabulary = dataclasses.replace(self.vocabulary, reader=reader)
        place = self.config.finetune.init_from
        if place is None:
            self.fit_representation()
            return self.init()
        source = init_from.load(place)
        if self.config.finetune.refit_statistics:
            init_from.take_statistics(source.rep, self.rep)
            self.fit_representation()
        else:
            self.rep = init_from.take_statistics(source.rep, self.rep)
        fresh = init_params(self.model, self.config.seed)
        params, outcomes = init_from.match_params(
            fresh, source, self.config, self.rep.shape, self.vocabulary
        )
        state = self.init(params)
        init_from.report(place, outcomes, source, self.config, self.vocabulary, state.params)
        return state

    def fit_representation(self):
        """Take mean and std from evenly spread crops of the training split."""
        count = self.config.representation.stats_crops
        self.rep = representations.fit(
            self.rep, crops.read_fixed_waves(self.songs, self.rep.samples, count)
        )

    def restore(self, step):
        """Return the state of a checkpoint, and take its representation and vocabulary.

        Raises:
          ValueError: the checkpoint was trained with another config.
        """
        saved = checkpoints.read_run(self.config.workdir, step)
        checkpoints.refuse_changed(saved["config"], self.config)
        self.rep = representations.from_dict(saved["representation"])
        self.set_vocabulary(vocabularies.from_dict(saved["vocabulary"]))
        return checkpoints.restore(self.config.workdir, step, jax.eval_shape(self.init))

    def to_dict(self):
        """Return what a checkpoint keeps beside the state, for `json`."""
        return {
            "config": self.config.to_dict(),
            "representation": representations.to_dict(self.rep),
            "vocabulary": self.vocabulary.to_dict(),
        }

    # ---- training

    def loss_fn(self):
        """Return (params, (wave, condition), key) -> (loss, metrics): the first straight line.

        wave is [B, N] or [B, A, N]; condition a Condition, None for a model that takes none.
        """
        config, rep, schedule = self.config, self.rep, self.schedule
        trainable = functools.partial(finetuning.trainable, config)
        augmentation, objective = build.augmentation(config), build.objective(config, rep, schedule)

        def loss(params, batch, key):
            wave, condition = batch
            if any(augmentation.values()):
                channels = wave.reshape(len(wave), config.data.channels, -1)
                augment_key = jax.random.fold_in(key, random_streams.AUGMENTATION)
                wave = augment(channels, augment_key, augmentation, rep.samples)
            if condition is not None:
                drop_key = jax.random.fold_in(key, random_streams.CONDITION_DROPOUT)
                condition = drop_conditions(
                    self.model.conditioners, condition, drop_key, **build.dropout(config)
                )
            x_0 = mesh.shard_over_batch(rep.encode)(wave)  # [B, F, T, C]
            denoiser = self.denoiser(finetuning.stop_frozen(params, trainable(params)))
            predict = functools.partial(denoiser.predict, condition=condition)
            return diffusion_loss(predict, x_0, key, schedule, objective)

        return loss

    def denoiser(self, params):
        """Return the Denoiser of trained parameters, LoRA's updates merged."""
        weights = finetuning.merge_lora(self.config, params)
        return build.denoiser(self.config, self.model, weights, self.schedule)

    def train_step(self):
        """Return the jitted (state, resident, steps [K], Batch [K, B]) -> (state, metrics)."""
        ema_update = optimizers.ema_update(self.config)
        return make_dispatch(
            self.config, self.samples, self.vocabulary.draw, self.loss_fn(), self.tx, ema_update
        )

    def feed(self, dispatches):
        """Return (resident, batches): what lives on the device, and the Batch of each dispatch."""
        tables = self.vocabulary.tables(self.songs, self.features)
        return feeding.feed(self.config, self.songs, self.samples, tables, dispatches)

    # ---- validation

    def validation(self, step):
        """Return what `train.loop` calls to validate a state."""
        log("validation: fitting the linear denoisers that the model must beat")
        return DenoisingValidation(self)

    def x0_error(self, levels):
        """Return the jitted params -> x_0 error of the fixed held-out crops by level.  # [K]"""
        held_out = crops.read_fixed_waves(
            self.valid_songs, self.rep.samples, self.config.valid.crops
        )
        size = min(self.config.train.batch_size, len(held_out))
        in_batches = lambda x: x[: len(x) // size * size].reshape(-1, size, *x.shape[1:])
        batches, conditions = jax.tree.map(in_batches, (held_out, self.valid_conditions()))

        @jax.jit
        def x0_error(params):
            denoiser = self.denoiser(params)

            def of_batch(inputs):
                index, wave, condition = inputs
                key = jax.random.fold_in(jax.random.key(1), index)
                denoise = functools.partial(denoiser.denoise, condition=condition)
                x_0 = mesh.shard_over_batch(self.rep.encode)(wave)
                return x0_error_by_level(denoise, x_0, levels, self.schedule, key)

            inputs = (jnp.arange(len(batches)), batches, conditions)
            return jax.lax.map(of_batch, inputs).mean(axis=0)

        return x0_error

    def valid_conditions(self):
        """Return the Condition of the fixed held-out crops, each song's first caption; or None."""
        offsets = crops.tile_offsets(self.valid_songs, self.rep.samples, self.config.valid.crops)
        batch = feeding.make_batch(self.valid_songs, offsets)
        tables = self.vocabulary.tables(self.valid_songs, self.features)
        return self.vocabulary.draw(jax.device_put(tables), batch)

    def encode_crops(self, songs, count, size=16):
        """Yield x_0 of evenly spread crops of a split, a batch at a time.  # [<= size, F, T, C]"""
        encode = jax.jit(self.rep.encode)
        waves = crops.read_fixed_waves(songs, self.rep.samples, count)
        for start in range(0, len(waves), size):
            yield np.asarray(encode(waves[start : start + size]))
