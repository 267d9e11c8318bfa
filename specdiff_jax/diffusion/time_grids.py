"""Where a sampler asks the network: times that fall from `start` to 0 in `steps` strides."""

import math

import jax.numpy as jnp
import numpy as np

from specdiff_jax.diffusion.schedules import KNOTS, invert_log_snr

MIN_LOG_SNR = -13.0  # log_snr: at less, nothing of x_0 can be read off x_t
MAX_LOG_SNR = 9.2  # log_snr of the last stop before the data: noise at -40 dB
NUM_PLACES = 256  # places that `aligned` chooses from


def first_time(schedule, start):
    """The first time of a grid: `start`, or a little less where nothing of x_0 is left there."""
    return min(start, float(invert_log_snr(schedule, MIN_LOG_SNR)))


def check_steps(steps, most=None, whose=""):
    """Raises ValueError unless steps is at least 1 and at most `most`."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    if most is not None and steps > most:
        raise ValueError(f"steps={steps} is more than {whose}{most}; set sample.nfe lower")


def uniform(schedule, steps, start=1.0):
    """Equal strides in t; on the grid of T where the schedule has one.  # [steps + 1]"""
    first, count = first_time(schedule, start), schedule.steps
    check_steps(steps)
    if count is None:
        return check_distinct(schedule, jnp.linspace(first, 0.0, steps + 1))
    last = math.floor(first * count + 1e-3)  # its number among the schedule's own T times
    check_steps(steps, last, f"the times of the schedule's T={count} up to {first:g}: ")
    return jnp.round(jnp.linspace(last, 0.0, steps + 1)) / count


def log_snr_range(schedule, start):
    """(first time, log_snr there, log_snr of the last stop before the data)."""
    first = first_time(schedule, start)
    noisy = float(schedule.log_snr(jnp.float32(first)))
    # At t = 0 itself there is no noise, but just before it EDM has sigma_min and nothing less.
    cleanest = float(schedule.log_snr(KNOTS[1]))
    return first, noisy, min(max(MAX_LOG_SNR, noisy + 2), cleanest)  # a late start goes further


def times_from_log_snrs(schedule, log_snrs, first):
    """Times of rising log_snrs, the first of them as it is, then the data.  # [S] -> [S + 1]"""
    times = invert_log_snr(schedule, jnp.asarray(log_snrs, jnp.float32)).at[0].set(first)
    return check_distinct(schedule, jnp.append(times, 0.0))


def check_distinct(schedule, times):
    """The times, or an error where float32 gives two of them one log_snr.

    Multistep samplers divide by the stride between them, and what they give then is no sound.
    """
    if not (np.diff(schedule.log_snr(times[:-1])) > 0).all():
        raise ValueError(
            f"steps={len(times) - 1} from t={times[0]:.3g} on lie too close together to tell them "
            "apart; set sample.nfe lower, or begin with more noise"
        )
    return times


def log_snr(schedule, steps, start=1.0):
    """Equal strides in log_snr, then the data (Lu et al. 2022).  # [steps + 1]"""
    check_steps(steps)
    first, noisy, clean = log_snr_range(schedule, start)
    return times_from_log_snrs(schedule, np.linspace(noisy, clean, steps), first)


def karras(schedule, steps, start=1.0, rho=7.0):
    """Equal strides in (sigma / alpha)^(1 / rho), then the data (Karras et al. 2022, eq. 5)."""
    check_steps(steps)
    first, noisy, clean = log_snr_range(schedule, start)
    roots = np.linspace(np.exp(-noisy / 2 / rho), np.exp(-clean / 2 / rho), steps)
    return times_from_log_snrs(schedule, -2 * rho * np.log(roots), first)


def aligned(schedule, steps, levels, errors, start=1.0):
    """The strides that move x_0 least away from where infinitely many would take it.

    After "Align Your Steps" (Sabour et al. 2024): what a stride from SNR a to b costs is how far
    the denoiser D, held still at a, falls behind on the way. For a posterior mean
    E|D_u - D_a|^2 = error_a - error_u, so that it needs the x_0 error by noise level alone, which
    every validation measures; the best grid is then found exactly, by dynamic programming over FINE
    places. See `step_costs` for what is counted, which is not the paper's nats.

    Args:
      levels, errors: [K] times t, and the model's mean-square x_0 error there.

    Returns:
      [steps + 1].
    """
    check_steps(steps, NUM_PLACES, "the places of grid 'aligned': ")
    first, noisy, clean = log_snr_range(schedule, start)
    places = np.linspace(noisy, clean, NUM_PLACES)
    known = np.append(schedule.log_snr(jnp.asarray(levels, jnp.float32)), MIN_LOG_SNR)
    known, errors = known.astype(np.float64), np.append(errors, 1.0)  # nothing known: the variance
    order = np.argsort(known)
    error = np.interp(places, known[order], errors[order])
    if steps == 1:
        return jnp.array([first, 0.0])
    cost = step_costs(places, error)
    best, came_from = cost[0], []
    for _ in range(steps - 2):
        through_each = best[:, None] + cost
        came_from.append(through_each.argmin(axis=0))
        best = through_each.min(axis=0)
    path = [NUM_PLACES - 1]
    for earlier in reversed(came_from):
        path.append(earlier[path[-1]])
    return times_from_log_snrs(schedule, places[[0, *reversed(path)]], first)


def step_costs(log_snrs, error):
    """Bound on the squared change of the final x_0 by a stride between any two places.

    With y = x / alpha and n = sigma / alpha the flow is dy = (y - D) dn / n, and what is missing of
    D in dn / n = -dlog_snr / 2 reaches the final x_0 at most whole. So a stride of length h in
    log_snr moves it by at most

        |int (D_u - D_a) dlog_snr / 2|^2  <=  h / 4  int E|D_u - D_a|^2 dlog_snr.

    The paper counts nats, dSNR in place of h dlog_snr / 4 (their eq. 11): nearly all of them lie in
    nearly clean spectrograms, where its strides crowd and nobody hears it.

    Args:
      log_snrs: [P], rising; error: [P], E|x_0 - D|^2 there.

    Returns:
      [P, P], from and to; infinite where a stride would not lead to cleaner data.
    """
    error = np.minimum.accumulate(np.minimum(error, np.exp(-log_snrs)))  # x / alpha is no worse
    lost = np.append(0.0, np.cumsum(np.diff(log_snrs) * (error[1:] + error[:-1]) / 2))
    between = lambda of: of[None] - of[:, None]
    length = between(log_snrs)
    return np.where(length > 0, length / 4 * (error[:, None] * length - between(lost)), np.inf)


TIME_GRIDS = {"uniform": uniform, "log_snr": log_snr, "karras": karras, "aligned": aligned}
