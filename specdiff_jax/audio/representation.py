"""What the network sees of a wave: x_0 [B, F, T, C], standardized by band, and the way back.

Magnitudes are in units of a full-scale sinusoid (0 dB), so levels survive the round trip. The
Nyquist bin is dropped by every kind (512 of 513 bins at n_fft = 1024) and returns as zero.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio import mel, phase
from specdiff_jax.audio.stft import hann, istft, num_samples, stft


@dataclasses.dataclass(frozen=True, eq=False)
class Representation:
    """How a wave becomes x_0 and back; `fit` fills mean and std from the training split."""

    kind: str  # a key of KINDS
    sample_rate: int  # Hz
    n_fft: int  # samples a window
    hop: int  # samples between frames
    frames: int  # T
    channels: int = 1  # A: 2 for stereo, whose features lie side by side in C
    n_mels: int | None = None  # bands of log_mel
    floor_db: float | None = None  # level added before the logarithm: quieter is silence
    power: float | None = None  # compression of complex magnitudes, |X| ** power
    griffin_lim_iters: int | None = None  # Griffin-Lim rounds of decode
    standardize: str = "band"  # "band": a mean and std for each (F, C); "global": one for all
    mean: np.ndarray | None = None  # [1, F, 1, C], C as of one channel times A
    std: np.ndarray | None = None  # [1, F, 1, C]

    @property
    def samples(self):
        """Length of a crop in samples."""
        return num_samples(self.frames, self.hop)

    @property
    def shape(self):
        """(F, T, C) of one x_0."""
        bins = self.n_mels if self.kind == "log_mel" else self.n_fft // 2
        features = 2 if self.kind in ("complex", "polar") else 1
        return bins, self.frames, features * self.channels

    @property
    def frequencies(self):
        """The center of each of the F bands in Hz.  # [F]"""
        if self.kind == "log_mel":
            return mel.center_frequencies(self.sample_rate, self.n_mels)
        return np.arange(self.n_fft // 2) * self.sample_rate / self.n_fft

    def frames_for(self, seconds, patch):
        """Frames that hold so many seconds, a multiple of `patch`."""
        needed = math.ceil(seconds * self.sample_rate / self.hop) + 1
        return -(-needed // patch) * patch

    def min_samples(self, patch):
        """Return the fewest samples that fill a patch of `patch` frames."""
        return patch * self.hop

    def encode(self, wave):
        """[B, N] or [B, A, N] in [-1, 1] -> x_0 [B, F, T, C], about zero mean, unit variance."""
        analyze, _ = KINDS[self.kind]
        features = analyze(spectrum(wave.reshape(-1, wave.shape[-1]), self), self)
        return (merge_channels(features, self.channels) - self.mean) / self.std

    def decode(self, x_0):
        """x_0 [B, F, T, C] -> wave [B, (T - 1) * hop] or [B, A, ...], as loud as encoded."""
        _, synthesize = KINDS[self.kind]
        wave = synthesize(split_channels(x_0 * self.std + self.mean, self.channels), self)
        return wave if self.channels == 1 else wave.reshape(-1, self.channels, wave.shape[-1])


def feature_ranges(rep):
    """How far each feature reaches between silence and full scale, before it is standardized.

    Returns:
      [C] float32: the constant data range of an x_0 seen as an image.
    """
    logarithm = rep.floor_db and -math.log(10 ** (rep.floor_db / 20))
    of = {"complex": [2.0, 2.0], "polar": [logarithm, 2.0]}
    return np.tile(np.float32(of.get(rep.kind, [logarithm])), rep.channels)


def merge_channels(features, channels):
    """[B * A, F, T, C] -> [B, F, T, A * C]."""
    parts = features.reshape(-1, channels, *features.shape[1:])
    return jnp.moveaxis(parts, 1, -2).reshape(len(parts), *features.shape[1:3], -1)


def split_channels(features, channels):
    """Inverse of `side_by_side`."""
    parts = jnp.moveaxis(features.reshape(*features.shape[:3], channels, -1), -2, 1)
    return parts.reshape(-1, *parts.shape[2:])


def full_scale(n_fft):
    """STFT magnitude of a sinusoid of amplitude one at a bin's center."""
    return float(hann(n_fft).sum()) / 2


def spectrum(wave, rep):
    """[B, N] -> [B, F, T] complex without the Nyquist bin, full scale at magnitude one."""
    return stft(wave, rep.n_fft, rep.hop)[:, :-1] / full_scale(rep.n_fft)


def restore_nyquist(spec, rep):
    """Undoes `spectrum`'s scaling and cut, ready for `istft`."""
    return jnp.pad(spec * full_scale(rep.n_fft), ((0, 0), (0, 1), (0, 0)))


def to_log(magnitude, rep):
    """Natural logarithm above a soft floor."""
    return jnp.log(magnitude + 10 ** (rep.floor_db / 20))


def from_log(log_magnitude, rep):
    """Inverse of `to_log`; clamped where a sample overshoots full scale by more than 20 dB."""
    level = jnp.exp(jnp.minimum(log_magnitude, jnp.log(10.0)))
    return jnp.maximum(level - 10 ** (rep.floor_db / 20), 0.0)


def analyze_complex(spec, rep):
    scaled = phase.phase_factor(spec) * jnp.abs(spec) ** rep.power
    return jnp.stack([scaled.real, scaled.imag], axis=-1)  # [B, F, T, 2]


def synthesize_complex(features, rep):
    scaled = features[..., 0] + 1j * features[..., 1]
    spec = phase.phase_factor(scaled) * jnp.abs(scaled) ** (1 / rep.power)
    return istft(restore_nyquist(spec, rep), rep.n_fft, rep.hop, rep.samples)


def analyze_log_magnitude(spec, rep):
    return to_log(jnp.abs(spec), rep)[..., None]  # [B, F, T, 1]


def synthesize_log_magnitude(features, rep):
    return invert_magnitude(restore_nyquist(from_log(features[..., 0], rep), rep), rep)


def analyze_log_mel(spec, rep):
    magnitude = jnp.pad(jnp.abs(spec), ((0, 0), (0, 1), (0, 0)))
    bands = mel.magnitudes_to_mel(magnitude, rep.sample_rate, rep.n_fft, rep.n_mels)
    return to_log(bands, rep)[..., None]  # [B, M, T, 1]


def synthesize_log_mel(features, rep):
    bands = from_log(features[..., 0], rep)
    magnitude = mel.mel_to_magnitudes(bands, rep.sample_rate, rep.n_fft)[:, :-1]
    return invert_magnitude(restore_nyquist(magnitude, rep), rep)


def analyze_polar(spec, rep):
    magnitude = jnp.abs(spec)
    frequency = phase.instantaneous_frequency(spec, rep.n_fft, rep.hop)
    gate = magnitude / (magnitude + 10 ** (rep.floor_db / 20))  # phase of silence is noise
    return jnp.stack([to_log(magnitude, rep), gate * frequency], axis=-1)  # [B, F, T, 2]


def synthesize_polar(features, rep):
    magnitude = from_log(features[..., 0], rep)
    floor = 10 ** (rep.floor_db / 20)
    gate = jnp.maximum(magnitude / (magnitude + floor), 0.05)
    frequency = jnp.clip(features[..., 1] / gate, -1.0, 1.0)
    start = phase.integrate(frequency, rep.n_fft, rep.hop)
    padded = jnp.pad(start, ((0, 0), (0, 1), (0, 0)))
    return invert_magnitude(restore_nyquist(magnitude, rep), rep, padded)


def invert_magnitude(magnitude, rep, start=None):
    """Magnitudes [B, F + 1, T] and phases to start from (random where None) -> wave [B, N]."""
    start = phase.random_phase(magnitude.shape) if start is None else start
    return phase.griffin_lim(magnitude, start, rep.n_fft, rep.hop, rep.griffin_lim_iters)


def fit(rep, crops, batch_size=16):
    """Returns `rep` with mean and std of the given training crops.  # [M, N] or [M, A, N] float"""
    unscaled = dataclasses.replace(rep, mean=np.float32(0), std=np.float32(1))
    encode = jax.jit(unscaled.encode)
    batches = [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]
    first, second, count = 0.0, 0.0, 0
    for batch in batches:
        features = np.asarray(encode(batch), np.float64)  # [B, F, T, C]
        first = first + features.sum(axis=(0, 2))
        second = second + (features**2).sum(axis=(0, 2))
        count += features.shape[0] * features.shape[2]
    axes = None if rep.standardize == "global" else ()
    mean = np.mean(first / count, axis=axes) * np.ones(first.shape)
    variance = np.mean(second / count, axis=axes) - mean**2
    std = np.sqrt(np.maximum(variance, 1e-4 * np.mean(variance) + 1e-12))  # empty bands stay finite
    mean, std = (a[None, :, None].astype(np.float32) for a in (mean, std))  # [1, F, 1, C]
    return dataclasses.replace(rep, mean=mean, std=std)


def to_dict(rep):
    """Plain numbers and lists, for JSON."""
    lists = {"mean": np.asarray(rep.mean).tolist(), "std": np.asarray(rep.std).tolist()}
    return dataclasses.asdict(rep) | lists


def from_dict(fields):
    """Inverse of `to_dict`, exact in float32."""
    arrays = {name: np.asarray(fields[name], np.float32) for name in ("mean", "std")}
    return Representation(**(fields | arrays))


KINDS = {
    "complex": (analyze_complex, synthesize_complex),
    "log_magnitude": (analyze_log_magnitude, synthesize_log_magnitude),
    "log_mel": (analyze_log_mel, synthesize_log_mel),
    "polar": (analyze_polar, synthesize_polar),
}

# The fields that each kind reads, beyond those that all read.
OPTIONS = {
    "complex": ("power",),
    "log_magnitude": ("floor_db", "griffin_lim_iters"),
    "log_mel": ("n_mels", "floor_db", "griffin_lim_iters"),
    "polar": ("floor_db", "griffin_lim_iters"),
}
