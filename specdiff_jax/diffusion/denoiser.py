"""The network with its noise schedule: what samplers, losses and metrics see of a model."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from specdiff_jax.diffusion import predictions
from specdiff_jax.diffusion.schedules import Schedule, alpha_sigma


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """(x_t, t, condition) -> (x_0, eps), whatever the network predicts.

    Guidance, inpainting and callbacks wrap `denoise`; a sampler sees no difference.
    """

    apply: Callable  # (x, t [B], condition) -> (output, the tokens after each block)
    schedule: Schedule
    prediction: str  # a key of predictions.PREDICTIONS
    skip_variance: float | None = None  # see predictions.blend

    def predict(self, x_t, t, condition=None):
        """Return the prediction that the loss compares with its target.  # [B, F, T, C]"""
        alpha, sigma = alpha_sigma(self.schedule, t, x_t)
        x = predictions.network_input(self.prediction, x_t, alpha, sigma)
        output, _ = self.apply(x, t, condition)
        if self.skip_variance is None:
            return output
        return predictions.blend(output, x_t, alpha, sigma, self.skip_variance)

    def denoise(self, x_t, t, condition=None):
        """Return (x_0, eps) as the prediction implies them.  # [B, F, T, C] each"""
        output = self.predict(x_t, t, condition)
        alpha, sigma = alpha_sigma(self.schedule, t, x_t)
        return predictions.to_x0_eps(self.prediction, output, x_t, alpha, sigma)

    def features(self, x_0, eps, t, condition=None):
        """Return the tokens after each block for x_t at one noise level t.  # depth x [B, L, D]"""
        t = jnp.full(len(x_0), t, jnp.float32)
        alpha, sigma = alpha_sigma(self.schedule, t, x_0)
        x_t = alpha * x_0 + sigma * eps
        x = predictions.network_input(self.prediction, x_t, alpha, sigma)
        return self.apply(x, t, condition)[1]
