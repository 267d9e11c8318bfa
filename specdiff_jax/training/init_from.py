"""finetune.init_from: another model's weights by path and shape, nothing dropped in silence."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.representation import from_dict as representation_from_dict
from specdiff_jax.config import build
from specdiff_jax.models import weights
from specdiff_jax.models.positions import grid_of, resize_table
from specdiff_jax.models.weights import flatten_dict, unflatten_dict
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints, finetuning, trained_model

STATISTICS = ("mean", "std", "frames")  # what a Representation may differ in
LABELS = ("labels", "label_tokens")  # tables with a row for each label
FATES = ("loaded", "resized", "new", "left out")
MORE = 12  # names of one fate that a line holds


def load(place):
    """The Trained of 'runs/tiny', 'runs/tiny@5000' or what --mode=export wrote, its file too."""
    return trained_model.load(*place_of(place))


def place_of(place):
    """(folder, step or None) that finetune.init_from names; ValueError where it names none."""
    folder, _, step = str(place).partition("@")
    path = pathlib.Path(folder)
    if path.name == weights.WEIGHTS:
        path = path.parent
    if not path.is_dir() or (step and not step.isdigit()):
        raise ValueError(
            f"finetune.init_from={place!r} is no run (runs/tiny), step of one (runs/tiny@5000) or "
            "folder of --mode=export"
        )
    if not step:
        return path, None
    saved = checkpoints.steps(path)
    if int(step) not in saved:
        there = f"only {saved}" if saved else "it holds one set of weights"
        raise ValueError(f"finetune.init_from={place!r}: there is no step {step}, {there}")
    return path, int(step)


def check(config):
    """Refuses a place without a model, or one of another representation, before any work.

    A run that has begun needs its place no more.
    """
    if config.finetune.init_from is None or checkpoints.steps(config.workdir):
        return
    saved = trained_model.read_saved(*place_of(config.finetune.init_from))
    rep = representation_from_dict(saved["representation"])
    same_representation(rep, build.representation(config))


def same_representation(old, own):
    """`own` with the statistics of `old`, so that the weights see what they are used to.

    Raises:
      ValueError: they differ in more than the length of a clip.
    """
    for field in dataclasses.fields(own):
        there, here = getattr(old, field.name), getattr(own, field.name)
        if field.name not in STATISTICS and there != here:
            raise ValueError(
                f"representation.{field.name} is {there!r} in the run of finetune.init_from, "
                f"{here!r} here; set it to that"
            )
    return dataclasses.replace(old, frames=own.frames)


def match_params(fresh, old, config, shape, vocabulary):
    """The parameters `fresh` with those of a Trained in the places of the same path.

    A table of places is interpolated to another shape; rows of labels go by the label's name.
    What belongs to numbers that are not the same is drawn anew.

    Args:
      shape: (F, T, C) of this run; vocabulary: its Vocabulary.

    Returns:
      The parameters, and {fate: [(name, size), ...]} for FATES.

    Raises:
      ValueError: an array has another shape, or texts were read by another encoder.
    """
    refuse_other_encoder(old.vocabulary, vocabulary)
    new, found = dict(flatten_dict(fresh)), flatten_dict(old.params)
    fates = {fate: [] for fate in FATES}
    for path, array in new.items():
        name = "/".join(path)
        if path not in found or other_numbers(path, old.vocabulary, vocabulary):
            fate = "new"
        elif path == ("positions",) and found[path].shape != array.shape:
            grids = (grid_of(s, config.model.patch) for s in (old.rep.shape, shape))
            new[path], fate = np.asarray(resize_table(found[path], *grids)), "resized"
        elif path[-1] in LABELS and old.vocabulary.labels != vocabulary.labels:
            new[path], fate = by_label(array, found[path], old.vocabulary, vocabulary), "resized"
        elif found[path].shape != array.shape:
            raise ValueError(
                f"finetune.init_from: {name} is {list(found[path].shape)} there and "
                f"{list(array.shape)} here; give model the sizes of that run"
            )
        else:
            new[path], fate = found[path], "loaded"
        fates[fate].append((name, array.size))
    fates["left out"] = [("/".join(p), x.size) for p, x in found.items() if p not in new]
    return unflatten_dict(new), fates


def refuse_other_encoder(old, new):
    """Raises ValueError where both know texts, each by another encoder."""
    if old.text and new.text and old.text["sha256"] != new.text["sha256"]:
        raise ValueError(
            f"finetune.init_from: texts were read by {old.text['name']}, here condition.text is "
            f"{new.text['name']}; take that one"
        )


def other_numbers(path, old, new):
    """Whether a parameter reads numbers that are not those it was trained on."""
    return path[:-1][-1:] in (("numbers",), ("number_tokens",)) and old.scalars != new.scalars


def by_label(fresh, table, old, new):
    """Rows of a trained table by name; labels that it does not know keep fresh ones.  # [V, D]"""
    rows = {label: table[index] for index, label in enumerate(old.labels)}
    return np.stack([rows.get(label, fresh[i]) for i, label in enumerate(new.labels)])


def label_lines(old, new):
    """Which labels of a trained vocabulary go on, are new or left out, a line each fate."""
    if not (old.labels and new.labels) or old.labels == new.labels:
        return []
    fates = {
        "loaded": [label for label in new.labels if label in old.labels],
        "new": [label for label in new.labels if label not in old.labels],
        "left out": [label for label in old.labels if label not in new.labels],
    }
    told = {fate: listed(names, fate != "loaded") for fate, names in fates.items() if names}
    return [f"finetune: {fate} {len(fates[fate])} labels{text}" for fate, text in told.items()]


def listed(names, shown=True):
    """': a, b and 3 more' of names, nothing where they are not shown."""
    more = f" and {len(names) - MORE} more" if len(names) > MORE else ""
    return f": {', '.join(names[:MORE])}{more}" if shown else ""


def lines(place, fates):
    """What became of each array, a line a fate, for the reader."""
    found = []
    for fate, arrays in fates.items():
        names = [name for name, _ in arrays]
        total = sum(size for _, size in arrays)
        shown = listed(names, fate != "loaded")
        if names:
            found.append(f"finetune: {fate} {len(names)} arrays, {total:,} numbers{shown}")
    return [f"finetune: from {place}", *found]


def changes(old, config):
    """What else differs from the run that the weights are of, a line each."""
    fields = ("schedule.kind", "diffusion.prediction", "diffusion.skip_variance")
    told = []
    for name in fields:
        section, field = name.split(".")
        there, here = old.config[section][field], config[section][field]
        if there != here:
            told.append(f"finetune: {name} was {there!r} there and is {here!r} here")
    return told


def report(place, fates, old, config, vocabulary, params):
    """Log what became of each array and label, what else differs, and how much is trained."""
    told = lines(place, fates) + label_lines(old.vocabulary, vocabulary) + changes(old, config)
    sizes = jax.tree.leaves(jax.tree.map(jnp.size, params))
    trained = jax.tree.leaves(finetuning.trainable(config, params))
    mine = sum(size for size, learns in zip(sizes, trained, strict=True) if learns)
    for line in [*told, f"finetune: {mine:,} of {sum(sizes):,} parameters are trained"]:
        log(line)
