"""The fields of the demo's page as fields of a config, and its uploads as edits."""

import pathlib
import shutil

from specdiff_jax.audio import files
from specdiff_jax.config.fields import choose
from specdiff_jax.sampling import edits


def parse_request(fields):
    """Return (fields of config.sample, fields of config.edit or None) of a page's fields.

    Blanks are unset. `labels` is a list, `algebra` a text with more of them, `scalars` a dict.

    Raises:
      ValueError: fields that need each other.
    """
    text = lambda name: fields.get(name) or None
    labels = ", ".join([*fields.get("labels", ()), *filter(None, [text("algebra")])])
    values = {name: parse_number(name, value) for name, value in fields.get("scalars", {}).items()}
    scalars = ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
    conditions = {"prompt": text("prompt"), "labels": labels or None, "scalars": scalars or None}
    conditional = any(conditions.values())
    if text("negative_prompt") and not conditional:
        raise ValueError("a negative prompt needs a prompt, labels or numbers beside it")
    settings = conditions | {
        "negative_prompt": text("negative_prompt"),
        "seconds": parse_number("length", fields.get("seconds")),
    }
    settings |= {name: int(fields[name]) for name in ("nfe", "seed", "num_samples")}
    settings |= {name: fields[name] for name in ("sampler", "time_grid")}
    settings |= dict.fromkeys(("guidance_scale", "guidance_rescale", "guidance_interval"))
    if conditional:
        interval = fields["interval_low"], fields["interval_high"]
        settings["guidance_scale"] = fields["guidance_scale"]
        settings["guidance_rescale"] = text("rescale")
        settings["guidance_interval"] = None if interval == (0, 1) else interval
    return settings, parse_edit(fields)


def parse_edit(fields):
    """Return the fields of config.edit, or None for a new clip."""
    pair = lambda name, *ends: parse_range(name, *(parse_number(name, end) for end in ends))
    kinds = {
        "new": lambda: {},
        "variation": lambda: {"strength": fields["strength"]},
        "inpaint": lambda: {
            "seconds": pair("seconds", fields["first"], fields["last"]),
            "hertz": pair("hertz", fields["low"], fields["high"]),
        },
        "continuation": lambda: {"prefix_seconds": fields["prefix"]},
    }
    kind = fields["kind"]
    own = choose(kinds, "kind", kind)()
    if kind == "new":
        return None
    edit = {"kind": kind, "file": fields["upload"], "offset": fields["offset"] or 0.0} | own
    return {name: value for name, value in edit.items() if value is not None}


def parse_range(name, low, high):
    """Return (low, high), or None where both are unset; raise ValueError where one is."""
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ValueError(f"{name}: fill in both ends, or none")
    return low, high


def parse_number(name, text):
    """Return the float of a text, None of a blank."""
    if text is None or not str(text).strip():
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} is not a number") from error


def read_upload(fields, rep_out, folder, limits):
    """Return the Edit of an upload, and copy the upload beside the clips, for replay.

    Raises:
      ValueError: no upload, one beyond a limit or not a sound, or an impossible edit.
    """
    if "file" not in fields:
        raise ValueError(f"{fields['kind']} needs a sound file; upload one")
    upload = pathlib.Path(fields["file"])
    check_upload(upload, limits)
    kept = folder / f"upload{upload.suffix.lower()}"
    shutil.copyfile(upload, kept)
    try:
        return edits.make_edit(fields | {"file": str(kept)}, rep_out, "")
    except ValueError as error:
        raise ValueError(str(error).replace(str(kept), upload.name)) from error


def check_upload(path, limits):
    """Raise ValueError with the name of a file that is no sound or beyond a limit."""
    if path.suffix.lower() not in files.SUFFIXES:
        raise ValueError(
            f"{path.name} is not one of {', '.join(files.SUFFIXES)}; send a sound file"
        )
    megabytes = path.stat().st_size / 1e6
    if megabytes > limits.max_upload_mb:
        raise ValueError(
            f"{path.name} has {megabytes:.1f} MB, demo.max_upload_mb allows {limits.max_upload_mb}"
        )
    try:
        sound = files.Sound(str(path))
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from error
    sound.file.close()
    seconds = sound.claimed / sound.sample_rate
    if seconds > limits.max_upload_seconds:
        raise ValueError(
            f"{path.name} lasts {seconds:.0f} s, demo.max_upload_seconds allows "
            f"{limits.max_upload_seconds:.0f}"
        )
