"""What is set and would not be heard by the chosen mode: an error, not a silence."""

from specdiff_jax.config.fields import json_equal, set_fields
from specdiff_jax.runtime.logs import log

EDITING = ("train", "sample", "demo")  # modes that edit; demo has words of its own for it
SAMPLING = ("train", "sample", "evaluate", "sweep")  # demo is told seconds on its page
FROM_CHECKPOINT = ("sample", "evaluate", "sweep", "export", "demo")
KEPT = ("representation", "schedule", "diffusion", "model", "condition")  # a checkpoint's own
COMPUTING = ("model.attention", "model.remat")  # how, not what: free to differ from it


def differing(config, saved, names):
    """(name, here, there) of the fields "section.field" whose value is another in what was kept."""
    for name in names:
        section, _, field = name.partition(".")
        here, there = (json_equal(part[section].get(field)) for part in (config, saved))
        if here != there:
            yield name, here, there


def warn_of_differences(config, saved):
    """Tells which fields of the model a config says otherwise than what a training kept."""
    both = [(section, field) for section in KEPT for field in config[section]]
    known = {f"{section}.{field}" for section, field in both if field in saved[section]}
    names = sorted(known - set(COMPUTING))
    if other := [name for name, *_ in differing(config, saved, names)]:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        names = ", ".join(other[:3])
        log(f"{config.workdir} was trained with another {names}{more} than the config: that counts")


def check(config, mode, overrides):
    """Refuses an edit where nothing is edited, and another model than the checkpoint's.

    Args:
      overrides: names of the fields that the command line sets, as "model.depth"; those of the
        config file may be of another run.
    """
    if mode not in EDITING:
        for name, value in set_fields(config.edit).items():
            raise ValueError(f"edit.{name}={value!r} is not used by --mode={mode}; set it to None")
    s = config.sample
    if (
        "sample.window_overlap" in overrides
        and mode in SAMPLING
        and (s.seconds is None or s.long_form == "positions")
    ):
        raise ValueError(
            f"sample.window_overlap={s.window_overlap} is of the windows of longer clips; set "
            "sample.seconds, and sample.long_form to 'windows'"
        )
    named = [n for n in overrides if n.split(".")[0] in KEPT and n not in COMPUTING]
    if mode not in FROM_CHECKPOINT or config.evaluate.folder is not None or not named:
        return
    from specdiff_jax.training.trained_model import read_saved

    saved = read_saved(config.workdir, config.sample.checkpoint_step)["config"]
    for name, here, there in differing(config, saved, named):
        raise ValueError(
            f"{name}={here!r} is not used by --mode={mode}: the model in "
            f"{config.workdir} was trained with {there!r}"
        )
