"""The inputs of an evaluation: models or a folder of sounds, and the real music to compare with."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from specdiff_jax.audio import files
from specdiff_jax.audio.decode import AudioFormat, decode_audio
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
    """All sets of clips and songs that an evaluation compares."""

    config: Any
    rep: Any  # Representation of every clip
    models: dict  # {name: TrainedModel}, the run's own first; {} for a folder of sounds
    sounds: controls.Clips | None  # of a folder
    missing: list  # names of files that could not be read
    train: Songs
    held_out: Songs
    reference: controls.Clips
    other_artists: controls.Clips
    conditioning: str  # a key of prompt_adherence.PROMPTS
    requests: list  # [(Prompt, k)], one a clip to generate
    prompt_entries: list  # entries of the songs that the prompts describe, [] if unconditional
    prompt_music: controls.Clips | None  # an excerpt of each of those songs

    @property
    def model(self):
        """The run's own TrainedModel."""
        return next(iter(self.models.values()))


def gather_inputs(config):
    """Return the EvaluationInputs of a config.

    Raises:
      ValueError: a field that is wrong or would be ignored; too little held-out music.
    """
    e = config.evaluate
    choose(dict.fromkeys(("valid", "test")), "evaluate.split", e.split)
    models = load_models(config) if e.folder is None else {}
    rep = next(iter(models.values())).rep if models else fit_representation(config)
    sounds, missing = (None, []) if e.folder is None else load_sounds(config, rep)
    load_split = functools.partial(prepare.load_split, config, samples=rep.samples)
    train, held_out = load_split("train"), load_split(e.split)
    reference, other_artists = controls.split_by_artist(held_out, rep.samples, e.reference_clips)
    conditioning, music, entries = choose_conditioning(config, models), None, []
    requests = [(prompts.UNCONDITIONAL, k) for k in range(e.clips)]
    if conditioning != "unconditional":
        name = "real music of the prompts"
        music = controls.cut_clips(name, "real", held_out, rep.samples, e.clips)
        entries = [held_out.entries[song] for song in music.songs]
        prompt_of = prompt_adherence.PROMPTS[conditioning]
        guided = {"guidance_scale": config.sample.guidance_scale}
        requests = [
            (dataclasses.replace(prompt_of(entry), **guided), k) for k, entry in enumerate(entries)
        ]
    return EvaluationInputs(
        config=config,
        rep=rep,
        models=models,
        sounds=sounds,
        missing=missing,
        train=train,
        held_out=held_out,
        reference=reference,
        other_artists=other_artists,
        conditioning=conditioning,
        requests=requests,
        prompt_entries=entries,
        prompt_music=music,
    )


def fit_representation(config):
    """Return the config's representation with statistics of the training songs."""
    job = DiffusionJob(config)
    job.fit_representation()
    return job.rep


def load_models(config):
    """Return {name: TrainedModel} of the run's own checkpoint and of evaluate.compare_to."""
    e = config.evaluate
    own, _ = sample.load_for_sampling(config)
    if config.sample.seconds is not None:  # shorter ones would be cut, and scored as they are
        raise ValueError(
            "evaluate compares clips of the trained length; leave sample.seconds unset"
        )
    models = {"generated": own}
    for workdir in e.compare_to:
        other = trained_model.load(pathlib.Path(workdir), ema=config.sample.ema)
        for name in ("sample_rate", "samples"):
            if getattr(other.rep, name) != getattr(own.rep, name):
                raise ValueError(f"evaluate.compare_to: clips of {workdir} have another {name}")
        other.config.sample = config.sample
        models[pathlib.Path(workdir).name] = other
    return models


def choose_conditioning(config, models):
    """Return the config's conditioning, or else the first that all models were trained with."""
    e = config.evaluate
    vocabularies = [model.vocabulary for model in models.values()]
    available = {
        "captions": bool(models) and all(v.text for v in vocabularies),
        "labels": bool(models) and all(v.labels for v in vocabularies),
        "unconditional": True,
    }
    conditioning = e.conditioning or next(name for name, can in available.items() if can)
    choose(prompt_adherence.PROMPTS, "evaluate.conditioning", conditioning)
    if not available[conditioning]:
        raise ValueError(
            f"evaluate.conditioning={conditioning!r}: not all models were trained with it"
        )
    return conditioning


def load_sounds(config, rep):
    """Return (Clips of a folder of sounds, names of the files that could not be read).

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
    paths = [path for path in files.find_files(folder) if "evaluation" not in path.parts]
    stems = {path.with_suffix("") for path in paths}
    lost = [p for p in sorted(folder.rglob("*.json")) if p.with_suffix("") not in stems]
    missing = [(p, "has no sound beside it") for p in lost if "evaluation" not in p.parts]
    waves, groups = [], []
    for number, path in enumerate(paths):
        try:
            clips = read_file_clips(path, rep)
            waves.append(clips)
            groups += [number] * len(clips)
        except ValueError as error:
            missing.append((path, str(error)))
    for path, reason in missing:
        if not e.allow_missing:
            raise ValueError(f"{path}: {reason}; fix it, or set evaluate.allow_missing=True")
        log(f"evaluate: skipped {path}: {reason}")
    if not waves:
        raise ValueError(f"evaluate.folder={e.folder!r} holds no sound that can be read")
    clips = controls.Clips(folder.name, "generated", np.concatenate(waves), np.array(groups))
    return clips, [str(path) for path, _ in missing]


def read_file_clips(path, rep):
    """Return the whole clips of a file, one after another.  # [M, ..., N]"""
    pcm, *_ = decode_audio(str(path), AudioFormat(rep.sample_rate, rep.channels))
    if len(pcm) < rep.samples:
        raise ValueError(f"shorter than a clip of {rep.samples / rep.sample_rate:.2f} s")
    count = len(pcm) // rep.samples
    cut = pcm[: count * rep.samples].reshape(count, rep.samples, rep.channels)
    return crops.pcm_to_wave(cut)
