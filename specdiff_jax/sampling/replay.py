"""--mode=replay --sidecar=runs/x/samples/step_.../000.json: the same file again."""

import pathlib

import numpy as np
import soundfile
from ml_collections import ConfigDict

from specdiff_jax.audio import files
from specdiff_jax.runtime.files import hash_file
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import edits, generator, sample, sidecars


def run(sidecar):
    """Makes a clip again from its sidecar alone, beside it, and says whether it is the same.

    Raises:
      ValueError: the sidecar or its checkpoint is not what it was.
    """
    path = pathlib.Path(sidecar)
    told, batch = sidecars.read_sidecar(path)
    config = ConfigDict(told["config"])
    config.workdir = told["workdir"]
    config.sample.checkpoint_step = told["checkpoint_step"]
    trained, rep_out = sample.load_for_sampling(config)
    if trained.sha256 != told["checkpoint_sha256"]:
        raise ValueError(
            f"{path}: the checkpoint of step {trained.step} in {trained.workdir} is not the one "
            "that it was made from; restore that one"
        )
    edit = edits.make_edit(told["edit"], rep_out, "") if "edit" in told else None
    wishes = [wish for wish, _ in batch]
    generate = generator.Generator(trained, rep_out, wishes, branches=told["branches"])
    wave = generate(batch, edit)[told["place"]]
    again = path.with_suffix(".replay.wav")
    files.write(again, wave, trained.rep.sample_rate)
    log(f"replayed: {again}")
    log(compare_sounds(path.with_suffix(".wav"), again, told))


def compare_sounds(first, again, told):
    """One line: the same bit for bit, or how far apart and what may be the reason."""
    if hash_file(again) == told["sound_sha256"]:
        return "the same, bit for bit"
    before, now = told["made_by"], sidecars.describe_environment()
    other = [name for name in now if before[name] != now[name]]
    changed = [f"{name} was {before[name]}, is {now[name]}" for name in other]
    why = "; ".join(changed) or "same machine and versions: the program ran otherwise"
    if not first.is_file():
        return f"not the same sound; {first.name} is gone; {why}"
    waves = [soundfile.read(path, always_2d=True)[0] for path in (first, again)]
    if waves[0].shape != waves[1].shape:
        return f"not the same: {waves[0].shape} and {waves[1].shape} samples; {why}"
    apart = np.abs(waves[0] - waves[1])
    place = np.argmax(apart.max(axis=1)) / told["config"]["representation"]["sample_rate"]
    return f"not the same: they differ by up to {apart.max():.2g}, most at {place:.2f} s; {why}"
