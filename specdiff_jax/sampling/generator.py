"""The second straight line: from noise, or from real music, to waves.

noise x_T [B, F, T, C] -> sampler(denoise = DiT -> x_0, eps -> guidance) -> x_0 -> decode -> wave
"""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np

from specdiff_jax.conditioning import prompts
from specdiff_jax.config import bounds
from specdiff_jax.config.fields import set_fields
from specdiff_jax.diffusion import editing, guidance
from specdiff_jax.diffusion.samplers import item_keys, item_noise
from specdiff_jax.sampling import options
from specdiff_jax.training.trained_model import load


class Generator:
    """Clips [(Prompt, k)] -> waves, by one XLA program.

    The noise of a clip depends on (seed, k) alone, so two prompts with the same k start alike.
    Batches are filled up to sample.batch_size: one program serves them all.
    """

    def __init__(self, model, rep_out, requests=(prompts.UNCONDITIONAL,), **parts):
        """Compile nothing yet; the first call does.

        Args:
          model: a TrainedModel, whose config.sample says how to sample.
          rep_out: the Representation of the clips to make.
          requests: all Prompts that the clips may have, so that the program has room for each.
          parts: branches, program and encode_prompts, where they are there already.
        """
        self.model, self.rep_out = model, rep_out
        self.program = parts.get("program") or sampling_program(model, rep_out)
        self.encode_prompts = parts.get("encode_prompts") or prompt_encoder(model)
        self.branches = parts.get("branches") or self.encode_prompts.room(requests)
        self.curve = read_curve(model)

    @property
    def inferred_labels(self):
        """{text: the labels that were inferred from it}."""
        return self.encode_prompts.names

    def __call__(self, clips, edit=None):
        """Return the waves of clips, each from noise or from an edits.Edit.  # [M, (A,) N]"""
        config, rep, s = self.model.config, self.model.rep, self.model.config.sample
        filled = [clips[k % len(clips)] for k in range(s.batch_size)]
        conditions = self.encode_prompts([prompt for prompt, _ in filled], self.branches)
        keys = item_keys(s.seed, np.array([index for _, index in filled]))
        start = edit.start if edit else 1.0
        times = options.make_time_grid(config, self.model.schedule, self.curve, start)
        known = edit.known if edit else np.zeros((1, *self.rep_out.shape), np.float32)
        mask = edit.mask if edit and not edit.mask.all() else None
        waves = np.asarray(self.program(keys, times, known, mask, conditions))[: len(clips)]
        if edit:
            pasted = [edit.paste(wave.reshape(rep.channels, -1)) for wave in waves]
            waves = np.stack(pasted).reshape(waves.shape)
        length = self.rep_out.samples
        return waves[..., : length if s.seconds is None else round(s.seconds * rep.sample_rate)]


def sampling_program(model, rep_out, on_evaluation=lambda: None, device=None):
    """Return the jitted (keys, times, known, mask, conditions) -> waves.

    Args:
      rep_out: of the clips to make; where they are longer than trained, windows overlap and agree
        or, by sample.long_form, the network gets them whole.
      on_evaluation: called at every evaluation of the network; False stops the sampler.
      device: that computes, where the parameters lie if unset.
    """
    rep, schedule, s = model.rep, model.schedule, model.config.sample
    by_windows = s.long_form == "windows" and rep_out.frames > rep.frames
    shape = (rep if by_windows else rep_out).shape
    hop = options.window_hop(model.config)
    params, guided = guided_denoise(model, shape)
    worse_params, worse_guided = (
        guided_denoise(load_worse(model), shape)
        if s.autoguidance_scale is not None
        else (None, None)
    )
    sampler = options.make_sampler(model.config, schedule)

    def program(params, worse_params, keys, times, known, mask, conditions):
        noise = item_noise(keys, 0, rep_out.shape)
        x_T = schedule.alpha(times[0]) * known + schedule.sigma(times[0]) * noise  # [B, F, T, C]
        denoise = guided(params, conditions)
        if worse_guided is not None:
            worse = worse_guided(worse_params, conditions)
            denoise = guidance.autoguide(denoise, worse, s.autoguidance_scale)
        if by_windows:
            denoise = editing.denoise_windows(denoise, schedule, rep.frames, hop)
        if mask is not None:
            denoise = editing.inpaint(denoise, schedule, known, mask)
        denoise = editing.report_progress(denoise, on_evaluation)
        return rep_out.decode(sampler(denoise, x_T, times, keys))

    return functools.partial(jax.jit(program), *jax.device_put((params, worse_params), device))


