"""Random changes of a wave that leave it music, pure and jitted with the train step.

Waves are [B, A, N] float32 in [-1, 1] with A = 1 or 2 channels. Every item of the batch draws its
own strength, which its channels share; a strength of zero returns the input bit for bit.
"""

import math
import zlib

import jax
import jax.numpy as jnp

GRID = 2**14  # speeds are multiples of 1 / GRID: 0.1 cent, and int32 then holds exact positions
REACH = 16  # samples on either side that interpolation reads
EDGE = 0.9  # a low-pass falls from one to zero between EDGE * cut-off and the cut-off


def draw_uniform(key, batch, low, high):
    """A number in [low, high) for each item, exactly `low` where they are equal.  # [B, 1, 1]"""
    if low == high:
        return jnp.full((batch, 1, 1), low, jnp.float32)
    return jax.random.uniform(key, (batch, 1, 1), minval=low, maxval=high)


def rms(wave):
    """Root mean square of each item, over its channels.  # [B, A, N] -> [B, 1, 1]"""
    return jnp.sqrt(jnp.mean(wave**2, axis=(1, 2), keepdims=True))


def draw_speeds(key, batch, semitones):
    """Speeds in units of 1 / GRID, uniform in pitch within +-semitones.  # [B, 1, 1] int32"""
    octaves = draw_uniform(key, batch, -semitones / 12, semitones / 12)
    fastest = round(GRID * 2 ** (semitones / 12))
    return jnp.minimum(jnp.round(GRID * 2**octaves).astype(jnp.int32), fastest)


def speed(wave, key, semitones, samples):
    """Plays faster and higher, or slower and lower, from the crop's first sample on.

    Band-limited interpolation (Smith & Gossett 1984): a sinc under a Hann window, its cut-off
    lowered to the new Nyquist frequency where the wave is sped up. Silence lies beyond both ends.

    Args:
      wave: [B, A, M] with M >= `samples_needed`.
      semitones: largest change of pitch either way, below 36.

    Returns:
      [B, A, samples].
    """
    rate = draw_speeds(key, len(wave), semitones)
    n = jnp.arange(samples)[None, None]
    part = n % GRID * rate + GRID // 2  # float32 positions would be 1/32 of a sample off at 2**18
    nearest = n // GRID * rate + part // GRID + REACH  # [B, 1, N], in `padded`
    offset = part % GRID / GRID - 0.5  # from the nearest sample, in [-1/2, 1/2)
    cutoff = jnp.minimum(1.0, GRID / rate)  # over the Nyquist frequency
    padded = jnp.pad(wave, ((0, 0), (0, 0), (REACH, REACH)))

    def add_tap(index, total):
        distance = offset - (index - REACH)
        window = jnp.cos(jnp.pi / (2 * REACH + 1) * distance) ** 2
        weight = cutoff * jnp.sinc(cutoff * distance) * window  # [B, 1, N]
        at = nearest + (index - REACH)
        return total + weight * jnp.take_along_axis(padded, at, axis=-1, mode="clip")

    start = jnp.zeros((*wave.shape[:2], samples))
    resampled = jax.lax.fori_loop(0, 2 * REACH + 1, add_tap, start)
    return jnp.where(rate == GRID, wave[..., :samples], resampled)


def samples_needed(samples, settings):
    """Input samples that `augment` needs to return `samples`: more where it may speed up."""
    if settings.get("speed") is None:
        return samples
    fastest = round(GRID * 2 ** (settings["speed"]["semitones"] / 12))
    return math.ceil((samples - 1) * fastest / GRID) + 1


def time_roll(wave, key, fraction):
    """Starts anywhere in the first `fraction` of the crop; what came before follows its end."""
    samples = wave.shape[-1]
    shift = jax.random.randint(key, (len(wave), 1, 1), 0, max(1, round(fraction * samples)))
    source = (jnp.arange(samples)[None, None] + shift) % samples  # [B, 1, N]
    return jnp.take_along_axis(wave, source, axis=-1, mode="clip")


def swap(wave, key, probability):
    """Exchanges left and right.  # [B, 2, N]"""
    chosen = jax.random.bernoulli(key, probability, (len(wave), 1, 1))
    return jnp.where(chosen, wave[:, ::-1], wave)


def polarity(wave, key, probability):
    """Turns the whole item upside down, which is not heard."""
    chosen = jax.random.bernoulli(key, probability, (len(wave), 1, 1))
    return jnp.where(chosen, -wave, wave)


