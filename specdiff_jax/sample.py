"""--mode=sample: from a checkpoint to sounds.

noise x_T [B, F, T, C] -> sampler(denoise = DiT -> x_0, eps) -> x_0 -> decode -> istft -> wave
"""

import pathlib

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from specdiff_jax import build, checkpoints, pictures
from specdiff_jax.audio import files
from specdiff_jax.audio import representation as representations
from specdiff_jax.diffusion.samplers import item_keys, item_noise
from specdiff_jax.logs import add_clip, say, write_json


def run(config):
    """Writes sample.count clips: WAV, spectrogram PNG and a JSON sidecar each."""
    workdir = pathlib.Path(config.workdir)
    step = checkpoints.trained_step(workdir, config.sample.checkpoint_step)
    trained, rep, params = load(workdir, step, config.sample.ema)
    trained.sample = config.sample
    generate = generator(trained, rep, params)
    folder = workdir / "samples" / f"step_{step:08d}"
    sidecar = {
        "checkpoint_step": step,
        "checkpoint_sha256": checkpoints.manifest_sha256(workdir, step),
        **config.sample.to_dict(),
        "config": trained.to_dict(),
    }
    size = config.sample.batch_size
    for first in tqdm.trange(0, config.sample.count, size, desc="sample", unit="batch"):
        indices = range(first, min(first + size, config.sample.count))
        for index, wave in zip(indices, generate(indices), strict=True):
            name = f"{index:03d}"
            files.write(folder / f"{name}.wav", wave, rep.sample_rate)
            picture = pictures.save_spectrogram(folder / f"{name}.png", wave, rep.sample_rate)
            write_json(folder / f"{name}.json", sidecar | {"index": index})
            add_clip(workdir, step, f"sample/{name}", wave, rep.sample_rate, picture)
    say(f"samples: {folder}")


def load(workdir, step, ema):
    """(config, representation, params) of a checkpoint, on whatever device there is."""
    saved = checkpoints.read_run(workdir, step)
    trained = ConfigDict(saved["config"])
    rep = representations.from_dict(saved["representation"])
    state = checkpoints.restore(workdir, step, build.abstract_state(trained, rep.shape))
    return trained, rep, state.ema_params if ema else state.params


def generator(config, rep, params):
    """Returns indices -> waves [B, N] numpy: the second straight line, one XLA program.

    Clip k depends on (seed, k) alone: batches are filled up to sample.batch_size, so that one
    program serves them all, and every clip has its own stream of noise.
    """
    schedule = build.schedule(config)
    model = build.model(config, rep.shape)
    sampler, times = build.sampler(config, schedule), build.times(config, schedule)

    @jax.jit
    def program(params, keys):
        x_T = schedule.sigma(times[0]) * item_noise(keys, 0, rep.shape)  # [B, F, T, C]
        denoise = build.denoiser(config, model, params, schedule)
        return rep.decode(sampler(denoise, x_T, times, keys))

    def generate(indices):
        full = np.resize(np.asarray(indices), config.sample.batch_size)
        waves = program(params, item_keys(config.sample.seed, full))
        return np.asarray(waves)[: len(indices)]

    return generate
