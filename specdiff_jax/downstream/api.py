"""The Python API: a trained model in two lines, for notebooks and scripts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.conditioning.prompts import Prompt, condition_fields
from specdiff_jax.downstream import embed_job, embedders, head_job, tag_job
from specdiff_jax.evaluation.embedders.embedder import embed_clips, split_windows
from specdiff_jax.sampling.generator import (
    Generator,
    ProgramCache,
    lengthen,
    split_batches,
    with_settings,
)
from specdiff_jax.training import init_from, trained_model


def load(place, ema=True):
    """Load the Model of a run, RUN@STEP, or a folder of --mode=export.

    Args:
      place: a path. Of a run of --mode=tag or embed the best checkpoint is loaded.
      ema: use the averaged parameters.

    Raises:
      ValueError: there is no model, or it does not verify.
    """
    folder, step = init_from.parse_place(place)
    heads = {"tags": tag_job.make_job, "embedding": embed_job.make_job}
    for name, make_job in heads.items():
        if head_job.has_best(folder, name):
            return Model.of_head(folder, head_job.load_best(folder, make_job))
    return Model(trained_model.load(folder, step, ema))


class Model:
    """A trained diffusion model, ready to sample, encode, denoise, embed and tag."""

    def __init__(self, trained, tagger=None, embedder=None):
        """Wrap a TrainedModel.

        Args:
          tagger: (params, wave) -> probabilities, and the names of the tags.
          embedder: of `embed`; the mean token of the middle block where unset.
        """
        self.trained, self.tagger, self.embedder = trained, tagger, embedder
        self.programs = ProgramCache()
        self.denoiser = jax.jit(lambda params, *args: trained.denoiser(params).denoise(*args))

    @classmethod
    def of_head(cls, workdir, best):
        """Return the Model of the Best checkpoint of a run of --mode=tag or embed."""
        job, params = best.job, best.params
        about = {"workdir": workdir, "step": best.step, "sha256": best.sha256}
        trained = dataclasses.replace(job.backbone.model, params=params["backbone"], **about)
        if job.task.section == "embed":
            return cls(trained, embedder=embedders.load_embedding(workdir))
        predict = functools.partial(tag_job.make_predict(job), params)
        return cls(trained, tagger=(predict, job.task.tags.names))

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
        unset = dict.fromkeys((*condition_fields(), "guidance_scale"))  # the prompts carry these
        model = with_settings(self.trained, unset | own | fields)
        rep_out = lengthen(model.config, model.rep)
        program = self.programs.get(model, rep_out)
        generate = Generator(model, rep_out, requests, program=program)
        clips = [(prompt, k) for prompt in requests for k in range(num_samples)]
        batches = split_batches(clips, model.config.sample.batch_size)
        waves = np.concatenate([generate(batch) for batch in batches])
        return waves.reshape(len(clips), self.channels, -1)

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

    def embed(self, wave):
        """Embed waves of any length, as `encode` takes them.  # [B, D] float32 of length one

        A vector is the mean over adjacent windows: of the head of a run of --mode=embed, else of
        the mean token of the middle block.
        """
        self.embedder = self.embedder or embedders.embed_by_backbone(self.trained)
        mono = np.asarray(self.as_batch(wave)).reshape(-1, self.channels, np.shape(wave)[-1])
        clips = embed_clips(self.embedder, mono.mean(axis=1), self.sample_rate)  # [B, W, D]
        vectors = clips.mean(axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def tag(self, wave):
        """Predict the tags of waves of any length, as `encode` takes them.

        Returns:
          A dict {tag: probability} a wave, the mean over adjacent windows.

        Raises:
          ValueError: the model has no tags.
        """
        if self.tagger is None:
            raise ValueError(f"{self.trained.workdir} has no tags; load a run of --mode=tag")
        predict, names = self.tagger
        rows = []
        for one in np.asarray(self.as_batch(wave)):  # [N] or [A, N]
            windows = split_windows(one.T, self.trained.rep.samples)  # [W, N] or [W, N, A]
            waves = windows if windows.ndim == 2 else windows.swapaxes(1, 2)
            probabilities = np.asarray(predict(waves)).mean(axis=0)
            rows.append(dict(zip(names, probabilities.tolist(), strict=True)))
        return rows

    def as_batch(self, wave):
        """Return waves as the representation takes them.  # [B, N] or [B, A, N]"""
        wave = jnp.asarray(wave, jnp.float32)
        if self.channels == 1:
            return wave.reshape(-1, wave.shape[-1])
        return wave.reshape(-1, self.channels, wave.shape[-1])


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
