"""A head on a diffusion backbone as a job of `train.fit`; a task says what the head is for.

x_t at a small fixed t -> DiT -> tokens of one block -> head -> loss
"""

from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from specdiff_jax.audio import augment
from specdiff_jax.config import bounds, build
from specdiff_jax.config.fields import choose
from specdiff_jax.data import crops, feeding, prepare
from specdiff_jax.downstream import backbone
from specdiff_jax.downstream.backbone import Backbone
from specdiff_jax.runtime import random_streams
from specdiff_jax.training import checkpoints, finetuning, optimizers
from specdiff_jax.training.train_state import init_params, init_state, make_dispatch
from specdiff_jax.training.validation import best_folder


class HeadJob:
    """The songs, backbone, head and optimizer of a config with a task (TagTask, EmbedTask).

    The backbone has no statistics until `start` or `restore`; songs are there after `take_songs`.

    Args:
      task: has section, the name of its part of the config; crops_per_song of a batch;
        to_dict() and from_dict(saved) of what a checkpoint keeps; and three hooks:
        init_head(key, width) -> parameters beside the backbone's, "head" among them;
        fit_songs(songs), select_songs(songs, split), tables(songs), draw_targets(tables, batch,
        key), augment(wave, targets, key), mask(x_0, key) and loss(params, tokens, targets) ->
        (loss, metrics): what the head is trained to do;
        validation(job, step) -> what `train.loop` calls to validate a state.
    """

    def __init__(self, config, task):
        self.config, self.task = config, task
        self.set_model(backbone.init_model(config))
        self.samples = augment.samples_needed(self.rep.samples, build.augmentation(config))
        self.tx = optimizer(config, build.num_steps(config, crops=1))  # to restore into

    def set_model(self, model):
        """Take the diffusion model under the head."""
        self.backbone = Backbone(model, self.config.head.block, self.config.head.noise_level)

    @property
    def rep(self):
        return self.backbone.model.rep

    # ---- songs

    def take_songs(self):
        """Load the songs of training and validation; prediction needs none."""
        config, samples = self.config, self.task.crops_per_song * self.samples
        self.songs = self.task.fit_songs(prepare.load_split(config, "train", samples))
        self.valid_songs = self.load_songs("valid")
        self.num_steps = build.num_steps(config, crops.epoch_size(self.songs, self.samples))
        self.tx = optimizer(config, self.num_steps)

    def load_songs(self, split):
        """Return the held-out songs of a split that the task can use."""
        samples = self.task.crops_per_song * self.rep.samples
        return self.task.select_songs(prepare.load_split(self.config, split, samples), split)

    # ---- the state: new, or of a checkpoint

    def init(self, params=None):
        """Return the state at step 0 with these parameters of the backbone, fresh ones if None."""
        if params is None:
            params = init_params(self.backbone.model.model, self.config.seed)
        head = self.task.init_head(jax.random.key(self.config.seed), self.config.model.width)
        return init_state({"backbone": params} | head, self.tx)

    def start(self):
        """Return the state at step 0 and take the model, fresh or of finetune.init_from."""
        model, params = backbone.start(self.config, self.songs)
        self.set_model(model)
        return self.init(params)

    def to_dict(self):
        """Return what a checkpoint keeps beside the state, for `json`."""
        return backbone.to_dict(self.backbone.model, self.config) | self.task.to_dict()

    def restore(self, step, workdir=None):
        """Return the state of a checkpoint, and take its model and what its task saved.

        Raises:
          ValueError: the checkpoint was trained with another config.
        """
        workdir = workdir or self.config.workdir
        saved = checkpoints.read_run(workdir, step)
        own = ("head", self.task.section)  # a head's checkpoint depends on these, a model's not
        free = tuple(name for name in checkpoints.FREE if name not in own)
        checkpoints.refuse_changed(saved["config"], self.config, free)
        self.set_model(backbone.from_dict(saved, self.config))
        self.task.from_dict(saved)
        return checkpoints.restore(workdir, step, jax.eval_shape(self.init))

    # ---- training

    def feed(self, dispatches):
        """Return (resident, batches): what lives on the device, and the Batch of each dispatch."""
        draw = crops.draw_offsets if self.task.crops_per_song == 1 else crops.draw_pair_offsets
        tables = self.task.tables(self.songs)
        return feeding.feed(self.config, self.songs, self.samples, tables, dispatches, draw)

    def train_step(self):
        """Return the jitted (state, resident, steps [K], Batch [K, B]) -> (state, metrics)."""
        draw, ema_update = self.task.draw_targets, optimizers.ema_update(self.config)
        return make_dispatch(self.config, self.samples, draw, self.loss_fn(), self.tx, ema_update)

    def loss_fn(self):
        """Return (params, (wave, targets), key) -> (loss, metrics).

        wave is [B, N] or [B, A, N]; targets are what the task draws.
        """
        config, rep, task = self.config, self.rep, self.task
        augmentation = build.augmentation(config)

        def loss(params, batch, key):
            wave, targets = batch
            channels = wave.reshape(len(wave), config.data.channels, -1)
            augment_key = jax.random.fold_in(key, random_streams.AUGMENTATION)
            channels = augment.augment(channels, augment_key, augmentation, rep.samples)
            channels, targets = task.augment(channels, targets, key)
            x_0 = rep.encode(channels.reshape(wave.shape[:-1] + channels.shape[-1:]))
            x_0 = task.mask(x_0, key)  # [B, F, T, C]
            eps = jax.random.normal(
                jax.random.fold_in(key, random_streams.BACKBONE_NOISE), x_0.shape
            )
            params = finetuning.stop_frozen(params, trainable(config, params))
            tokens = self.backbone.features(params["backbone"], x_0, eps)  # [B, L, D]
            return task.loss(params, tokens, targets)

        return loss

    def validation(self, step):
        """Return what `train.loop` calls to validate a state."""
        return self.task.validation(self, step)

    # ---- inference

    def wave_tokens(self, params, wave):
        """Return the tokens of waves [B, N] or [B, A, N], each with the same noise.  # [B, L, D]"""
        key = jax.random.key(random_streams.BACKBONE_NOISE)
        eps = jax.random.normal(key, (1, *self.rep.shape))
        return self.backbone.wave_features(params["backbone"], wave, eps)


