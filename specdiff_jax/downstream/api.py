"""The Python API: a trained model in two lines, for notebooks and scripts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning import prompts
from specdiff_jax.conditioning.prompts import Prompt
from specdiff_jax.sampling import options
from specdiff_jax.sampling.generator import Generator, ProgramCache, lengthen, split_batches
from specdiff_jax.training import init_from, trained_model


def load(place, ema=True):
    """Load the Model of a run, RUN@STEP, or a folder of --mode=export.

    Args:
      place: a path; for a run of --mode=tag or embed its best checkpoint is used.
      ema: use the averaged parameters.

    Raises:
      ValueError: there is no model, or it does not verify.
    """
    return Model(trained_model.load(*init_from.parse_place(place), ema=ema))


class Model:
    """A trained diffusion model, ready to sample, encode, denoise and embed."""

    def __init__(self, trained):
        """Wrap a TrainedModel."""
        self.trained, self.programs = trained, ProgramCache()
        self.denoiser = jax.jit(lambda params, *args: trained.denoiser(params).denoise(*args))

    @property
    def sample_rate(self):
        """Samples a second."""
        return self.trained.rep.sample_rate

    @property
    def channels(self):
        """1 mono, 2 stereo."""
        return self.trained.rep.channels

    @property
    def seconds(self):
        """Length of a clip as trained."""
        return self.trained.rep.samples / self.trained.rep.sample_rate

    def sample(
        self,
        prompts=None,
        num_samples=4,
        seconds=None,
        seed=0,
        guidance_scale=None,
        nfe=None,
        **fields,
    ):
        """Generate clips.

        Args:
          prompts: None (unconditional), a text, a `conditioning.prompts.Prompt`, or a list of them.
          num_samples: of each prompt.
          seconds: of a clip, any length; as trained where unset.
          guidance_scale: of classifier-free guidance; the config's where unset.
          nfe: network evaluations of a clip; the config's where unset.
          fields: of the config's sample section, such as sampler="heun".

        Returns:
          [prompts x num_samples, channels, N] float32 in [-1, 1], prompt after prompt.

        Raises:
          ValueError: a field does not exist or cannot be used, or the model takes no prompts.
        """
        requests = as_prompts(prompts, guidance_scale)
        own = {"nfe": nfe} if nfe is not None else {}
        own |= {"num_samples": num_samples, "seconds": seconds, "seed": seed, "prompts": None}
        model = self.with_settings(own | dict.fromkeys(FIELDS_OF_PROMPTS) | fields)
        rep_out = lengthen(model.config, model.rep)
        program = self.programs.get(model, rep_out)
        generate = Generator(model, rep_out, requests, program=program)
        clips = [(prompt, k) for prompt in requests for k in range(num_samples)]
        batches = split_batches(clips, model.config.sample.batch_size)
        waves = np.concatenate([generate(batch) for batch in batches])
        return waves.reshape(len(clips), self.channels, -1)

    def with_settings(self, fields):
        """Return the TrainedModel with other fields of its sample section, checked."""
        config = self.trained.config.copy_and_resolve_references()
        for name in fields:
            if name not in config.sample:
                raise ValueError(f"sample has no field {name!r}; see configs/base.py")
        config.sample.update(fields)
        s = config.sample
        s.batch_size = min(s.batch_size, s.num_samples)
        options.check(config, self.trained.schedule)
        return dataclasses.replace(self.trained, config=config)

    def encode(self, wave):
        """Encode waves, mono [N] or [B, N] or with channels [B, A, N], as x_0.  # [B, F, T, C]"""
        return self.trained.rep.encode(self.as_batch(wave))

    def decode(self, x_0):
        """Decode x_0 [B, F, T, C] to waves.  # [B, channels, N]"""
        return self.trained.rep.decode(jnp.asarray(x_0)).reshape(len(x_0), self.channels, -1)

    def denoise(self, x_t, t, condition=None):
        """Return (x_0, eps) that the model predicts at noise level t.  # [B, F, T, C] each

        Args:
          x_t: [B, F, T, C], F, T and C as trained.
          t: a number or [B], 0 data to 1 noise.
          condition: None is unconditional.
        """
        x_t = jnp.asarray(x_t)
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), len(x_t))
        if condition is None:
            condition = self.trained.null_condition(len(x_t))
        return self.denoiser(self.trained.params, x_t, t, condition)

    def as_batch(self, wave):
        """Return waves as the representation takes them.  # [B, N] or [B, A, N]"""
        wave = jnp.asarray(wave, jnp.float32)
        if self.channels == 1:
            return wave.reshape(-1, wave.shape[-1])
        return wave.reshape(-1, self.channels, wave.shape[-1])


FIELDS_OF_PROMPTS = (*prompts.FIELDS, "guidance_scale")  # set by the prompts themselves


def as_prompts(given, guidance_scale):
    """Return a list of Prompts from None, a text, a Prompt or a list of these.

    Raises:
      ValueError: a guidance scale without prompts.
    """
    if given is None and guidance_scale is not None:
        raise ValueError(f"guidance_scale={guidance_scale} is not used without prompts")
    several = given if isinstance(given, list | tuple) else [given]
    as_prompt = lambda one: one if isinstance(one, Prompt) else Prompt(prompt=one)
    guide = functools.partial(dataclasses.replace, guidance_scale=guidance_scale)
    return [p if p.guidance_scale is not None else guide(p) for p in map(as_prompt, several)]
