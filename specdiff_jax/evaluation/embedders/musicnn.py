"""MTT_musicnn, a tagger of music trained on MagnaTagATune, in JAX (Pons & Serra 2019).

(arXiv 1909.06654; the network is that of Pons et al. 2018, arXiv 1711.02520.) As an embedder it
gives the 200 numbers before the last layer. The package's own extractor returns those of the first
window for every window; here each window has its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import mel, stft
from specdiff_jax.evaluation.embedders import tf_checkpoint
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.runtime import wheels

SAMPLE_RATE, N_FFT, HOP, BANDS, FRAMES = 16000, 512, 256, 96, 187
WINDOW = FRAMES * HOP  # 2.992 s. A shorter clip is repeated, as it was when this was trained
WIDTH = 200
BATCH = 8
EPSILON = 1e-3  # of its batch norms
INDEX, DATA = "MTT_musicnn/.index", "MTT_musicnn/.data-00000-of-00001"
WHEEL = wheels.Wheel(
    serves="the embedder 'musicnn'",
    package="musicnn",
    version="0.1.0",
    file="musicnn-0.1.0-py3-none-any.whl",
    module="musicnn",
    megabytes=29,
    sha256={
        INDEX: "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
        DATA: "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    },
    cache="~/.cache/specdiff_jax/embedders",
)
TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male",
    "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman",
    "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice", "weird",
    "country", "metal", "female voice", "choral",
)  # fmt: skip


def load_musicnn(place):
    """Return the embedder of the numbers before the last layer; `place` is empty.

    Raises:
      ValueError: the wheel is missing and cannot be fetched, or is not the expected one.
    """
    weights = load_weights()
    embed = lambda waves: apply_musicnn(weights, waves)[0]
    sha256 = WHEEL.sha256[DATA]
    return Embedder("musicnn", sha256, WIDTH, SAMPLE_RATE, WINDOW, BATCH, embed)


def load_musicnn_tagger():
    """Return an Embedder whose vector holds the probability of each of TAGS."""
    weights = load_weights()
    embed = lambda waves: apply_musicnn(weights, waves)[1]
    sha256 = WHEEL.sha256[DATA]
    return Embedder("musicnn tags", sha256, len(TAGS), SAMPLE_RATE, WINDOW, BATCH, embed)


@functools.cache
def load_weights():
    """Return the weights by their names in the checkpoint, read once a process."""
    tensors = tf_checkpoint.read_tensors(
        wheels.read_file(WHEEL, INDEX), wheels.read_file(WHEEL, DATA)
    )
    return jax.device_put({name: x for name, x in tensors.items() if "Adam" not in name})


@jax.jit
def apply_musicnn(weights, waves):
    """Return the vectors before the last layer and the probabilities of TAGS.

    [B, WINDOW] -> ([B, 200], [B, 50])
    """
    return network(weights, log_mel_spectrogram(waves))


def log_mel_spectrogram(waves):
    """Return log10(10000 x + 1) of librosa's mel power spectrogram.  # [B, WINDOW] -> [B, 187, 96]

    The original rounds x to float16 on the way, which is left out.
    """
    power = jnp.square(jnp.abs(stft.stft(waves, N_FFT, HOP)))[..., :FRAMES]  # [B, F, T]
    with jax.default_matmul_precision("float32"):
        bands = jnp.einsum("mf,bft->btm", mel_filters(), power)
    return jnp.log10(10000 * bands + 1)


@functools.cache
def mel_filters():
    """Return librosa.filters.mel with its defaults: triangles of equal area.  # [96, 257]"""
    triangles, widths = mel.triangles(SAMPLE_RATE, N_FFT, BANDS)
    return (triangles * 2 / widths[:, None]).astype(np.float32)


def network(weights, patch):
    """Apply the network.  # [B, 187, 96] -> ([B, 200], [B, 50])"""
    with jax.default_matmul_precision("float32"):  # TF32 would make GPUs differ
        front = front_end(weights, batch_norm(weights, "", patch))  # [B, T, 561]
        middle = [front]
        for i in (5, 6, 7):
            x = conv_layer(weights, i, middle[-1])[:, :, 0]  # [B, T, 64]
            middle.append(x + middle[-1] if i > 5 else x)
        x = jnp.concatenate(middle, axis=2)  # [B, T, 753]
        x = jnp.stack([x.max(axis=1), x.mean(axis=1)], axis=2).reshape(len(x), -1)  # [B, 1506]
        x = jax.nn.relu(dense_layer(weights, "dense", batch_norm(weights, "_9", x)))
        penultimate = batch_norm(weights, "_10", x)
        return penultimate, jax.nn.sigmoid(dense_layer(weights, "dense_1", penultimate))


def front_end(weights, patch):
    """Apply tall filters for timbre and long ones for tempo, each with its maximum.

    [B, T, 96] -> [B, T, 2 * 204 + 3 * 51]
    """
    return jnp.concatenate([conv_layer(weights, i, patch).max(axis=2) for i in range(5)], axis=2)


def conv_layer(weights, i, x):
    """Apply the i-th convolution, as many frames out as in, and its batch norm.

    [B, T, F] -> [B, T, F', C], F' = 1 + F - the kernel's height.
    """
    name = f"conv2d_{i}" if i else "conv2d"
    kernel = weights[f"{name}/kernel"]  # [frames, height, 1, C]
    before = (len(kernel) - 1) // 2
    pads = ((before, len(kernel) - 1 - before), (0, 0))
    x = jax.lax.conv_general_dilated(
        x[..., None], kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return batch_norm(weights, f"_{i + 1}", jax.nn.relu(x + broadcast_bias(weights, name, x)))


def dense_layer(weights, name, x):
    """Apply a dense layer.  # [..., C] -> [..., C']"""
    x = x @ weights[f"{name}/kernel"]
    return x + broadcast_bias(weights, name, x)


def broadcast_bias(weights, name, x):
    """Return a layer's bias with as many axes as x."""
    return jnp.expand_dims(weights[f"{name}/bias"], range(x.ndim - 1))


def batch_norm(weights, number, x):
    """Apply batch norm by the statistics of training; the input has one pair for all bands."""
    of = lambda kind: weights[f"batch_normalization{number}/{kind}"]
    scale = of("gamma") * jax.lax.rsqrt(of("moving_variance") + EPSILON)
    shift = of("beta") - of("moving_mean") * scale
    scale, shift = (jnp.expand_dims(v, range(x.ndim - 1)) for v in (scale, shift))
    return x * scale + shift