def trainable(config, params):
    """Return which parameters are trainable, a tree of bool.

    The head is; of the backbone, unless it is frozen, the layers up to the block that is read.
    """
    h, depth = config.head, config.model.depth

    def rule(path, _):
        if path[0].key != "backbone":
            return True
        return h.trainable != "head" and (
            finetuning.distance_from_output(path, depth) >= depth - h.block
        )

    return jax.tree_util.tree_map_with_path(rule, params)


def optimizer(config, steps):
    """Return the configured optimizer of what is trainable, the backbone's updates scaled."""
    h, tx = config.head, optimizers.optimizer(config, steps)
    if h.frozen_steps is not None or h.backbone_lr_scale is not None:
        tx = optax.chain(tx, scale_backbone(h.backbone_lr_scale or 1.0, h.frozen_steps or 0))
    return finetuning.only_trainable(tx, lambda params: trainable(config, params))


def scale_backbone(lr_scale, frozen_steps):
    """Scale the updates of the backbone by `lr_scale`, by 0 for the first steps."""

    def scale(path, count):
        return lr_scale * (count >= frozen_steps) if path[0].key == "backbone" else 1.0

    return finetuning.scale_updates(scale)


class Best(NamedTuple):
    """The best checkpoint of a run."""

    job: HeadJob
    params: Any  # the moving average, on the device
    step: int
    sha256: str
    saved: dict  # what JSON keeps of it


def has_best(workdir, name):
    """Return whether a run has a best checkpoint with what a task keeps: "tags" or "embedding"."""
    folder = best_folder(workdir)
    steps = checkpoints.steps(folder)
    return bool(steps) and name in checkpoints.read_run(folder, steps[-1])


def load_best(workdir, make_job):
    """Return the Best of a run.

    Args:
      make_job: ConfigDict -> HeadJob, which is restored.
    """
    folder = best_folder(workdir)
    step = checkpoints.require_step(folder)
    saved = checkpoints.read_run(folder, step)
    job = make_job(ConfigDict(saved["config"]))
    params = jax.device_put(job.restore(step, folder).ema_params)
    return Best(job, params, step, checkpoints.manifest_sha256(folder, step), saved)


def check(config, section):
    """Refuse fields of `head` that make no sense for any head, and fields that have no effect."""
    bounds.check(config)
    h, f, mode = config.head, config.finetune, f"--mode={section}"
    choose(dict.fromkeys(("all", "head", "head_first")), "head.trainable", h.trainable)
    if not 0 <= h.block < config.model.depth:
        raise ValueError(
            f"head.block={h.block}: the backbone has blocks 0 to {config.model.depth - 1}"
        )
    if (h.frozen_steps is None) == (h.trainable == "head_first"):
        raise ValueError(
            "head.frozen_steps and head.trainable='head_first' need each other; set both"
        )
    if h.backbone_lr_scale is not None and h.trainable == "head":
        raise ValueError(
            f"head.backbone_lr_scale={h.backbone_lr_scale} needs a trainable backbone; unset it"
        )
    for name in finetuning.FIELDS[2:]:
        if f[name] is not None:
            raise ValueError(f"finetune.{name} is not used by {mode}; see head.trainable")
    if config.optimizer.kind == "schedule_free" and h.trainable != "all":
        raise ValueError(
            f"head.trainable={h.trainable!r} cannot freeze parameters that "
            "optimizer.kind='schedule_free' averages"
        )
    if config.model.scan:
        raise ValueError(f"{mode} reads the tokens of one block; set model.scan=False")
    c = config.condition
    if c.labels or c.text or c.scalars:
        raise ValueError(
            f"condition: {mode} uses the backbone without conditions; "
            "unset condition.labels, text and scalars"
        )
