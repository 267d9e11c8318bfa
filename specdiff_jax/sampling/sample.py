"""--mode=sample: WAV, PNG and a JSON sidecar of every clip of a config."""

import dataclasses
import itertools

import numpy as np
import tqdm

from specdiff_jax.conditioning import prompts
from specdiff_jax.config import bounds, build, overrides
from specdiff_jax.diffusion.samplers import count_nfe
from specdiff_jax.runtime.logs import log
from specdiff_jax.runtime.worker_pool import run_on_devices
from specdiff_jax.sampling import edits, options, sidecars
from specdiff_jax.sampling.generator import lengthen, list_clips, make_generators
from specdiff_jax.training.trained_model import load


def run(config):
    """Write sample.num_samples clips of each prompt and edit: WAV, PNG and a JSON sidecar each."""
    model, rep_out = load_for_sampling(config)
    refuse_unused(config.sample, model.rep, rep_out)
    wanted = edits.read_edits(config, rep_out) or [None]
    requests = prompts.read_prompts(config.sample)
    batches = list_clips(requests, config.sample)
    jobs = [(batch, edit) for edit, batch in itertools.product(wanted, batches)]
    nfe = count_nfe(config.sample.sampler, config.sample.nfe)
    with tqdm.tqdm(total=len(jobs) * nfe, desc="sample", unit="eval") as bar:
        generators = make_generators(model, rep_out, requests, len(jobs), bar.update)
        for (batch, edit), waves in run_on_devices(generators, jobs):
            sidecars.write_clips(model, edit, batch, waves, generators[0])
    log(f"samples: {sidecars.samples_folder(model)}")


def load_for_sampling(config):
    """Load (TrainedModel with the sample section of a config, Representation of its clips)."""
    s = config.sample
    model = load(config.workdir, s.checkpoint_step, s.ema, s.lora_scale)
    overrides.warn_of_differences(config, model.config)
    model.config.sample, model.config.edit = config.sample, config.edit
    model.config.model.attention = config.model.attention  # how it is computed, not what
    bounds.check(model.config)
    options.check(model.config, model.schedule)
    refuse_inferred_labels(s, model.vocabulary.reader)
    network = build.model(model.config, model.rep.shape, model.vocabulary)
    model = dataclasses.replace(model, model=network)
    return model, lengthen(model.config, model.rep)


def check(config):
    """Refuse before a training what sampling after it would refuse, except for the vocabulary."""
    plain = np.zeros((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    rep = dataclasses.replace(build.representation(config), mean=plain[0], std=plain[1])
    rep_out = lengthen(config, rep)
    refuse_unused(config.sample, rep, rep_out)
    edits.read_edits(config, rep_out)
    c = config.condition
    refuse_inferred_labels(config.sample, c.labels and c.text)
    conditional = {"prompt": c.text, "negative_prompt": c.text}
    conditional |= {"labels": c.labels, "scalars": c.scalars}
    for prompt in prompts.read_prompts(config.sample):
        for name in prompt.set_fields():
            if not conditional.get(name, True):
                raise ValueError(
                    f"sample.{name} is not used: this model will be trained without; see condition"
                )


def refuse_unused(s, rep, rep_out):
    """Raise ValueError where a sample section says how to lengthen a clip that is not longer."""
    if s.long_form == "positions" and rep_out.frames == rep.frames:
        raise ValueError(
            "sample.long_form='positions' is not used by clips of the trained length; set "
            f"sample.seconds above {rep.samples / rep.sample_rate:.2f}"
        )


def refuse_inferred_labels(s, reader):
    """Raise ValueError where sample.infer_labels is off and the model infers none from prompts."""
    if not reader and not s.infer_labels:
        raise ValueError(
            "sample.infer_labels=False is not used: this model infers none from prompts"
        )
