"""Train spectrogram diffusion transformers on music, in JAX and Flax.

    model = specdiff_jax.load("runs/tiny")
    waves = model.sample(num_samples=4)  # [4, channels, N] float32

Time runs from t = 0 (data) to t = 1 (noise) everywhere. Axes: B batch, A audio channels,
N samples, F frequency bins, T frames, C features, L tokens, D width.
"""

__version__ = "0.1.0"
__all__ = ["load"]


def load(place, **options):
    """Load a trained model: a run "runs/tiny", a step of it "runs/tiny@6000", or an export folder.

    JAX is imported here, not with the package. See `downstream.api.load` for the options.
    """
    from specdiff_jax.downstream import api

    return api.load(place, **options)
