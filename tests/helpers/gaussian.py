"""A Gaussian whose denoiser is known exactly, and every noise schedule."""

from specdiff_jax.diffusion import schedules

MAKERS = {
    "ddpm_linear": schedules.ddpm_linear,
    "cosine": schedules.cosine,
    "rectified_flow": schedules.rectified_flow,
    "sigmoid": schedules.sigmoid,
    "zero_terminal": lambda: schedules.ddpm_linear(zero_terminal_snr=True),
    "shifted": lambda: schedules.shift_log_snr(schedules.cosine(), -2.0),
}


MEAN, STD = 1.5, 0.5


def exact_denoiser(schedule):
    """Return the denoiser whose x_0 is the posterior mean for N(MEAN, STD^2), by element."""

    def denoise(x_t, t):
        t = t.reshape(-1, *[1] * (x_t.ndim - 1))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x_0 = MEAN + gain * (x_t - alpha * MEAN)
        return x_0, (x_t - alpha * x_0) / sigma

    return denoise
