"""What the network predicts. Each kind is two functions: its target, and its (x_0, eps).

`target(kind, x_0, eps, alpha, sigma)` is the regression target of the network, and
`to_x0_eps(kind, output, x_t, alpha, sigma)` is the (x_0, eps) that an output implies. alpha and
sigma broadcast against x. Beside x_t = alpha x_0 + sigma eps each kind is one more linear equation.
"""

import jax.numpy as jnp

SMALL = 1e-8  # keeps the ends of the schedule, where alpha or sigma is zero, finite


def _x0_target(x_0, eps, alpha, sigma):
    return x_0


def _from_x0(output, x_t, alpha, sigma):
    return output, (x_t - alpha * output) / jnp.maximum(sigma, SMALL)


def _eps_target(x_0, eps, alpha, sigma):
    return eps


def _from_eps(output, x_t, alpha, sigma):
    return (x_t - sigma * output) / jnp.maximum(alpha, SMALL), output


def _v_target(x_0, eps, alpha, sigma):
    """Return v = alpha eps - sigma x_0 (Salimans & Ho 2022, appendix D)."""
    return alpha * eps - sigma * x_0


def _from_v(output, x_t, alpha, sigma):
    scale = alpha**2 + sigma**2
    return (alpha * x_t - sigma * output) / scale, (sigma * x_t + alpha * output) / scale


def _velocity_target(x_0, eps, alpha, sigma):
    """Return eps - x_0, the velocity of a rectified flow (Liu et al. 2022, eq. 1)."""
    return eps - x_0


def _from_velocity(output, x_t, alpha, sigma):
    scale = alpha + sigma
    return (x_t - sigma * output) / scale, (x_t + alpha * output) / scale


def _edm_target(x_0, eps, alpha, sigma):
    """Return (x_0 - c_skip x_t) / c_out, of unit variance (Karras et al. 2022, table 1).

    With sigma_data = 1: c_skip = alpha / n^2, c_out = sigma / n, where n^2 = alpha^2 + sigma^2.
    """
    scale = jnp.sqrt(alpha**2 + sigma**2)
    return (sigma * x_0 - alpha * eps) / scale


def _from_edm(output, x_t, alpha, sigma):
    scale = jnp.sqrt(alpha**2 + sigma**2)
    x_0 = (alpha * x_t / scale + sigma * output) / scale
    return x_0, (sigma * x_t / scale - alpha * output) / scale


def network_input(kind, x_t, alpha, sigma):
    """Return the input of the network: x_t, for "edm" at unit variance (its c_in)."""
    return x_t / jnp.sqrt(alpha**2 + sigma**2) if kind == "edm" else x_t


def target(kind, x_0, eps, alpha, sigma):
    """Return the network's regression target for a prediction kind."""
    return PREDICTIONS[kind][0](x_0, eps, alpha, sigma)


def to_x0_eps(kind, output, x_t, alpha, sigma):
    """Return the pair (x_0, eps) that an output of a kind implies."""
    return PREDICTIONS[kind][1](output, x_t, alpha, sigma)


def blend(output, x_t, alpha, sigma, variance):
    """Return the mean of the network's x_0 and of x_t / alpha, weighted by their precisions.

    `variance` is the mean-square error of `output` that no training removes (patches wider than
    the tokens); the error of x_t / alpha is sigma^2 / alpha^2. At weak noise the input dominates,
    at strong noise the network: EDM's c_skip (Karras et al. 2022, table 1) with `variance` for
    sigma_data^2.
    """
    scale = alpha**2 * variance + sigma**2
    return (alpha * variance * x_t + sigma**2 * output) / scale


PREDICTIONS = {
    "x0": (_x0_target, _from_x0),
    "eps": (_eps_target, _from_eps),
    "v": (_v_target, _from_v),
    "velocity": (_velocity_target, _from_velocity),
    "edm": (_edm_target, _from_edm),
}
