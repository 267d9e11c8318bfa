"""The files of a clip: WAV, picture, and a JSON sidecar with all that generates it again."""

import json
import pathlib

import jax

from specdiff_jax.audio import files
from specdiff_jax.conditioning.prompts import prompt_of
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.runtime.files import hash_file, write_json
from specdiff_jax.runtime.logs import add_clip

FORMAT = 2  # of a sidecar
NAME_LENGTH = 40  # characters of a prompt in a file's name


def samples_folder(model):
    """Return the folder of a checkpoint's clips."""
    return model.workdir / "samples" / f"step_{model.step:08d}"


def write_clips(model, edit, batch, waves, generator, folder=None):
    """Write the clips of one batch and return the paths of their WAVs.

    Args:
      batch: [(Prompt, k)]; waves: numpy, one for each.
      generator: the Generator that returned them.
      folder: to write to; if None, the checkpoint's own, and TensorBoard gets the clips too.
    """
    rate, target, paths = model.rep.sample_rate, folder or samples_folder(model), []
    shared = {
        "format": FORMAT,
        "workdir": str(model.workdir),
        "checkpoint_step": model.step,
        "checkpoint_sha256": model.sha256,
        **model.config.sample.to_dict(),
        "config": model.config.to_dict(),
        "environment": describe_environment(),
        "branches": generator.branches,
        "batch": [{"index": index, **prompt.set_fields()} for prompt, index in batch],
    }
    if edit:
        shared["edit"] = edit.settings
    for place, ((prompt, index), wave) in enumerate(zip(batch, waves, strict=True)):
        name = clip_name(edit, prompt, index)
        path = target / f"{name}.wav"
        files.write(path, wave, rate)
        picture = spectrogram_image.save_spectrogram(path.with_suffix(".png"), wave, rate)
        texts = (prompt.prompt, prompt.negative_prompt)
        inferred = {
            t: generator.inferred_labels[t] for t in texts if t in generator.inferred_labels
        }
        own = {
            "index": index,
            "place": place,
            "request": prompt.set_fields(),
            "inferred_labels": inferred,
            "wav_sha256": hash_file(path),
        }
        write_json(path.with_suffix(".json"), shared | own)
        if folder is None:
            add_clip(model.workdir, model.step, f"sample/{name}", wave, rate, picture)
        paths.append(path)
    return paths


def clip_name(edit, prompt, index):
    """Return a clip's file name: its edit, the first words of its prompt, its number."""
    words = prompt.prompt or prompt.labels or prompt.scalars or ""
    plain = "".join(c if c.isalnum() or c in "+-*." else "_" for c in words[:NAME_LENGTH].lower())
    return "-".join(filter(None, [edit and edit.name, plain.strip("_."), f"{index:03d}"]))


def describe_environment():
    """Return what the bits of a clip depend on beside its settings: {jax, platform, device}."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "platform": device.platform, "device": device.device_kind}


def read_sidecar(path):
    """Return a sidecar and its batch [(Prompt, k)].

    Raises:
      ValueError: the file is no sidecar, or one of another format.
    """
    try:
        sidecar = json.loads(pathlib.Path(path).read_text("utf-8"))
        version = sidecar.get("format", 1)
        batch = [(dict(clip), clip["index"]) for clip in sidecar["batch"]]
        for clip, _ in batch:
            del clip["index"]
        if version == FORMAT:
            return sidecar, [(prompt_of(clip), index) for clip, index in batch]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the .json beside a sample ({type(error).__name__}: {error})"
        ) from error
    raise ValueError(
        f"{path} is a sidecar of format {version}, this version reads {FORMAT}; "
        "sample the clip again with --mode=sample"
    )
