"""One sound made ready for training: decoded, mixed, resampled, trimmed, levelled, measured."""

import dataclasses
import io

import numpy as np
import soxr

from specdiff_jax.audio import files, numba_loops, quality_checks
from specdiff_jax.audio.fingerprint import fingerprint

MAX_SECONDS = 3 * 3600.0  # of one song
MAX_BYTES = 320_000_000  # of its samples, 2 h in mono at 22 kHz: workers.EXTRA_BYTES hold 4 copies
SILENCE_DB = -80.0  # a song whose loudest sample is below holds nothing to learn
TRIM_WINDOW = 0.05  # seconds
LOUDNESS_SECONDS = 600.0  # LUFS are measured over at most so much


@dataclasses.dataclass(frozen=True)
class AudioFormat:
    """How sounds are brought to one form."""

    sample_rate: int  # Hz
    channels: int = 1  # 1: the mean of all; 2: the first two, or the only one twice
    loudness: str = "as_is"  # as_is, peak, lufs
    level_db: float | None = None  # of the loudest sample in dBFS, or of the song in LUFS
    trim_db: float | None = None  # windows below this at either end are cut off


def decode_audio(audio, audio_format, start=None, end=None):
    """One song's samples and what was found out about it.

    Args:
      audio: a path, the bytes of a sound file, or (wave [channels, N], sample rate).
      start, end: seconds of it.

    Returns:
      pcm [N, A] int16, facts (`combine_blocks`, gain_db, tags), landmarks (`fingerprint`).

    Raises:
      ValueError: not usable; one line that says why.
    """
    sound = open_audio(audio, start, end)
    seconds = sound.claimed / sound.sample_rate
    size = 2 * audio_format.channels * audio_format.sample_rate * seconds
    if seconds > MAX_SECONDS or size > MAX_BYTES:
        hours = seconds / 3600
        raise ValueError(f"{hours:.1f} hours long; cut it, or list parts of it in a manifest")
    pcm, facts = resample_blocks(sound, audio_format)
    if not pcm.size or peak_level(pcm) < 10 ** (SILENCE_DB / 20):
        raise ValueError(f"silent: nothing above {SILENCE_DB:.0f} dB")
    if audio_format.trim_db is not None:
        pcm = trim_silence(pcm, audio_format.sample_rate, audio_format.trim_db)
    gain = loudness_gain(pcm, audio_format)
    if gain != 1.0:
        pcm = files.to_int16(pcm.astype(np.float32) * np.float32(gain / 32768))
    mono = pcm[:, 0] if audio_format.channels == 1 else pcm.mean(axis=1).astype(np.int16)
    facts |= {"gain_db": float(20 * np.log10(gain)), "tags": sound.tags}
    return pcm, facts, fingerprint(mono, audio_format.sample_rate)


def open_audio(audio, start, end):
    """Something that gives blocks [channels, n] and knows sample_rate and claimed."""
    if isinstance(audio, tuple):
        return ArraySound(*audio)
    return files.Sound(io.BytesIO(audio) if isinstance(audio, bytes) else audio, start, end)


@dataclasses.dataclass
class ArraySound:
    """Sound in memory that is read like a file."""

    wave: np.ndarray  # [channels, N]
    sample_rate: int
    tags = files.NO_TAGS

    @property
    def claimed(self):
        return self.wave.shape[1]

    requested = claimed

    def __iter__(self):
        for first in range(0, self.claimed, files.BLOCK):
            yield self.wave[:, first : first + files.BLOCK]


def resample_blocks(sound, audio_format):
    """pcm [N, A] int16 at the audio_format's rate and the facts of the sound at its own."""
    resampler = soxr.ResampleStream(
        sound.sample_rate,
        audio_format.sample_rate,
        audio_format.channels,
        dtype="float32",
        quality="HQ",
    )
    measured, parts = [], []
    for block in sound:
        measured.append(quality_checks.measure_block(block, sound.sample_rate))
        if measured[-1]["non_finite"]:
            raise ValueError(f"holds NaN or infinite samples in block {len(measured)}")
        mixed = mix_channels(block, audio_format.channels)
        if sound.sample_rate != audio_format.sample_rate:
            mixed = resampler.resample_chunk(mixed)
        parts.append(numba_loops.round_to_int16(mixed.reshape(-1)))
    if sound.sample_rate != audio_format.sample_rate:
        silence = np.zeros((0, audio_format.channels), np.float32)
        parts.append(
            numba_loops.round_to_int16(resampler.resample_chunk(silence, last=True).reshape(-1))
        )
    if not measured:
        raise ValueError("holds no samples")
    pcm = np.concatenate(parts).reshape(-1, audio_format.channels)
    return pcm, quality_checks.combine_blocks(measured, sound.requested)


def mix_channels(block, channels):
    """[any, n] float32 -> [n, channels] float32."""
    if channels == 1 and len(block) == 2:
        return numba_loops.average_pairs(block.T.reshape(-1))[:, None]
    if channels == 1:
        shares = np.full((len(block), 1), 1 / len(block), np.float32)
        return block.T @ shares  # mean() is slow
    chosen = block[:2] if len(block) > 1 else np.repeat(block, 2, axis=0)
    return np.ascontiguousarray(chosen.T)


def peak_level(pcm):
    """The loudest sample, full scale at one; without a copy of hours of sound."""
    return max(int(pcm.max()), -int(pcm.min())) / 32768


def trim_silence(pcm, sample_rate, trim_db):
    """pcm [N, A] without the silent windows at its ends."""
    window = round(TRIM_WINDOW * sample_rate)
    windows = (pcm[first : first + window] for first in range(0, len(pcm), window))
    loud = np.flatnonzero([peak_level(part) >= 10 ** (trim_db / 20) for part in windows])
    if not len(loud):
        raise ValueError(f"silent: nothing above data.trim_db={trim_db}")
    return pcm[loud[0] * window : (loud[-1] + 1) * window]


def loudness_gain(pcm, audio_format):
    """The factor that brings a song to its level, held back where its peak would clip."""
    if audio_format.loudness == "as_is":
        return 1.0
    loudest = peak_level(pcm)
    level = (
        20 * np.log10(loudest)
        if audio_format.loudness == "peak"
        else measure_lufs(pcm, audio_format.sample_rate)
    )
    if not np.isfinite(level):
        return 1.0
    return min(10 ** ((audio_format.level_db - level) / 20), 1 / loudest)


def measure_lufs(pcm, sample_rate):
    """Integrated loudness (ITU-R BS.1770-4) of pcm [N, A], of its middle where it is long."""
    import pyloudnorm  # scipy.signal is slow to import

    most = round(LOUDNESS_SECONDS * sample_rate)
    first = max(0, (len(pcm) - most) // 2)
    part = pcm[first : first + most].astype(np.float64) / 32768
    if len(part) < 0.4 * sample_rate:  # shorter than the standard's one block
        return -np.inf
    return pyloudnorm.Meter(sample_rate).integrated_loudness(part)


LOUDNESS = ("as_is", "peak", "lufs")
