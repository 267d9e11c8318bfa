"""--mode=sample: from a checkpoint to sounds, out of noise or out of real music, as asked for.

noise x_T [B, F, T, C] -> sampler(denoise = DiT -> x_0, eps -> guidance) -> x_0 -> decode -> wave
"""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np
import tqdm

from specdiff_jax.conditioning import prompts
from specdiff_jax.config import build, overrides
from specdiff_jax.diffusion import editing, guidance
from specdiff_jax.diffusion.samplers import evaluations, item_keys, item_noise
from specdiff_jax.models.positions import resized_to
from specdiff_jax.runtime.device_pool import spread
from specdiff_jax.runtime.logs import say
from specdiff_jax.sampling import edits, options, sidecars
from specdiff_jax.training.trained_model import load


def run(config):
    """Writes sample.count clips of each prompt and each edit: WAV, PNG and a JSON sidecar each."""
    trained, rep_out = opened(config)
    refuse_unused(config.sample, trained.rep, rep_out)
    wanted = edits.edits(config, rep_out) or [None]
    wishes = prompts.wishes(config.sample)
    batches = batches_of(wishes, config.sample)
    jobs = [(batch, edit) for edit, batch in itertools.product(wanted, batches)]
    asks = evaluations(config.sample.sampler, config.sample.steps)
    with tqdm.tqdm(total=len(jobs) * asks, desc="sample", unit="eval") as bar:
        makers = generators(trained, rep_out, wishes, len(jobs), bar.update)
        for (batch, edit), waves in spread(makers, jobs):
            sidecars.write(trained, edit, batch, waves, makers[0])
    say(f"samples: {sidecars.folder_of(trained)}")


