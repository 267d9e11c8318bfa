"""What sound goes through on its way: changes that leave its tags what they are.

Each takes waves [M, N] or [M, A, N] float32 in [-1, 1] and their rate (Hz), and gives waves of the
same shape; numpy, on the host, the same on every call.
"""

import io

import numpy as np
import soundfile


def add_white_noise(waves, sample_rate, snr_db):
    """Adds white noise at a signal-to-noise ratio; silence stays silent."""
    level = np.sqrt(np.mean(waves**2, axis=-1, keepdims=True))
    noise = np.random.default_rng(0).standard_normal(waves.shape, np.float32)
    return waves + level * np.float32(10 ** (-snr_db / 20)) * noise


def apply_gain(waves, sample_rate, db):
    """Louder or quieter; what exceeds full scale is clipped."""
    return np.clip(waves * np.float32(10 ** (db / 20)), -1, 1)


def apply_low_pass(waves, sample_rate, hertz):
    """Butterworth's filter of order 8, forwards and backwards; nothing from Nyquist up."""
    from scipy import signal  # slow to import

    if 2 * hertz >= sample_rate:
        return waves
    sections = signal.butter(8, hertz, fs=sample_rate, output="sos")
    return signal.sosfiltfilt(sections, waves, axis=-1).astype(np.float32)


def code_mp3(waves, sample_rate, compression):
    """Through an mp3 coder and back; compression below 1, where 0 keeps most (libsndfile's)."""
    return map_waves(waves, lambda wave: code_mp3_wave(wave, sample_rate, compression))


def code_mp3_wave(wave, sample_rate, compression):
    """[N] or [A, N]; coders make whole frames of it, so the end is cut or filled with silence."""
    file = io.BytesIO()
    options = {"format": "MP3", "compression_level": compression, "bitrate_mode": "CONSTANT"}
    soundfile.write(file, wave.T, sample_rate, **options)
    file.seek(0)
    back = soundfile.read(file, dtype="float32")[0].T[..., : wave.shape[-1]]
    missing = [(0, 0)] * (wave.ndim - 1) + [(0, wave.shape[-1] - back.shape[-1])]
    return np.pad(back, missing)


def shift_pitch(waves, sample_rate, semitones):
    """Higher or lower at the same speed, by librosa's phase vocoder."""
    import librosa  # costs seconds

    shift = lambda wave: librosa.effects.pitch_shift(wave, sr=sample_rate, n_steps=semitones)
    return map_waves(waves, shift)


def map_waves(waves, change):
    return np.stack([change(wave) for wave in waves]).astype(np.float32)


CORRUPTIONS = {  # what a table of robustness shows
    "white noise, 20 dB": (add_white_noise, {"snr_db": 20.0}),
    "white noise, 10 dB": (add_white_noise, {"snr_db": 10.0}),
    "12 dB quieter": (apply_gain, {"db": -12.0}),
    "12 dB louder, clipped": (apply_gain, {"db": 12.0}),
    "low-pass, 4 kHz": (apply_low_pass, {"hertz": 4000.0}),
    "low-pass, 2 kHz": (apply_low_pass, {"hertz": 2000.0}),
    "mp3, few bits": (code_mp3, {"compression": 0.99}),
    "one semitone higher": (shift_pitch, {"semitones": 1.0}),
    "two semitones lower": (shift_pitch, {"semitones": -2.0}),
}
