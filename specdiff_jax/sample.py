"""--mode=sample: from a checkpoint to sounds, out of noise or out of real music.

noise x_T [B, F, T, C] -> sampler(denoise = DiT -> x_0, eps) -> x_0 -> decode -> istft -> wave
"""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from specdiff_jax import build, checkpoints, edits, pictures
from specdiff_jax.audio import files
from specdiff_jax.audio import representation as representations
from specdiff_jax.diffusion import editing
from specdiff_jax.diffusion.samplers import evaluations, item_keys, item_noise
from specdiff_jax.logs import add_clip, say, write_json
from specdiff_jax.models.positions import resized_to


def run(config):
    """Writes sample.count clips, or so many of each edit: WAV, PNG and a JSON sidecar each."""
    workdir = pathlib.Path(config.workdir)
    step = checkpoints.trained_step(workdir, config.sample.checkpoint_step)
    trained, rep, params = load(workdir, step, config.sample.ema)
    trained.sample, trained.edit = config.sample, config.edit
    build.check(trained)
    rep_out = longer(trained, rep)
    wanted = edits.edits(config, rep_out) or [None]
    folder = workdir / "samples" / f"step_{step:08d}"
    sidecar = {
        "checkpoint_step": step,
        "checkpoint_sha256": checkpoints.manifest_sha256(workdir, step),
        **config.sample.to_dict(),
        "config": trained.to_dict(),
    }
    size, count = config.sample.batch_size, config.sample.count
    batches = len(wanted) * -(-count // size)
    total = batches * evaluations(trained.sample.sampler, trained.sample.steps)
    with tqdm.tqdm(total=total, desc="sample", unit="eval") as bar:
        generate = generator(
            trained, rep, rep_out, params, read_curve(workdir, trained), bar.update
        )
        for edit in wanted:
            for first in range(0, count, size):
                indices = range(first, min(first + size, count))
                for index, wave in zip(indices, generate(indices, edit), strict=True):
                    name = f"{edit.name}-{index:03d}" if edit else f"{index:03d}"
                    files.write(folder / f"{name}.wav", wave, rep.sample_rate)
                    png = folder / f"{name}.png"
                    picture = pictures.save_spectrogram(png, wave, rep.sample_rate)
                    settings = {"edit": edit.settings} if edit else {}
                    write_json(folder / f"{name}.json", sidecar | settings | {"index": index})
                    add_clip(workdir, step, f"sample/{name}", wave, rep.sample_rate, picture)
    say(f"samples: {folder}")


def load(workdir, step, ema):
    """(config, representation, params) of a checkpoint, on whatever device there is."""
    saved = checkpoints.read_run(workdir, step)
    trained = ConfigDict(saved["config"])
    rep = representations.from_dict(saved["representation"])
    state = checkpoints.restore(workdir, step, build.abstract_state(trained, rep.shape))
    return trained, rep, state.ema_params if ema else state.params


def longer(config, rep):
    """The representation of clips of sample.seconds; the trained one where they are no longer."""
    seconds = config.sample.seconds
    if seconds is None or seconds * rep.sample_rate <= rep.samples:
        return rep
    return dataclasses.replace(rep, frames=rep.frames_for(seconds, config.model.patch[1]))


def read_curve(workdir, config):
    """(levels, x_0 errors) of the last validation, for sample.grid="aligned"; else None."""
    if config.sample.grid != "aligned":
        return None
    path = workdir / "health.json"
    if not path.exists():
        raise ValueError(f"sample.grid='aligned' needs {path}, which training writes")
    health = json.loads(path.read_text())
    return health["levels"], health["x0_error"]


def generator(config, rep, rep_out, params, curve=None, tick=None):
    """Returns (indices, edit) -> waves numpy: the second straight line, one XLA program.

    Clip k depends on (seed, k) alone: batches are filled up to sample.batch_size, so that one
    program serves them all, and every clip has its own stream of noise.

    Args:
      rep, rep_out: the trained representation, and that of the clips to make; where those are
        longer, windows overlap and agree or, by sample.extend, the model sees them whole.
      curve: see `read_curve`. tick: called at every evaluation of the network.
    """
    s, schedule = config.sample, build.schedule(config)
    by_windows = s.extend == "windows" and rep_out.frames > rep.frames
    model = build.model(config, (rep if by_windows else rep_out).shape)
    params = resized_to(params, model, build.model(config, rep.shape), say)
    sampler = build.sampler(config, schedule)
    hop = build.window_hop(config)

    def program(params, keys, times, known, mask):
        noise = item_noise(keys, 0, rep_out.shape)
        x_T = schedule.alpha(times[0]) * known + schedule.sigma(times[0]) * noise  # [B, F, T, C]
        denoise = build.denoiser(config, model, params, schedule)
        if by_windows:
            denoise = editing.windowed(denoise, schedule, rep.frames, hop)
        if mask is not None:
            denoise = editing.pinned(denoise, schedule, known, mask)
        if tick is not None:
            denoise = editing.ticking(denoise, tick)
        return rep_out.decode(sampler(denoise, x_T, times, keys))

    program = jax.jit(program)
    length = rep_out.samples if s.seconds is None else round(s.seconds * rep.sample_rate)

    def generate(indices, edit=None):
        keys = item_keys(s.seed, np.resize(np.asarray(indices), s.batch_size))
        times = build.times(config, schedule, curve, edit.start if edit else 1.0)
        known = edit.known if edit else np.zeros((1, *rep_out.shape), np.float32)
        mask = edit.mask if edit and not edit.mask.all() else None
        waves = np.asarray(program(params, keys, times, known, mask))[: len(indices)]
        jax.effects_barrier()  # every tick has been heard
        if edit:
            pasted = [edit.paste(wave.reshape(rep.channels, -1)) for wave in waves]
            waves = np.stack(pasted).reshape(waves.shape)
        return waves[..., :length]

    return generate