def check(config):
    """Refuses before a training what sampling after it would refuse, the vocabulary aside."""
    plain = np.zeros((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    rep = dataclasses.replace(build.representation(config), mean=plain[0], std=plain[1])
    rep_out = longer(config, rep)
    refuse_unused(config.sample, rep, rep_out)
    edits.edits(config, rep_out)
    c = config.condition
    refuse_deaf(config.sample, c.labels and c.text)
    hears = {"prompt": c.text, "negative": c.text, "labels": c.labels, "numbers": c.numbers}
    for wish in prompts.wishes(config.sample):
        for name in wish.said():
            if not hears.get(name, True):
                raise ValueError(f"sample.{name}: this model will not hear any; see condition")


def refuse_unused(s, rep, rep_out):
    """Raises ValueError where a sample section says how to go on and there is nothing to go on."""
    if s.extend == "positions" and rep_out.frames == rep.frames:
        raise ValueError(
            "sample.extend='positions' is not used by clips of the trained length; set "
            f"sample.seconds above {rep.samples / rep.sample_rate:.2f}"
        )


def refuse_deaf(s, reader):
    """Raises ValueError where sample.read_labels is off and a model never reads any in texts."""
    if not reader and not s.get("read_labels", True):
        raise ValueError("sample.read_labels=False is not used: this model reads none in prompts")


def batches_of(wishes, s):
    """Every clip (Wish, k) that a config's sample section asks for, sample.batch_size at a time."""
    return batched(list(itertools.product(wishes, range(s.count))), s.batch_size)


def batched(clips, size):
    """A list in pieces of `size`, the last as long as it comes."""
    return [clips[first : first + size] for first in range(0, len(clips), size)]


def opened(config):
    """(Trained with the wishes of a config, the Representation of the clips to make)."""
    s = config.sample
    strength = s.get("lora_strength")  # sidecars of before it do not say
    trained = load(config.workdir, s.checkpoint_step, s.ema, strength)
    overrides.tell_others(config, trained.config)
    trained.config.sample, trained.config.edit = config.sample, config.edit
    trained.config.model.attention = config.model.attention  # how it is computed, not what
    build.check(trained.config)
    refuse_deaf(s, trained.vocabulary.reader)
    return trained, longer(trained.config, trained.rep)


def longer(config, rep):
    """The representation of clips of sample.seconds; the trained one where they are no longer."""
    seconds = config.sample.seconds
    if seconds is None or seconds * rep.sample_rate <= rep.samples:
        return rep
    frames = rep.frames_for(seconds, config.model.patch[1])
    return dataclasses.replace(rep, frames=frames)


def read_curve(trained):
    """(levels, x_0 errors) of the last validation, for sample.grid="aligned"; else None."""
    if trained.config.sample.grid != "aligned":
        return None
    path = trained.workdir / "health.json"
    if not path.exists():
        raise ValueError(f"sample.grid='aligned' needs {path}, which training writes")
    health = json.loads(path.read_text())
    return health["levels"], health["x0_error"]


def obedient(trained, shape):
    """(params, (params, asked) -> denoise(x_t, t)) of a model for clips of `shape`, guided."""
    config, schedule = trained.config, build.schedule(trained.config)
    made_for = functools.partial(build.model, config, vocabulary=trained.vocabulary)
    model, guiding = made_for(shape), options.guiding(config)

    def told(params, asked):
        denoise = build.denoiser(config, model, params, schedule)
        if model.inputs is None:
            return denoise
        return guidance.guided(denoise, schedule, *asked, **guiding)

    return resized_to(trained.params, model, made_for(trained.rep.shape), say), told


def worse_of(trained):
    """The Trained that autoguidance leads away from: an earlier one, or another run's.

    Raises:
      ValueError: it has another spectrogram, noise schedule or vocabulary.
    """
    s = trained.config.sample
    worse = load(s.autoguidance_workdir or trained.workdir, s.autoguidance_step, s.ema)
    same = {
        "vocabulary": [dataclasses.replace(v.vocabulary, reader=None) for v in (worse, trained)],
        "schedule": (worse.config.schedule.to_dict(), trained.config.schedule.to_dict()),
        "representation": (worse.rep.shape, trained.rep.shape),
    }
    for name, (theirs, ours) in same.items():
        if theirs != ours:
            raise ValueError(f"sample.autoguidance_workdir={worse.workdir} has another {name}")
    worse.config.sample = s
    return worse


def programmed(trained, rep_out, tick=lambda: None, device=None):
    """(keys, times, known, mask, asked) -> waves: all that XLA does, compiled once for each shape.

    Args:
      rep_out: of the clips to make; where they are longer than trained, windows overlap and agree
        or, by sample.extend, the model sees them whole.
      tick: called at every evaluation of the network; False gives the clips up.
      device: that computes, where the parameters lie if unset.
    """
    config, rep, s = trained.config, trained.rep, trained.config.sample
    schedule, hop = build.schedule(config), options.window_hop(config)
    by_windows = s.extend == "windows" and rep_out.frames > rep.frames
    shape = (rep if by_windows else rep_out).shape
    params, told = obedient(trained, shape)
    worse_params, worse_told = (
        obedient(worse_of(trained), shape) if s.autoguidance is not None else (None, None)
    )
    sampler = options.sampler(config, schedule)

    def program(params, worse_params, keys, times, known, mask, asked):
        noise = item_noise(keys, 0, rep_out.shape)
        x_T = schedule.alpha(times[0]) * known + schedule.sigma(times[0]) * noise  # [B, F, T, C]
        denoise = told(params, asked)
        if worse_told is not None:
            worse = worse_told(worse_params, asked)
            denoise = guidance.autoguided(denoise, worse, s.autoguidance)
        if by_windows:
            denoise = editing.windowed(denoise, schedule, rep.frames, hop)
        if mask is not None:
            denoise = editing.pinned(denoise, schedule, known, mask)
        denoise = editing.ticking(denoise, tick)
        return rep_out.decode(sampler(denoise, x_T, times, keys))

    return functools.partial(jax.jit(program), *jax.device_put((params, worse_params), device))


def asker(trained, **more):
    """The prompts.Asker that suits a checkpoint and how it is guided."""
    s = trained.config.sample
    with_plain = bool(s.guidance_rescale or s.guidance_interval)
    return prompts.Asker(trained.vocabulary, with_plain, s.get("read_labels", True), **more)


def generators(trained, rep_out, wishes, count, tick=lambda: None):
    """A `generator` on each device of this process, `count` at most: a batch is the same on any."""
    ask = asker(trained)
    branches = ask.room(wishes)
    on = [programmed(trained, rep_out, tick, device) for device in jax.local_devices()[:count]]
    return [generator(trained, rep_out, (), branches, program, ask) for program in on]


def generator(trained, rep_out, wishes=(prompts.NOTHING,), branches=None, program=None, ask=None):
    """Returns (clips, edit) -> waves numpy: the second straight line, one XLA program.

    A clip is (Wish, k); its noise depends on (seed, k) alone, so that two wishes with the same k
    begin alike. Batches are filled up to sample.batch_size: one program serves them all.

    Args:
      rep_out: of the clips to make.
      wishes: all that the clips may have, so that the program has room for each.
      branches: how many conditions there is room for, the most that a wish needs where unset.
      program, ask: what `programmed` and `asker` made, where they are there already.
    """
    config, rep, s = trained.config, trained.rep, trained.config.sample
    schedule, curve = build.schedule(config), read_curve(trained)
    program, ask = program or programmed(trained, rep_out), ask or asker(trained)
    branches = branches or ask.room(wishes)
    length = rep_out.samples if s.seconds is None else round(s.seconds * rep.sample_rate)

    def generate(clips, edit=None):
        filled = [clips[k % len(clips)] for k in range(s.batch_size)]
        asked = ask([wish for wish, _ in filled], branches)
        keys = item_keys(s.seed, np.array([index for _, index in filled]))
        times = options.times(config, schedule, curve, edit.start if edit else 1.0)
        known = edit.known if edit else np.zeros((1, *rep_out.shape), np.float32)
        mask = edit.mask if edit and not edit.mask.all() else None
        waves = np.asarray(program(keys, times, known, mask, asked))[: len(clips)]
        if edit:
            pasted = [edit.paste(wave.reshape(rep.channels, -1)) for wave in waves]
            waves = np.stack(pasted).reshape(waves.shape)
        return waves[..., :length]

    generate.branches, generate.names = branches, ask.names  # for sidecars
    return generate
