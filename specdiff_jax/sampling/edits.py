"""Edits of real music: which part of a file is known, what is free, and how the result is pasted.

An edit is a known x_0, a mask of what may change, and the noise level to begin from. Wherever the
mask says no, the samples of the result are those of the file.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.ingest import Intake, ingest
from specdiff_jax.config import jsonl
from specdiff_jax.config.bounds import check_number
from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.diffusion import editing

SELECTORS = ("kind", "list")
PAIRS, TEXTS = ("seconds", "hertz"), ("kind", "file", "second_file")
NUMBERS = ("offset", "second_offset", "strength", "weight", "prefix_seconds")
FADE_OCTAVES = 0.05  # of its own frequency, how far the edge of a band fades, inside it


@dataclasses.dataclass(frozen=True)
class Edit:
    """One edit of a clip as long as the Representation that made it."""

    name: str
    known: np.ndarray  # x_0 [1, F, T, C]
    mask: np.ndarray  # [F, T], 1 where the model decides
    start: float  # the noise level t to begin from
    paste: Callable  # wave [A, N] of the model -> wave with everything known as it was
    settings: dict  # for the sidecar


def read_edits(config, rep):
    """All Edits that a config asks for; [] where it asks for none.

    Raises:
      ValueError: a field that is not used, is missing, or lies outside the clip.
    """
    section, shown = config.edit, config.sample.seconds
    if section.list is None:
        alone = set_fields(section)
        return [make_edit(alone, rep, "", shown)] if section.kind else refuse_unused_fields(section)
    if section.kind:
        raise ValueError("edit.kind and edit.list exclude each other; set one to None")
    refuse_unused_fields(section)

    def listed(number, fields):
        if "list" in fields:
            raise ValueError("is not a JSON object of one edit")
        return make_edit(fields, rep, f"{number:03d}-", shown)

    return jsonl.read_objects("edit.list", section.list, listed, "edit")


def refuse_unused_fields(section):
    """[] where no other field of the section is set."""
    for name, value in set_fields(section, *SELECTORS).items():
        raise ValueError(f"edit.{name}={value!r} is not used without edit.kind; set it to None")
    return []


def make_edit(fields, rep, prefix, shown=None):
    """One Edit from {kind, file, ...} of a clip whose first `shown` seconds are kept, all if None.

    Raises:
      ValueError: see `edits`.
    """
    fields = {name: value for name, value in fields.items() if value is not None}
    check_types(fields)
    last = max(fields.get("prefix_seconds", 0), fields.get("seconds", (0, 0))[1])
    if shown is not None and last > shown:
        raise ValueError(f"edit: {last} s lie outside the clip of sample.seconds={shown}")
    kind = fields.get("kind")
    maker = choose(KINDS, "edit.kind", kind)
    options = {name: value for name, value in fields.items() if name not in SELECTORS}
    made = call("edit.", functools.partial(maker, rep), options, f"edit.kind={kind!r}")
    stem = pathlib.Path(fields["file"]).stem
    return dataclasses.replace(made, name=f"{prefix}{kind}-{stem}", settings=dict(fields))


def check_types(fields):
    """Raises ValueError where JSON holds something else than an edit's field is."""
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    pair = lambda x: isinstance(x, list | tuple) and len(x) == 2 and all(map(number, x))
    text = lambda x: isinstance(x, str)
    kinds = ((NUMBERS, number, "a number"), (PAIRS, pair, "two numbers"), (TEXTS, text, "a text"))
    for names, fits, words in kinds:
        for name in names:
            if name in fields and not fits(fields[name]):
                raise ValueError(f"edit.{name}={fields[name]!r} is not {words}")
    for name in ("offset", "second_offset"):
        check_number(f"edit.{name}", fields.get(name), "at least 0")


def read_wave(rep, file, offset=0.0):
    """Up to a whole clip of a file from `offset` seconds.  # [A, N] float32, N <= rep.samples"""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"edit.file={str(file)!r}: there is no such file")
    try:
        pcm, *_ = ingest(str(file), Intake(rep.sample_rate, rep.channels), start=offset)
    except ValueError as error:
        raise ValueError(f"edit.file={str(file)!r}: {error}") from error
    return pcm[: rep.samples].T.astype(np.float32) / 32768


def read_clip(rep, file, offset):
    """A clip that fills the representation, or an error that says how long it is."""
    wave = read_wave(rep, file, offset)
    if wave.shape[1] < rep.samples:
        raise ValueError(
            f"edit.file={str(file)!r} has {wave.shape[1] / rep.sample_rate:.2f} s after "
            f"edit.offset={offset}, a clip {rep.samples / rep.sample_rate:.2f} s; "
            "choose a longer file or an earlier offset"
        )
    return wave


def encode_wave(rep, wave):
    """[A, N] -> [1, F, T, C]."""
    return np.asarray(rep.encode(jnp.asarray(wave[None])))


def make_variation(rep, file, strength, offset=0.0):
    """The file again, differently: noised to t = strength, denoised (Meng et al. 2021, SDEdit)."""
    check_strength(strength)
    known = encode_wave(rep, read_clip(rep, file, offset))
    return Edit("", known, np.ones(known.shape[1:3]), strength, lambda made: made, {})


