"""A trained model, from a run's checkpoint or from a folder that --mode=export wrote."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from specdiff_jax.audio import representation as representations
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.config import build
from specdiff_jax.data import prepare
from specdiff_jax.models import weights
from specdiff_jax.training import checkpoints, finetuning

UNTUNED = dict.fromkeys(finetuning.FIELDS) | {"new_statistics": False}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a checkpoint holds to sample with."""

    workdir: pathlib.Path
    step: int
    config: ConfigDict
    rep: representations.Representation
    vocabulary: conditions.Vocabulary
    params: Any
    sha256: str  # of the checkpoint


def load(workdir, step=None, ema=True, lora_strength=None):
    """The Trained of a checkpoint, the newest good one where no step is named.

    Args:
      workdir: of a run, or a folder of --mode=export.
      lora_strength: of the updates that LoRA learned, 1 where unset.

    Raises:
      ValueError: there is no good checkpoint; a strength, step or average that is not there.
    """
    workdir = pathlib.Path(workdir)
    if (workdir / weights.WEIGHTS).exists():
        return exported(workdir, step, ema, lora_strength)
    step = checkpoints.trained_step(workdir, step)
    saved = checkpoints.read_run(workdir, step)
    config, rep, vocabulary = told(saved)
    if lora_strength is not None and config.finetune.lora_rank is None:
        raise ValueError(
            f"sample.lora_strength={lora_strength}: {workdir} was trained without LoRA"
        )
    state = checkpoints.restore(workdir, step, build.abstract_state(config, rep.shape, vocabulary))
    params = state.ema_params if ema else state.params
    params = finetuning.weights(config, params, 1.0 if lora_strength is None else lora_strength)
    sha256 = checkpoints.manifest_sha256(workdir, step)
    return Trained(workdir, step, plain(config), rep, vocabulary, params, sha256)


def exported(folder, step, ema, lora_strength):
    """The Trained of a folder of --mode=export, which holds one set of plain weights."""
    asked = {"checkpoint_step": step, "lora_strength": lora_strength}
    for name, value in asked.items():
        if value is not None:
            raise ValueError(f"sample.{name}={value}: {folder} holds one set of weights; unset it")
    params, saved, sha256 = weights.read(folder)
    if ema != saved["ema"]:
        raise ValueError(f"sample.ema={ema}: {folder} was exported with {saved['ema']}")
    config, rep, vocabulary = told(saved)
    return Trained(folder, saved["step"], plain(config), rep, vocabulary, params, sha256)


def saved_of(place, step=None):
    """What JSON keeps of the model in a workdir or in a folder of --mode=export."""
    place = pathlib.Path(place)
    if (place / weights.WEIGHTS).exists():
        return weights.read(place)[1]
    return checkpoints.read_run(place, checkpoints.trained_step(place, step))


def completed(saved):
    """What JSON keeps of a run, with fields that its config did not have yet, unset."""
    config = {"finetune": UNTUNED} | saved["config"]
    config["data"] = dict.fromkeys(prepare.SELECTING) | config["data"]
    return saved | {"config": config}


def told(saved):
    """(config, Representation, Vocabulary) of what JSON keeps of a run."""
    saved = completed(saved)
    rep = representations.from_dict(saved["representation"])
    return ConfigDict(saved["config"]), rep, conditions.vocabulary_from(saved["vocabulary"])


def plain(config):
    """The config of a model whose updates are merged: nothing is left to be fine-tuned."""
    config.finetune.update(UNTUNED)
    return config