def low_pass(wave, key, min_hz, max_hz, sample_rate):
    """Removes all above a cut-off that is uniform in its logarithm; from Nyquist up, nothing.

    A product with half a cosine's edge over the crop's spectrum, so the crop's two ends meet.
    """
    cutoff = jnp.exp(draw_uniform(key, len(wave), math.log(min_hz), math.log(max_hz)))  # [B, 1, 1]
    samples = wave.shape[-1]
    hertz = jnp.fft.rfftfreq(samples, 1 / sample_rate)[None, None]
    fall = jnp.clip((hertz / cutoff - EDGE) / (1 - EDGE), 0.0, 1.0)  # 0 passes, 1 stops
    spectrum = jnp.fft.rfft(wave) * (0.5 + 0.5 * jnp.cos(jnp.pi * fall))
    filtered = jnp.fft.irfft(spectrum, n=samples)
    # exp(log(x)) may round to just below x: a cut-off this near Nyquist counts as there.
    return jnp.where(cutoff > 0.49999 * sample_rate, wave, filtered)


def mix_up(wave, key, max_weight):
    """Adds the batch's previous item with a weight uniform in [0, max_weight].

    (1 - w) x + w y over sqrt((1 - w)^2 + w^2): energies of unrelated sounds add, so this keeps
    the level of equally loud ones (Tokozume, Ushiku & Harada 2018, section 3.2), where mixup's
    sum (Zhang et al. 2018) loses up to 3 dB. Peaks may exceed the louder one's by up to 3 dB.
    """
    weight = draw_uniform(key, len(wave), 0.0, max_weight)
    mixed = (1 - weight) * wave + weight * jnp.roll(wave, 1, axis=0)
    return mixed / jnp.sqrt((1 - weight) ** 2 + weight**2)


def noise(wave, key, min_snr_db, max_snr_db):
    """Adds white noise, each channel its own, at a ratio uniform in dB; silence stays silent."""
    snr_key, noise_key = jax.random.split(key)
    snr_db = draw_uniform(snr_key, len(wave), min_snr_db, max_snr_db)
    return wave + rms(wave) * 10 ** (-snr_db / 20) * jax.random.normal(noise_key, wave.shape)


def gain(wave, key, db):
    """Changes the level by a number uniform in +-db."""
    return wave * 10 ** (draw_uniform(key, len(wave), -db, db) / 20)


def augment(wave, key, settings, samples):
    """Applies the augmentations that are set, in the order of AUGMENTATIONS.

    Each draws from the key folded with its own name, so setting one never changes another's
    random numbers.

    Args:
      wave: [B, A, M] with M >= samples_needed(samples, settings).
      key: one JAX key; all randomness of the call comes from it.
      settings: name in AUGMENTATIONS -> dict of that function's parameters, or None for off.
      samples: N, the length to return; what is left of M is cut off.

    Returns:
      [B, A, N].
    """
    if unknown := set(settings) - set(AUGMENTATIONS):
        raise ValueError(f"{sorted(unknown)} are not among {', '.join(AUGMENTATIONS)}")
    needed = samples_needed(samples, settings)
    if wave.shape[-1] < needed:
        raise ValueError(f"{wave.shape[-1]} samples are too few for {samples}: {needed} needed")
    if settings.get("speed") is None:
        wave = wave[..., :samples]
    for name, change in AUGMENTATIONS.items():
        if settings.get(name) is None:
            continue
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        extra = {"samples": samples} if name == "speed" else {}
        wave = change(wave, own_key, **settings[name], **extra)
    return wave


def spec_augment(x_0, key, bands, band_width, spans, span_width):
    """Sets random bands and spans of x_0 to 0, its mean once standardized (Park et al. 2019).

    For classifiers: a diffusion model would learn the holes.

    Args:
      x_0: [B, F, T, C].
      bands: masks over frequency, each of 0 to `band_width` <= F bins.
      spans: masks over time, each of 0 to `span_width` <= T frames.
    """
    band_key, span_key = jax.random.split(key)
    batch, bins, frames, _ = x_0.shape
    hidden_bins = draw_masks(band_key, batch, bins, bands, band_width)[:, :, None, None]
    hidden_frames = draw_masks(span_key, batch, frames, spans, span_width)[:, None, :, None]
    return jnp.where(hidden_bins | hidden_frames, 0.0, x_0)


def draw_masks(key, batch, size, count, width):
    """The union of `count` intervals of 0 to `width` cells, anywhere in `size`.  # [B, size]"""
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (batch, count, 1), 0, width + 1)
    starts = jax.random.randint(start_key, (batch, count, 1), 0, size - widths + 1)
    cells = jnp.arange(size)[None, None]
    return ((cells >= starts) & (cells < starts + widths)).any(axis=1)


# In the order they are applied: `speed` cuts to length; `noise` comes after `low_pass` and
# `mix_up`, so the ratio it draws is that of the result; `gain` scales everything.
AUGMENTATIONS = {
    "speed": speed,
    "time_roll": time_roll,
    "swap": swap,
    "polarity": polarity,
    "low_pass": low_pass,
    "mix_up": mix_up,
    "noise": noise,
    "gain": gain,
}
