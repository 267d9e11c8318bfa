"""Fields that are set and would be ignored by the chosen mode: an error or a warning."""

from specdiff_jax.config.fields import json_equal, set_fields
from specdiff_jax.runtime.logs import log

EDIT_MODES = ("train", "sample", "demo")  # demo refuses them itself
SAMPLING_MODES = ("train", "sample", "evaluate", "sweep")  # the demo's page has its own seconds
CHECKPOINT_MODES = ("sample", "evaluate", "sweep", "export", "demo")
CHECKPOINT_SECTIONS = ("representation", "schedule", "diffusion", "model", "condition")
COMPUTE_FIELDS = ("model.attention", "model.remat")  # how, not what: may differ from the checkpoint


def check(config, mode, overrides, read_saved):
    """Refuse an edit where nothing is edited, and another model than the checkpoint's.

    Args:
      overrides: names of the fields that the command line sets, as "model.depth"; the config file
        itself may be of another run.
      read_saved: returns the config dict that the checkpoint keeps; called only where needed.
    """
    if mode not in EDIT_MODES:
        for name, value in set_fields(config.edit).items():
            raise ValueError(f"edit.{name}={value!r} is not used by --mode={mode}; set it to None")
    s = config.sample
    without_windows = s.seconds is None or s.long_form == "positions"
    if "sample.window_overlap" in overrides and mode in SAMPLING_MODES and without_windows:
        raise ValueError(
            f"sample.window_overlap={s.window_overlap} is of the windows of longer clips; set "
            "sample.seconds, and sample.long_form to 'windows'"
        )
    names = [name for name in overrides if name.split(".")[0] in CHECKPOINT_SECTIONS]
    names = [name for name in names if name not in COMPUTE_FIELDS]
    if mode not in CHECKPOINT_MODES or config.evaluate.folder is not None or not names:
        return
    for name, ours, theirs in differences(config, read_saved(), names):
        raise ValueError(
            f"{name}={ours!r} is not used by --mode={mode}: the model in "
            f"{config.workdir} was trained with {theirs!r}"
        )


def warn_of_differences(config, saved):
    """Log which fields of the model a config file sets otherwise than the checkpoint has them."""
    fields = [(section, field) for section in CHECKPOINT_SECTIONS for field in config[section]]
    shared = {f"{section}.{field}" for section, field in fields if field in saved[section]}
    names = sorted(shared - set(COMPUTE_FIELDS))
    if different := [name for name, *_ in differences(config, saved, names)]:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        log(
            f"{config.workdir} was trained with another {', '.join(different[:3])}{more} than the "
            "config: the checkpoint's values are used"
        )


def differences(config, saved, names):
    """Yield (name, ours, theirs) of the fields "section.field" whose values differ."""
    for name in names:
        section, _, field = name.partition(".")
        ours, theirs = (json_equal(part[section].get(field)) for part in (config, saved))
        if ours != theirs:
            yield name, ours, theirs
