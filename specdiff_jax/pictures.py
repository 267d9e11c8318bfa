"""Spectrograms to look at: level in dB over time and a logarithmic frequency axis."""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from specdiff_jax.audio.stft import stft

N_FFT, HOP = 2048, 256
LOWEST_HZ, RANGE_DB = 50.0, 80.0


def spectrogram(wave, sample_rate, title=""):
    """A wave [N] -> a matplotlib Figure."""
    spec = np.abs(np.asarray(stft(np.asarray(wave, np.float32)[None], N_FFT, HOP)[0]))  # [F, T]
    level = 20 * np.log10(np.maximum(spec / (N_FFT / 4), 1e-6))
    times = np.arange(level.shape[1]) * HOP / sample_rate
    frequencies = np.arange(level.shape[0]) * sample_rate / N_FFT
    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.pcolormesh(
        times, frequencies[1:], level[1:], vmin=-RANGE_DB, vmax=0, cmap="magma", shading="nearest"
    )
    axes.set(yscale="log", ylim=(LOWEST_HZ, sample_rate / 2), xlabel="s", ylabel="Hz", title=title)
    ticks = [tick for tick in (100, 200, 500, 1000, 2000, 5000, 10000) if tick < sample_rate / 2]
    axes.set_yticks(ticks, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
    axes.minorticks_off()
    return figure


def save_spectrogram(path, wave, sample_rate, title=""):
    """Writes the PNG and returns its pixels.  # [H, W, 3] uint8"""
    figure = spectrogram(wave, sample_rate, title)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
