"""What a config's sample section chooses: sampler, time grid, windows, guidance."""

import functools

from specdiff_jax.config.fields import bind, choose
from specdiff_jax.diffusion import guidance, samplers, time_grids

LONG_FORMS = ("windows", "positions")


def make_time_grid(config, schedule, curve=None, start=1.0):
    """Return the configured times from `start` down to the data.  # [S + 1]

    Args:
      curve: (levels, x_0 errors there) of the trained model, for sample.time_grid="aligned".
    """
    s = config.sample
    grid = choose(time_grids.TIME_GRIDS, "sample.time_grid", s.time_grid)
    steps = samplers.num_steps(s.sampler, s.nfe)
    if s.time_grid == "aligned":
        curve = curve or ([0.25, 0.75], [0.1, 0.5])  # to check a config no model is needed
        return grid(schedule, steps, *curve, start=start)
    return grid(schedule, steps, start=start)


def window_hop(config):
    """Return the frames from one window's start to the next, a multiple of the patch."""
    overlap, patch = config.sample.window_overlap, config.model.patch[1]
    if not 0 <= overlap < 1:
        raise ValueError(f"sample.window_overlap={overlap} is not at least 0 and below 1")
    return max(1, round(config.representation.frames * (1 - overlap) / patch)) * patch


def make_sampler(config, schedule):
    """Return the configured (denoise, x_T, times, keys) -> x_0."""
    s = config.sample
    chosen = choose(samplers.SAMPLERS, "sample.sampler", s.sampler)
    options = {name: s[name] for name in ("eta", "churn") if s[name]}
    sampler = bind("sample.", chosen, options, f"sample.sampler={s.sampler!r}")
    return functools.partial(run_sampler, sampler, schedule)


def run_sampler(sampler, schedule, denoise, x_T, times, keys):
    """Return x_0 of a sampler, with the argument order of `samplers`.  # [B, F, T, C]"""
    return sampler(denoise, x_T, times, schedule, keys)


def guidance_settings(config):
    """Return the arguments of `guidance.guide` beside the weights: {rescale, interval}.

    Raises:
      ValueError: a value out of range, or fields of autoguidance that need each other.
    """
    s = config.sample
    rescale, interval = s.guidance_rescale or 0.0, s.guidance_interval or guidance.ALWAYS
    if not 0 <= rescale <= 1:
        raise ValueError(f"sample.guidance_rescale={rescale} is not between 0 and 1")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError(
            f"sample.guidance_interval={tuple(interval)} is not (low, high) within 0 to 1"
        )
    worse = s.autoguidance_step is not None or s.autoguidance_workdir is not None
    if (s.autoguidance_scale is not None) != worse:
        raise ValueError(
            "sample.autoguidance_scale and a worse checkpoint (sample.autoguidance_step, "
            "sample.autoguidance_workdir) need each other; set both or none"
        )
    return {"rescale": rescale, "interval": tuple(interval)}


def check(config, schedule):
    """Raise ValueError where a sample section cannot be sampled with."""
    make_sampler(config, schedule)
    make_time_grid(config, schedule)
    window_hop(config)
    choose(dict.fromkeys(LONG_FORMS), "sample.long_form", config.sample.long_form)
    guidance_settings(config)
