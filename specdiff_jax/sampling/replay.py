"""--mode=replay --sidecar=runs/x/samples/step_.../000.json: generate the same file again."""

import pathlib

import numpy as np
import soundfile
from ml_collections import ConfigDict

from specdiff_jax.audio import files
from specdiff_jax.runtime.files import hash_file
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import edits, sample, sidecars
from specdiff_jax.sampling.generator import Generator


def run(path):
    """Generate a clip again from its sidecar alone, beside it, and log whether it is the same.

    Raises:
      ValueError: the sidecar cannot be read, or its checkpoint has changed.
    """
    path = pathlib.Path(path)
    sidecar, batch = sidecars.read_sidecar(path)
    config = ConfigDict(sidecar["config"])
    config.workdir = sidecar["workdir"]
    config.sample.checkpoint_step = sidecar["checkpoint_step"]
    model, rep_out = sample.load_for_sampling(config)
    if model.sha256 != sidecar["checkpoint_sha256"]:
        raise ValueError(
            f"{path}: the checkpoint of step {model.step} in {model.workdir} is not the one "
            "that it was sampled from; restore that one"
        )
    edit = edits.make_edit(sidecar["edit"], rep_out, "") if "edit" in sidecar else None
    prompts = [prompt for prompt, _ in batch]
    generator = Generator(model, rep_out, prompts, branches=sidecar["branches"])
    wave = generator(batch, edit)[sidecar["place"]]
    replayed = path.with_suffix(".replay.wav")
    files.write(replayed, wave, model.rep.sample_rate)
    log(f"replayed: {replayed}")
    log(compare_sounds(path.with_suffix(".wav"), replayed, sidecar))


def compare_sounds(original, replayed, sidecar):
    """Return one line: the same bit for bit, or the difference and its possible reason."""
    if hash_file(replayed) == sidecar["wav_sha256"]:
        return "the same, bit for bit"
    before, now = sidecar["environment"], sidecars.describe_environment()
    changed = [f"{k} was {before[k]}, is {now[k]}" for k in now if before[k] != now[k]]
    why = "; ".join(changed) or "same device and versions: the program ran differently"
    if not original.is_file():
        return f"not the same sound; {original.name} is missing; {why}"
    waves = [soundfile.read(path, always_2d=True)[0] for path in (original, replayed)]
    if waves[0].shape != waves[1].shape:
        return f"not the same: {waves[0].shape} and {waves[1].shape} samples; {why}"
    difference = np.abs(waves[0] - waves[1])
    rate = sidecar["config"]["representation"]["sample_rate"]
    time = np.argmax(difference.max(axis=1)) / rate
    return f"not the same: they differ by up to {difference.max():.2g}, most at {time:.2f} s; {why}"
