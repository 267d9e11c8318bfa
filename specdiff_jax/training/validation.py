"""Is this run healthy? The model's x_0 error beside what needs no network at all."""

import numpy as np

from specdiff_jax.diffusion import linear_denoisers

NAMES = {
    "constant": "the best constant",
    "band_wiener": "the per-band Wiener filter",
    "linear_frame": "the best linear denoiser of a frame",
    "linear_patch": "the best linear denoiser of a patch",
}


def level_middles(count):
    """The middles of `count` equal bins of t in (0, 1)."""
    return (np.arange(count) + 0.5) / count


def baselines(train_batches, valid_batches, patch, schedule, levels):
    """x_0 error on held-out data of denoisers fitted to the training data.

    Args:
      train_batches, valid_batches: iterables of x_0 [B, F, T, C].
      patch: (bins, frames) of the model.
      levels: [K] times t.

    Returns:
      {name: [K floats]} with the names of NAMES.
    """
    alpha = np.asarray(schedule.alpha(levels), np.float64)
    sigma = np.asarray(schedule.sigma(levels), np.float64)
    fitted = linear_denoisers.fit(train_batches, patch)
    moments = linear_denoisers.held_out_moments(fitted, valid_batches, patch)

    def errors(name, gain=1.0):
        values = gain * fitted[name][2]
        pairs = zip(alpha, sigma, strict=True)
        return [linear_denoisers.x0_error(values, moments[name], a, s) for a, s in pairs]

    # With no gain the per-band filter is its mean: a constant.
    return {"constant": errors("band_wiener", gain=0.0)} | {name: errors(name) for name in fitted}


def verdict(x0_error, errors, step, num_steps):
    """(healthy, one line) from the model's error by level and the baselines'.

    Beating the per-band filter is no more than an equaliser can do; a model that has learned
    music beats the linear denoiser of its own patch.
    """
    mean = float(np.mean(x0_error))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    beaten = [name for name in NAMES if mean < means[name]]
    if not np.isfinite(mean):
        return False, f"unhealthy: x_0 error is not finite at step {step}"
    strongest = min(means, key=means.get)
    ratio = mean / means[strongest]
    figure = f"x_0 error {mean:.4f} at step {step} of {num_steps}"
    if len(beaten) == len(NAMES):
        return (
            True,
            f"healthy: {figure}, {ratio:.2f} of {NAMES[strongest]} ({means[strongest]:.4f})",
        )
    unbeaten = min((n for n in NAMES if n not in beaten), key=means.get)
    hint = "train on" if step < num_steps else "train longer, or see the loss curve"
    if not beaten:
        hint = "nothing learned yet: " + hint
    return False, (
        f"not healthy yet: {figure}, {mean / means[unbeaten]:.2f} of {NAMES[unbeaten]} "
        f"({means[unbeaten]:.4f}); {hint}"
    )
