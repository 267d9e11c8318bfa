"""Pictures of spectrograms: level in dB over time and a logarithmic frequency axis."""

import io
import pathlib

import numpy as np

from specdiff_jax.audio.stft import stft

N_FFT, HOP = 2048, 256
LOWEST_HZ, RANGE_DB = 50.0, 80.0


def draw_spectrogram(axes, wave, sample_rate, title=""):
    """Draw a wave [N], or the mean of [A, N], on matplotlib axes."""
    wave = np.atleast_2d(np.asarray(wave, np.float32)).mean(axis=0, keepdims=True)
    spec = np.abs(np.asarray(stft(wave, N_FFT, HOP)[0]))  # [F, T]
    level = 20 * np.log10(np.maximum(spec / (N_FFT / 4), 1e-6))
    times = np.arange(level.shape[1]) * HOP / sample_rate
    hertz = np.arange(1, level.shape[0]) * sample_rate / N_FFT  # 0 Hz has no place on a log axis
    style = {"vmin": -RANGE_DB, "vmax": 0, "cmap": "magma", "shading": "nearest"}
    axes.pcolormesh(times, hertz, level[1:], **style)
    axes.set(yscale="log", ylim=(LOWEST_HZ, sample_rate / 2), xlabel="s", ylabel="Hz", title=title)
    ticks = [hz for hz in (100, 200, 500, 1000, 2000, 5000, 10000) if hz < sample_rate / 2]
    axes.set_yticks(ticks, [f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in ticks])
    axes.minorticks_off()


def spectrogram_figure(wave, sample_rate, title=""):
    """Return a figure of a wave with its canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    draw_spectrogram(figure.subplots(), wave, sample_rate, title)
    return figure


def save_spectrogram(path, wave, sample_rate, title=""):
    """Write the PNG of a wave and return its pixels.  # [H, W, 3] uint8"""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = spectrogram_figure(wave, sample_rate, title)
    figure.savefig(path)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def spectrogram_png(wave, sample_rate):
    """Return the bytes of the PNG of a wave."""
    buffer = io.BytesIO()
    spectrogram_figure(wave, sample_rate).savefig(buffer, format="png")
    return buffer.getvalue()
