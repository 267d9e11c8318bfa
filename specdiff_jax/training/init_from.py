"""finetune.init_from: the weights of another model, matched by path and shape and reported."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.representation import from_dict as representation_from_dict
from specdiff_jax.config import build
from specdiff_jax.models import weights
from specdiff_jax.models.positions import patch_grid, resize_table
from specdiff_jax.models.weights import flatten_dict, unflatten_dict
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, finetuning, trained_model

REP_MAY_DIFFER = ("mean", "std", "frames")  # fields of a Representation
LABEL_TABLES = ("labels", "label_tokens")  # parameters with a row for each label
OUTCOMES = ("loaded", "resized", "new", "left out")
MAX_NAMES = 12  # of one outcome that a line holds


def load(place):
    """Load the TrainedModel of 'runs/tiny', 'runs/tiny@6000' or a folder of --mode=export."""
    return trained_model.load(*parse_place(place))


def parse_place(place):
    """Return (folder, step or None) that finetune.init_from names.

    Raises:
      ValueError: it names no run, step or export.
    """
    folder, _, step = str(place).partition("@")
    path = pathlib.Path(folder)
    if path.name == weights.WEIGHTS:
        path = path.parent
    if not path.is_dir() or (step and not step.isdigit()):
        raise ValueError(
            f"finetune.init_from={place!r} is no run (runs/tiny), step of one (runs/tiny@6000) or "
            "folder of --mode=export"
        )
    if not step:
        return path, None
    saved = checkpoints.steps(path)
    if int(step) not in saved:
        available = f"only {saved}" if saved else "it holds one set of weights"
        raise ValueError(f"finetune.init_from={place!r}: there is no step {step}, {available}")
    return path, int(step)


def check(config):
    """Refuse a place without a model, or with another representation, before any work.

    A run that has a checkpoint does not read its init_from again.
    """
    if config.finetune.init_from is None or checkpoints.steps(config.workdir):
        return
    saved = trained_model.read_saved(*parse_place(config.finetune.init_from))
    rep = representation_from_dict(saved["representation"])
    take_statistics(rep, build.representation(config))


def take_statistics(source, rep):
    """Return `rep` with the statistics of the source model, whose weights expect them.

    Raises:
      ValueError: the two differ in more than the length of a clip.
    """
    for field in dataclasses.fields(rep):
        theirs, ours = getattr(source, field.name), getattr(rep, field.name)
        if field.name not in REP_MAY_DIFFER and theirs != ours:
            raise ValueError(
                f"representation.{field.name} is {theirs!r} in the run of finetune.init_from, "
                f"{ours!r} here; set it to {theirs!r}"
            )
    return dataclasses.replace(source, frames=rep.frames)


def match_params(fresh, source, config, shape, vocabulary):
    """Return the parameters `fresh` with those of a source model at the same paths.

    A learned table of positions is interpolated to another shape. Rows of labels are matched by
    the label's name. Weights that read other scalars are initialized anew.

    Args:
      source: a TrainedModel; shape: (F, T, C) of this run; vocabulary: its Vocabulary.

    Returns:
      The parameters, and {outcome: [(name, size), ...]} for OUTCOMES.

    Raises:
      ValueError: an array has another shape, or another encoder read the texts.
    """
    refuse_other_encoder(source.vocabulary, vocabulary)
    params, loaded = dict(flatten_dict(fresh)), flatten_dict(source.params)
    outcomes = {outcome: [] for outcome in OUTCOMES}
    for path, array in params.items():
        name = "/".join(path)
        if path not in loaded or reads_other_scalars(path, source.vocabulary, vocabulary):
            outcome = "new"
        elif path == ("positions",) and loaded[path].shape != array.shape:
            grids = (patch_grid(s, config.model.patch) for s in (source.rep.shape, shape))
            params[path] = np.asarray(resize_table(loaded[path], *grids))
            outcome = "resized"
        elif path[-1] in LABEL_TABLES and source.vocabulary.labels != vocabulary.labels:
            params[path] = match_labels(array, loaded[path], source.vocabulary, vocabulary)
            outcome = "resized"
        elif loaded[path].shape != array.shape:
            raise ValueError(
                f"finetune.init_from: {name} is {list(loaded[path].shape)} there and "
                f"{list(array.shape)} here; give model the sizes of that run"
            )
        else:
            params[path], outcome = loaded[path], "loaded"
        outcomes[outcome].append((name, array.size))
    left_out = [("/".join(path), x.size) for path, x in loaded.items() if path not in params]
    outcomes["left out"] = left_out
    return unflatten_dict(params), outcomes


def refuse_other_encoder(source, vocabulary):
    """Raise ValueError where both vocabularies have text, each by another encoder."""
    theirs, ours = source.text, vocabulary.text
    if theirs and ours and theirs.sha256 != ours.sha256:
        raise ValueError(
            f"finetune.init_from: its texts were encoded by {theirs.name}, here condition.text "
            f"is {ours.name}; set condition.text={theirs.name!r}"
        )


def reads_other_scalars(path, source, vocabulary):
    """Return whether a parameter reads scalars that are not those it was trained on."""
    reads_scalars = path[:-1][-1:] in (("numbers",), ("number_tokens",))
    return reads_scalars and source.scalars != vocabulary.scalars


def match_labels(fresh, table, source, vocabulary):
    """Return rows of a trained table by label; labels new to it keep their fresh rows.  # [V, D]"""
    rows = {label: table[index] for index, label in enumerate(source.labels)}
    return np.stack([rows.get(label, fresh[i]) for i, label in enumerate(vocabulary.labels)])


