"""Train spectrogram diffusion transformers on music, in JAX and Flax."""

__version__ = "0.1.0"
