"""Install with `pip install -e .`; on an NVIDIA GPU `pip install -e '.[cuda12]'` or cuda13."""

from setuptools import find_packages, setup

setup(
    name="specdiff_jax",
    version="0.1.0",
    description="Spectrogram diffusion transformers for music, in JAX and Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["specdiff_jax*"]),
    package_data={"specdiff_jax": ["*.html", "*.css"]},
    install_requires=[
        "jax>=0.7",
        "flax>=0.11",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.20",
        "numpy>=1.26",
        "librosa",
        "datasets>=3",
        "ml_collections>=1.0",
        "absl-py",
        "soundfile>=0.13",
        "soxr",
        "scipy",
        "scikit-learn",
        "pebble>=5",
        "pyloudnorm",
        "tqdm",
        "tensorboardX",
        "matplotlib",
        "safetensors>=0.4",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "songbook": ["music21>=9", "midirenderer>=0.1.3", "pretty_midi>=0.2.10"],
        "text": ["tokenizers>=0.20"],
        "demo": ["gradio>=6.31"],
        "search": ["usearch>=2.26"],
        "test": ["pytest", "pytest-xdist", "ruff", "usearch>=2.26"],
        "benchmark": ["torch"],
    },
)
