"""What is evaluated, and the real music that it is held against."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from specdiff_jax.audio import files
from specdiff_jax.audio.ingest import Intake, ingest
from specdiff_jax.conditioning import prompts
from specdiff_jax.config.fields import choose
from specdiff_jax.data import crops, prepare
from specdiff_jax.data.songs import Songs
from specdiff_jax.evaluation import controls, prompt_adherence
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import sample
from specdiff_jax.training import trained_model
from specdiff_jax.training.diffusion_job import DiffusionJob


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """All that is compared."""

    config: Any
    rep: Any  # Representation of every clip
    trained: dict  # {name: trained.Trained}, the run's own first; {} for a folder of sounds
    sounds: controls.Clips | None  # of a folder
    missing: list  # names of files that could not be read
    train: Songs
    held_out: Songs
    reference: controls.Clips
    other: controls.Clips
    asking: str  # a key of fidelity.ASKING
    wishes: list  # [(Wish, k)], one a clip to generate
    asked: list  # entries of the songs that the clips are asked to be like, [] where unasked
    like: controls.Clips | None  # an excerpt of each of those


def gather_inputs(config):
    """The Material of a config.

    Raises:
      ValueError: a field that makes no sense or would be ignored; too little held-out music.
    """
    e = config.evaluate
    choose(dict.fromkeys(("valid", "test")), "evaluate.split", e.split)
    trained = load_models(config) if e.folder is None else {}
    rep = next(iter(trained.values())).rep if trained else fit_representation(config)
    sounds, missing = (None, []) if e.folder is None else load_sounds(config, rep)
    songs = functools.partial(prepare.load_split, config, samples=rep.samples)
    train, held_out = songs("train"), songs(e.split)
    reference, other = controls.split_by_artist(held_out, rep.samples, e.reference_clips)
    asking, like, asked = choose_conditioning(config, trained), None, []
    wishes = [(prompts.UNCONDITIONAL, k) for k in range(e.clips)]
    if asking != "unconditional":
        like = controls.cut_clips("real music, asked for", "real", held_out, rep.samples, e.clips)
        asked = [held_out.entries[song] for song in like.songs]
        wish = prompt_adherence.PROMPTS[asking]
        guided = {"guidance_scale": config.sample.guidance_scale}
        wishes = [(dataclasses.replace(wish(entry), **guided), k) for k, entry in enumerate(asked)]
    return EvaluationInputs(
        config=config,
        rep=rep,
        trained=trained,
        sounds=sounds,
        missing=missing,
        train=train,
        held_out=held_out,
        reference=reference,
        other=other,
        asking=asking,
        wishes=wishes,
        asked=asked,
        like=like,
    )


def fit_representation(config):
    """The config's representation with statistics of the training songs."""
    job = DiffusionJob(config)
    job.fit_representation()
    return job.rep


def load_models(config):
    """{name: Trained} of the run's own checkpoint and of those to set beside it."""
    e = config.evaluate
    own, _ = sample.load_for_sampling(config)
    if config.sample.seconds is not None:  # shorter ones would be cut, and scored as they are
        raise ValueError(
            "evaluate compares clips of the length trained on; leave sample.seconds unset"
        )
    found = {"generated": own}
    for workdir in e.compare_to:
        other = trained_model.load(pathlib.Path(workdir), ema=config.sample.ema)
        for name in ("sample_rate", "samples"):
            if getattr(other.rep, name) != getattr(own.rep, name):
                raise ValueError(f"evaluate.compare_to: clips of {workdir} have another {name}")
        other.config.sample = config.sample
        found[pathlib.Path(workdir).name] = other
    return found


def choose_conditioning(config, trained):
    """How the clips are asked for: as the config says, or the most that all checkpoints hear."""
    e = config.evaluate
    known = [one.vocabulary for one in trained.values()]
    possible = {
        "captions": bool(known) and all(v.text for v in known),
        "labels": bool(known) and all(v.labels for v in known),
        "unconditional": True,
    }
    how = e.conditioning or next(name for name, can in possible.items() if can)
    choose(prompt_adherence.PROMPTS, "evaluate.conditioning", how)
    if not possible[how]:
        raise ValueError(f"evaluate.conditioning={how!r}: not all of what is evaluated hears {how}")
    return how


def load_sounds(config, rep):
    """(Clips of a folder of sounds, names of those that could not be read).

    Raises:
      ValueError: one cannot be read, is shorter than a clip, or is missing beside its sidecar,
        unless evaluate.allow_missing; there is none; a field would be ignored.
    """
    e = config.evaluate
    for name, unset in (("compare_to", ()), ("conditioning", None)):
        if e[name] != unset:
            raise ValueError(f"evaluate.{name} is not used with evaluate.folder; leave it unset")
    folder = pathlib.Path(e.folder)
    if not folder.is_dir():
        raise ValueError(f"evaluate.folder={e.folder!r}: there is no such folder")
    paths = [path for path in files.find(folder) if "evaluation" not in path.parts]
    stems = {path.with_suffix("") for path in paths}
    lost = [p for p in sorted(folder.rglob("*.json")) if p.with_suffix("") not in stems]
    missing = [(p, "has no sound beside it") for p in lost if "evaluation" not in p.parts]
    waves, groups = [], []
    for number, path in enumerate(paths):
        try:
            pcm, *_ = ingest(str(path), Intake(rep.sample_rate, rep.channels))
            if len(pcm) < rep.samples:
                raise ValueError(f"shorter than a clip of {rep.samples / rep.sample_rate:.2f} s")
            count = len(pcm) // rep.samples
            cut = pcm[: count * rep.samples].reshape(count, rep.samples, rep.channels)
            waves.append(crops.pcm_to_wave(cut))
            groups += [number] * count
        except ValueError as error:
            missing.append((path, str(error)))
    for path, reason in missing:
        if not e.allow_missing:
            raise ValueError(f"{path}: {reason}; mend it, or set evaluate.allow_missing=True")
        log(f"evaluate: left out {path}: {reason}")
    if not waves:
        raise ValueError(f"evaluate.folder={e.folder!r} holds no sound that can be read")
    clips = controls.Clips(folder.name, "generated", np.concatenate(waves), np.array(groups))
    return clips, [str(path) for path, _ in missing]