def with_settings(model, fields):
    """Return a TrainedModel with other fields of its sample section, checked.

    Raises:
      ValueError: a field does not exist, or cannot be sampled with.
    """
    config = model.config.copy_and_resolve_references()
    for name in fields:
        if name not in config.sample:
            raise ValueError(f"sample has no field {name!r}; see configs/base.py")
    config.sample.update(fields)
    s = config.sample
    s.batch_size = min(s.batch_size, s.num_samples)
    bounds.check(config)
    options.check(config, model.schedule)
    return dataclasses.replace(model, config=config)


class ProgramCache:
    """Sampling programs of a model: requests that differ in data alone share one."""

    DATA = ("guidance_scale", "seed", "num_samples")  # of sample, and the prompt: any value
    SHAPE = ("nfe", "time_grid", "batch_size", "seconds")  # jit compiles again by itself

    def __init__(self, on_evaluation=lambda: None, size=8):
        self.on_evaluation, self.size, self.programs = on_evaluation, size, {}

    def get(self, model, rep_out):
        """Return the `sampling_program` for the sample section of a model's config."""
        free = (*prompts.condition_fields(), *self.DATA, *self.SHAPE)
        settings = set_fields(model.config.sample, *free)
        key = (rep_out.frames, *map(str, settings.items()))
        if key not in self.programs:
            while len(self.programs) >= self.size:
                del self.programs[next(iter(self.programs))]
            self.programs[key] = sampling_program(model, rep_out, self.on_evaluation)
        return self.programs[key]


def guided_denoise(model, shape):
    """Return (params, (params, conditions) -> denoise(x_t, t)) for clips of a shape, guided.

    Args:
      shape: (F, T, C); the conditions are what a PromptEncoder returns.
    """
    network, params = model.for_shape(shape)
    settings = options.guidance_settings(model.config)

    def guided(params, conditions):
        denoise = model.denoiser(params, network).denoise
        if not network.conditioners:
            return denoise
        return guidance.guide(denoise, model.schedule, *conditions, **settings)

    return params, guided


def load_worse(model):
    """Load the model that autoguidance leads away from: an earlier step's, or another run's.

    Raises:
      ValueError: it has another spectrogram, noise schedule or vocabulary.
    """
    s = model.config.sample
    worse = load(s.autoguidance_workdir or model.workdir, s.autoguidance_step, s.ema)
    same = {
        "vocabulary": [dataclasses.replace(m.vocabulary, reader=None) for m in (worse, model)],
        "schedule": (worse.config.schedule.to_dict(), model.config.schedule.to_dict()),
        "representation": (worse.rep.shape, model.rep.shape),
    }
    for name, (theirs, ours) in same.items():
        if theirs != ours:
            raise ValueError(f"sample.autoguidance_workdir={worse.workdir} has another {name}")
    worse.config.sample = s
    return worse


def prompt_encoder(model, **more):
    """Return the PromptEncoder that suits a model and how it is guided."""
    s = model.config.sample
    with_plain = bool(s.guidance_rescale or s.guidance_interval)
    return prompts.PromptEncoder(model.vocabulary, with_plain, s.infer_labels, **more)


def make_generators(model, rep_out, requests, count, on_evaluation=lambda: None):
    """Return a Generator on each local device, `count` at most: a batch is the same on any."""
    encode_prompts = prompt_encoder(model)
    branches = encode_prompts.room(requests)
    devices = jax.local_devices()[:count]
    programs = [sampling_program(model, rep_out, on_evaluation, device) for device in devices]
    parts = {"branches": branches, "encode_prompts": encode_prompts}
    return [Generator(model, rep_out, program=program, **parts) for program in programs]


def lengthen(config, rep):
    """Return the representation of clips of sample.seconds, the trained one where not longer."""
    seconds = config.sample.seconds
    if seconds is None or seconds * rep.sample_rate <= rep.samples:
        return rep
    frames = rep.frames_for(seconds, config.model.patch[1])
    return dataclasses.replace(rep, frames=frames)


def read_curve(model):
    """Return (levels, x_0 errors) of the last validation for time_grid="aligned", else None."""
    if model.config.sample.time_grid != "aligned":
        return None
    path = model.workdir / "health.json"
    if not path.exists():
        raise ValueError(f"sample.time_grid='aligned' needs {path}, which training writes")
    health = json.loads(path.read_text())
    return health["levels"], health["x0_error"]


def list_clips(requests, s):
    """Return every clip (Prompt, k) of a sample section, in batches."""
    return split_batches(list(itertools.product(requests, range(s.num_samples))), s.batch_size)


def split_batches(clips, size):
    """Return a list in pieces of `size`, the last as long as it comes."""
    return [clips[first : first + size] for first in range(0, len(clips), size)]