def make_interpolation(rep, file, second_file, strength, weight=0.5, offset=0.0, second_offset=0.0):
    """Between two files: the arc from one to the other, at t = strength under one noise.

    (Ho et al. 2020, 4.3.) weight 0 and 1 are the variations of either file with that seed.
    """
    check_strength(strength)
    if not 0 <= weight <= 1:
        raise ValueError(f"edit.weight={weight} is not between 0 (file) and 1 (second_file)")
    first, second = (
        encode_wave(rep, read_clip(rep, *pair))
        for pair in ((file, offset), (second_file, second_offset))
    )
    known = editing.slerp(first, second, weight)
    return Edit("", known, np.ones(known.shape[1:3]), strength, lambda made: made, {})


def make_inpainting(rep, file, seconds=None, hertz=None, offset=0.0):
    """A time range (from, to), a band (low, high), or where both meet, is made anew."""
    if seconds is None and hertz is None:
        raise ValueError(
            "edit.kind='inpaint' needs edit.seconds=(from, to) or edit.hertz=(low, high)"
        )
    wave, length = read_clip(rep, file, offset), rep.samples / rep.sample_rate
    low, high = hertz or (0.0, rep.sample_rate / 2)
    first, last = seconds or (0.0, length)
    check_range("edit.seconds", first, last, length)
    check_range("edit.hertz", low, high, rep.sample_rate / 2)
    centres = np.arange(rep.frames) * rep.hop / rep.sample_rate
    frames = (centres >= first) & (centres <= last)
    bins = (rep.frequencies >= low) & (rep.frequencies <= high)
    if not bins.any() or (low > 0 and high < (1 + 4 * FADE_OCTAVES) * low):
        raise ValueError(f"edit.hertz={low, high} is too narrow; make it wider")
    if not frames.any() or last - first < 2 * fade_seconds(rep):
        least = 2 * fade_seconds(rep)
        raise ValueError(f"edit.seconds={first, last} is too short; at least {least:.3f} s")

    def paste(made):
        if hertz is not None:
            made = wave + filter_band(rep, made - wave, low, high)
        return crossfade(wave, made, first, last, rep) if seconds is not None else made

    mask = bins[:, None] & frames[None]
    return Edit("", encode_wave(rep, wave), mask.astype(float), 1.0, paste, {})


def make_continuation(rep, file, prefix_seconds, offset=0.0):
    """The file's first `prefix_seconds`, then what the model thinks comes next."""
    length = rep.samples / rep.sample_rate
    check_range("edit.prefix_seconds", 0.0, prefix_seconds, length)
    if prefix_seconds <= 2 * fade_seconds(rep):
        least = 2 * fade_seconds(rep)
        raise ValueError(f"edit.prefix_seconds={prefix_seconds} must be above {least:.3f} s")
    count = round(prefix_seconds * rep.sample_rate)
    wave = read_wave(rep, file, offset)[:, :count]
    if wave.shape[1] < count:
        raise ValueError(
            f"edit.prefix_seconds={prefix_seconds}: {file} is shorter after edit.offset={offset}"
        )
    border = prefix_seconds - fade_seconds(rep)  # the fade ends where the prefix does
    padded = np.pad(wave, ((0, 0), (0, rep.samples - count)))
    # Frames whose window looks past the prefix have seen silence that is not in the music.
    known = max(0, (count - rep.n_fft // 2) // rep.hop)
    mask = np.broadcast_to(np.arange(rep.frames) > known, (rep.shape[0], rep.frames))
    paste = lambda made: crossfade(padded, made, border, None, rep)
    return Edit("", encode_wave(rep, padded), mask.astype(float), 1.0, paste, {})


def fade_seconds(rep):
    """How long one sound turns into the other at the border of an edit, inside it."""
    return rep.n_fft / 2 / rep.sample_rate


def crossfade(wave, made, first, last, rep):
    """`wave` outside first..last seconds, `made` inside.  # [A, N] each"""
    time = np.arange(wave.shape[1]) / rep.sample_rate
    rise = (time - first) / fade_seconds(rep) if first > 0 else np.ones_like(time)
    fall = np.ones_like(time)
    if last is not None and last < time[-1]:
        fall = (last - time) / fade_seconds(rep)
    weight = np.clip(np.minimum(rise, fall), 0.0, 1.0).astype(np.float32)
    return np.where(weight > 0, wave + weight * (made - wave), wave)


def filter_band(rep, wave, low, high):
    """The part of [A, N] between two frequencies, and nothing of what lies outside them."""
    frequency = np.fft.rfftfreq(wave.shape[1], 1 / rep.sample_rate)
    edge = FADE_OCTAVES * low, FADE_OCTAVES * high
    rise = (frequency - low) / edge[0] if low > 0 else np.ones_like(frequency)
    fall = (high - frequency) / edge[1] if high < frequency[-1] else np.ones_like(frequency)
    weight = np.clip(np.minimum(rise, fall), 0.0, 1.0)
    return np.fft.irfft(np.fft.rfft(wave) * weight[None], wave.shape[1]).astype(np.float32)


def check_strength(strength):
    if not 0 < strength <= 1:
        raise ValueError(f"edit.strength={strength} is not above 0 and at most 1")


def check_range(name, first, last, length):
    """Raises ValueError where first..last is empty or leaves 0..length."""
    if not 0 <= first < last <= length + 1e-6:
        raise ValueError(f"{name}={first, last} is not a range within 0 to {length:.2f}")


KINDS = {
    "variation": make_variation,
    "interpolation": make_interpolation,
    "inpaint": make_inpainting,
    "continuation": make_continuation,
}
