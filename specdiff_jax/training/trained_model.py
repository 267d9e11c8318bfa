"""A trained model, from a run's checkpoint or from a folder that --mode=export wrote."""

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from specdiff_jax.audio.representation import Representation
from specdiff_jax.audio.representation import from_dict as representation_from_dict
from specdiff_jax.conditioning import vocabulary as vocabularies
from specdiff_jax.conditioning.conditioners import null_condition
from specdiff_jax.config import build
from specdiff_jax.diffusion.schedules import Schedule
from specdiff_jax.models import weights
from specdiff_jax.models.dit import DiT
from specdiff_jax.models.positions import resize_positions
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, finetuning
from specdiff_jax.training.train_state import init_params


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """All that a checkpoint holds to denoise, sample, embed and evaluate with; built once."""

    workdir: pathlib.Path
    step: int
    sha256: str  # of the checkpoint
    config: ConfigDict
    rep: Representation
    vocabulary: vocabularies.Vocabulary
    schedule: Schedule
    model: DiT
    params: Any  # plain weights: LoRA's updates are merged

    def denoiser(self, params=None, model=None):
        """Return the Denoiser of this model, with other parameters or of another length."""
        params = self.params if params is None else params
        return build.denoiser(self.config, model or self.model, params, self.schedule)

    def null_condition(self, batch):
        """Return the Condition that stands for none, or None for an unconditional model."""
        return null_condition(self.model.conditioners, batch)

    def for_shape(self, shape):
        """Return (DiT, params) for tensors of another shape (F, T, C)."""
        model = self.model if shape == self.rep.shape else self.model.clone(shape=shape)
        return model, resize_positions(self.params, model, self.model, log)


def load(workdir, step=None, ema=True, lora_scale=None):
    """Load the TrainedModel of a checkpoint, the newest good one where no step is named.

    Args:
      workdir: of a run, or a folder of --mode=export.
      lora_scale: of the updates that LoRA learned, 1 where unset.

    Raises:
      ValueError: there is no good checkpoint; a scale, step or average that is not there.
    """
    workdir = pathlib.Path(workdir)
    if (workdir / weights.WEIGHTS).exists():
        return load_export(workdir, step, ema, lora_scale)
    step = checkpoints.require_step(workdir, step)
    bare = without_params(checkpoints.read_run(workdir, step))
    config, model = bare.config, bare.model
    if lora_scale is not None and config.finetune.lora_rank is None:
        raise ValueError(f"sample.lora_scale={lora_scale}: {workdir} was trained without LoRA")
    init = lambda: finetuning.add_lora(config, init_params(model, config.seed))
    params = checkpoints.restore_params(workdir, step, jax.eval_shape(init), ema)
    params = finetuning.merge_lora(config, params, 1.0 if lora_scale is None else lora_scale)
    config.finetune.update(finetuning.UNSET)  # nothing is left to merge
    sha256 = checkpoints.manifest_sha256(workdir, step)
    return dataclasses.replace(bare, workdir=workdir, step=step, sha256=sha256, params=params)


def without_params(saved):
    """Build the TrainedModel of what JSON keeps of it, without its files and parameters."""
    config = ConfigDict(saved["config"])
    rep = representation_from_dict(saved["representation"])
    vocabulary = vocabularies.from_dict(saved["vocabulary"])
    schedule, model = build.schedule(config), build.model(config, rep.shape, vocabulary)
    return TrainedModel(None, None, None, config, rep, vocabulary, schedule, model, None)


def load_export(folder, step, ema, lora_scale):
    """Load the TrainedModel of a folder of --mode=export, which holds one set of plain weights."""
    for name, value in {"checkpoint_step": step, "lora_scale": lora_scale}.items():
        if value is not None:
            raise ValueError(f"sample.{name}={value}: {folder} holds one set of weights; unset it")
    params, saved, sha256 = weights.load_weights(folder)
    if ema != saved["ema"]:
        raise ValueError(f"sample.ema={ema}: {folder} was exported with {saved['ema']}")
    bare, step = without_params(saved), saved["step"]
    return dataclasses.replace(bare, workdir=folder, step=step, sha256=sha256, params=params)


def read_saved(place, step=None):
    """Return what JSON keeps of the model in a workdir or in a folder of --mode=export."""
    place = pathlib.Path(place)
    if (place / weights.WEIGHTS).exists():
        return weights.load_weights(place)[1]
    return checkpoints.read_run(place, checkpoints.require_step(place, step))
