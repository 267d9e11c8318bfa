"""Sound files in, sound files out; libsndfile decodes, soxr resamples."""

import pathlib

import numpy as np
import soundfile
import soxr

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


def decode(file):
    """Reads a sound file (a path or a binary file object).

    Returns:
      wave [channels, N] float32 and its sample rate in Hz.

    Raises:
      ValueError: not a sound file, empty, not finite, or shorter than its header claims
        (libsndfile decodes truncated files short, without an error).
    """
    name = getattr(file, "name", file)
    try:
        with soundfile.SoundFile(file) as sound:
            claimed = sound.frames
            wave = sound.read(dtype="float32", always_2d=True).T
            sample_rate = sound.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"{name}: not readable as sound ({error})") from error
    if not wave.size:
        raise ValueError(f"{name}: holds no samples")
    if wave.shape[1] < 0.99 * claimed:
        raise ValueError(f"{name}: truncated, {wave.shape[1]} of {claimed} samples decode")
    if not np.isfinite(wave).all():
        raise ValueError(f"{name}: holds NaN or infinite samples")
    return wave, sample_rate


def mono(wave, sample_rate, target_rate):
    """[channels, N] at `sample_rate` -> [M] float32 at `target_rate`, channels averaged."""
    wave = wave.mean(axis=0, dtype=np.float32)
    if sample_rate == target_rate:
        return wave
    return soxr.resample(wave, sample_rate, target_rate, quality="HQ").astype(np.float32)


def to_int16(wave):
    """[-1, 1) float -> int16, rounded; louder samples clip at full scale."""
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)


def write(path, wave, sample_rate):
    """Writes [N] float32 as 16-bit PCM WAV, clipped at full scale, never rescaled."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, to_int16(np.asarray(wave)), sample_rate, subtype="PCM_16")


def find(folder):
    """All sound files under `folder`, sorted; [] where there are none."""
    files = pathlib.Path(folder).rglob("*")
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())