# ---- what the user reads


def report(place, outcomes, source, config, vocabulary, params):
    """Log what became of each array and label, what else differs, and how much is trained."""
    lines = describe_arrays(place, outcomes)
    lines += describe_labels(source.vocabulary, vocabulary) + describe_changes(source, config)
    sizes = jax.tree.leaves(jax.tree.map(jnp.size, params))
    trainable = jax.tree.leaves(finetuning.trainable(config, params))
    count = sum(size for size, trained in zip(sizes, trainable, strict=True) if trained)
    for line in [*lines, f"finetune: {count:,} of {sum(sizes):,} parameters are trainable"]:
        log(line)


def describe_arrays(place, outcomes):
    """Return what became of the arrays, a line an outcome."""
    lines = [f"finetune: from {place}"]
    for outcome, arrays in outcomes.items():
        names, total = [name for name, _ in arrays], sum(size for _, size in arrays)
        if names:
            shown = list_names(names) if outcome != "loaded" else ""
            lines.append(f"finetune: {outcome} {len(names)} arrays, {total:,} parameters{shown}")
    return lines


def describe_labels(source, vocabulary):
    """Return which labels are loaded, new or left out, a line an outcome."""
    ours, theirs = vocabulary.labels, source.labels
    if not (ours and theirs) or ours == theirs:
        return []
    outcomes = {
        "loaded": [label for label in ours if label in theirs],
        "new": [label for label in ours if label not in theirs],
        "left out": [label for label in theirs if label not in ours],
    }
    shown = lambda outcome, names: list_names(names) if outcome != "loaded" else ""
    return [
        f"finetune: {outcome} {len(names)} labels{shown(outcome, names)}"
        for outcome, names in outcomes.items()
        if names
    ]


def describe_changes(source, config):
    """Return which settings of the diffusion differ from the source's, a line each."""
    lines = []
    for name in ("schedule.kind", "diffusion.prediction", "diffusion.skip_variance"):
        section, field = name.split(".")
        theirs, ours = source.config[section][field], config[section][field]
        if theirs != ours:
            lines.append(f"finetune: {name} was {theirs!r} there and is {ours!r} here")
    return lines


def list_names(names):
    """Return ': a, b and 3 more' of names."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f": {', '.join(names[:MAX_NAMES])}{more}"
