"""Time grids of samplers: times that fall from `start` to 0 in `steps` steps."""

import math

import jax.numpy as jnp
import numpy as np

from specdiff_jax.diffusion.schedules import KNOTS, invert_log_snr

MIN_LOG_SNR = -13.0  # at a lower log_snr x_t holds nothing of x_0
MAX_LOG_SNR = 9.2  # log_snr of the last time before the data: noise at -40 dB
NUM_PLACES = 256  # candidate times of `aligned`


def first_time(schedule, start):
    """Return the first time of a grid: `start`, or a little less where x_t holds no x_0."""
    return min(start, float(invert_log_snr(schedule, MIN_LOG_SNR)))


def check_steps(steps, most=None, whose=""):
    """Raise ValueError unless steps is at least 1 and at most `most`."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    if most is not None and steps > most:
        raise ValueError(f"steps={steps} is more than {whose}{most}; set sample.nfe lower")


def uniform(schedule, steps, start=1.0):
    """Return equal steps in t, among the T times of a discrete schedule.  # [steps + 1]"""
    first, count = first_time(schedule, start), schedule.steps
    check_steps(steps)
    if count is None:
        return check_distinct(schedule, jnp.linspace(first, 0.0, steps + 1))
    last = math.floor(first * count + 1e-3)  # its index among the schedule's own T times
    check_steps(steps, last, f"the times of the schedule's T={count} up to {first:g}: ")
    return jnp.round(jnp.linspace(last, 0.0, steps + 1)) / count


def log_snr_range(schedule, start):
    """Return (first time, log_snr there, log_snr of the last time before the data)."""
    first = first_time(schedule, start)
    noisiest = float(schedule.log_snr(jnp.float32(first)))
    # At t = 0 there is no noise, but just above it EDM has sigma_min and never less.
    cleanest = float(schedule.log_snr(KNOTS[1]))
    return first, noisiest, min(max(MAX_LOG_SNR, noisiest + 2), cleanest)


def times_from_log_snrs(schedule, log_snrs, first):
    """Return `first`, the times of the other log_snrs, which rise, and 0.  # [S] -> [S + 1]"""
    times = invert_log_snr(schedule, jnp.asarray(log_snrs, jnp.float32)).at[0].set(first)
    return check_distinct(schedule, jnp.append(times, 0.0))


def check_distinct(schedule, times):
    """Return the times; raise ValueError where float32 gives two of them one log_snr.

    Multistep samplers divide by the difference, and their samples would not be finite.
    """
    if not (np.diff(schedule.log_snr(times[:-1])) > 0).all():
        raise ValueError(
            f"steps={len(times) - 1} from t={times[0]:.3g} are too close together for float32; "
            "set sample.nfe lower, or start with more noise"
        )
    return times


def log_snr(schedule, steps, start=1.0):
    """Return equal steps in log_snr, then 0 (Lu et al. 2022).  # [steps + 1]"""
    check_steps(steps)
    first, noisy, clean = log_snr_range(schedule, start)
    return times_from_log_snrs(schedule, np.linspace(noisy, clean, steps), first)


def karras(schedule, steps, start=1.0, rho=7.0):
    """Return equal steps in (sigma / alpha)^(1 / rho), then 0 (Karras et al. 2022, eq. 5)."""
    check_steps(steps)
    first, noisy, clean = log_snr_range(schedule, start)
    roots = np.linspace(np.exp(-noisy / 2 / rho), np.exp(-clean / 2 / rho), steps)
    return times_from_log_snrs(schedule, -2 * rho * np.log(roots), first)


def aligned(schedule, steps, levels, errors, start=1.0):
    """Return the grid whose samples are nearest to those of infinitely many steps, by a bound.

    After "Align Your Steps" (Sabour et al. 2024): a step from SNR a to b costs how far the denoiser
    D, constant from a on, lags behind on the way. For a posterior mean E|D_u - D_a|^2 = error_a -
    error_u, so that it needs only the x_0 error by noise level, which every validation measures.
    Dynamic programming then gives the best grid over NUM_PLACES candidate times. `step_costs`
    differs from the paper's cost, which is in nats.

    Args:
      levels, errors: [K] times t, and the model's mean-square x_0 error there.

    Returns:
      [steps + 1].
    """
    check_steps(steps, NUM_PLACES, "the places of grid 'aligned': ")
    first, noisiest, cleanest = log_snr_range(schedule, start)
    places = np.linspace(noisiest, cleanest, NUM_PLACES)
    measured = np.append(schedule.log_snr(jnp.asarray(levels, jnp.float32)), MIN_LOG_SNR)
    measured, errors = measured.astype(np.float64), np.append(errors, 1.0)  # the data's variance
    order = np.argsort(measured)
    error = np.interp(places, measured[order], errors[order])
    if steps == 1:
        return jnp.array([first, 0.0])
    cost = step_costs(places, error)  # [P, P]
    best, came_from = cost[0], []
    for _ in range(steps - 2):
        through_each = best[:, None] + cost
        came_from.append(through_each.argmin(axis=0))
        best = through_each.min(axis=0)
    path = [NUM_PLACES - 1]
    for previous in reversed(came_from):
        path.append(previous[path[-1]])
    return times_from_log_snrs(schedule, places[[0, *reversed(path)]], first)


def step_costs(log_snrs, error):
    """Return a bound on the squared change of the final x_0 by a step between any two places.

    With y = x / alpha and n = sigma / alpha the flow is dy = (y - D) dn / n, and an error of D over
    dn / n = -dlog_snr / 2 reaches the final x_0 undiminished at most. So a step of length h in
    log_snr changes it by at most

        |int (D_u - D_a) dlog_snr / 2|^2  <=  h / 4  int E|D_u - D_a|^2 dlog_snr.

    The paper counts nats, dSNR in place of h dlog_snr / 4 (their eq. 11). Nearly all of them are in
    nearly clean spectrograms, where its steps crowd without an audible effect.

    Args:
      log_snrs: [P], rising; error: [P], E|x_0 - D|^2 there.

    Returns:
      [P, P], from and to; infinite where a step would not lead to cleaner data.
    """
    error = np.minimum.accumulate(np.minimum(error, np.exp(-log_snrs)))  # at most that of x / alpha
    integral = np.append(0.0, np.cumsum(np.diff(log_snrs) * (error[1:] + error[:-1]) / 2))
    difference = lambda x: x[None] - x[:, None]
    h = difference(log_snrs)
    return np.where(h > 0, h / 4 * (error[:, None] * h - difference(integral)), np.inf)


TIME_GRIDS = {"uniform": uniform, "log_snr": log_snr, "karras": karras, "aligned": aligned}
