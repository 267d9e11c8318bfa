"""What is written of each clip: WAV, picture, and a JSON that says how to make it again."""

import json
import pathlib

import jax

from specdiff_jax.audio import files
from specdiff_jax.conditioning.prompts import prompt_of
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.runtime.files import hash_file, write_json
from specdiff_jax.runtime.logs import add_clip

NAME_LENGTH = 40  # characters of a prompt in a file's name


def samples_folder(trained):
    """Where the clips of a checkpoint lie."""
    return trained.workdir / "samples" / f"step_{trained.step:08d}"


def write_clips(trained, edit, batch, waves, generate, folder=None):
    """Writes the clips of one batch and returns the paths of their WAVs.

    Args:
      batch: [(Wish, k)]; waves: numpy, one for each.
      generate: the `sample.generator` that made them.
      folder: where; the checkpoint's own where unset, and TensorBoard hears of those.
    """
    rate, into, written = trained.rep.sample_rate, folder or samples_folder(trained), []
    whole = {
        "workdir": str(trained.workdir),
        "checkpoint_step": trained.step,
        "checkpoint_sha256": trained.sha256,
        **trained.config.sample.to_dict(),
        "config": trained.config.to_dict(),
        "made_by": describe_environment(),
        "branches": generate.branches,
        "batch": [{"index": index, **wish.set_fields()} for wish, index in batch],
    }
    if edit:
        whole["edit"] = edit.settings
    for place, ((wish, index), wave) in enumerate(zip(batch, waves, strict=True)):
        name = clip_name(edit, wish, index)
        path = into / f"{name}.wav"
        files.write(path, wave, rate)
        picture = spectrogram_image.save_spectrogram(path.with_suffix(".png"), wave, rate)
        own = {
            "index": index,
            "place": place,
            "wish": wish.set_fields(),
            "labels_read": {
                text: generate.labels_read[text]
                for text in (wish.prompt, wish.negative_prompt)
                if text in generate.labels_read
            },
            "sound_sha256": hash_file(path),
        }
        write_json(path.with_suffix(".json"), whole | own)
        if folder is None:
            add_clip(trained.workdir, trained.step, f"sample/{name}", wave, rate, picture)
        written.append(path)
    return written


def clip_name(edit, wish, index):
    """A clip's file name: its edit, the first words asked for, its number."""
    words = wish.prompt or wish.labels or wish.scalars or ""
    plain = "".join(c if c.isalnum() or c in "+-*." else "_" for c in words[:NAME_LENGTH].lower())
    return "-".join(filter(None, [edit and edit.name, plain.strip("_."), f"{index:03d}"]))


def describe_environment():
    """What the very bits of a clip depend on, beside its settings."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "platform": device.platform, "device": device.device_kind}


def read_sidecar(path):
    """A sidecar and its batch [(Wish, k)].

    Raises:
      ValueError: the file is none.
    """
    try:
        sidecar = json.loads(pathlib.Path(path).read_text("utf-8"))
        batch = [(dict(clip), clip["index"]) for clip in sidecar["batch"]]
        for clip, _ in batch:
            del clip["index"]
        return sidecar, [(prompt_of(clip), index) for clip, index in batch]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the .json beside a sample ({type(error).__name__}: {error})"
        ) from error
