"""Edits of real music: what of a file is known, what the model generates, how both are joined.

An edit is a known x_0, a mask of what may change, and the noise level to start from. Outside the
mask the samples of the result are those of the file.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from specdiff_jax.audio.decode import AudioFormat, decode_audio
from specdiff_jax.config import jsonl
from specdiff_jax.config.bounds import check_number
from specdiff_jax.config.fields import call, choose, set_fields
from specdiff_jax.diffusion import editing

SELECTORS = ("kind", "list")
PAIRS, TEXTS = ("seconds", "hertz"), ("kind", "file", "second_file")
NUMBERS = ("offset", "second_offset", "strength", "weight", "prefix_seconds")
FADE_OCTAVES = 0.05  # width of the fade at an edge of a band, as a fraction of its frequency


@dataclasses.dataclass(frozen=True)
class Edit:
    """One edit of a clip as long as the Representation that it was encoded with."""

    name: str
    known: np.ndarray  # x_0 [1, F, T, C]
    mask: np.ndarray  # [F, T], 1 where the model generates
    start: float  # the noise level t to start from
    paste: Callable  # generated wave [A, N] -> the wave with every known sample restored
    settings: dict  # for the sidecar


def read_edits(config, rep):
    """Return all Edits of a config, [] where it has none.

    Raises:
      ValueError: a field that is not used, is missing, or lies outside the clip.
    """
    section, shown = config.edit, config.sample.seconds
    if section.list is None:
        fields = set_fields(section)
        return [make_edit(fields, rep, "", shown)] if section.kind else refuse_unused(section)
    if section.kind:
        raise ValueError("edit.kind and edit.list exclude each other; set one to None")
    refuse_unused(section)

    def parse_line(number, fields):
        if "list" in fields:
            raise ValueError("is not a JSON object of one edit")
        return make_edit(fields, rep, f"{number:03d}-", shown)

    return jsonl.read_objects("edit.list", section.list, parse_line, "edit")


def refuse_unused(section):
    """Return [], or raise ValueError where a field is set that needs edit.kind."""
    for name, value in set_fields(section, *SELECTORS).items():
        raise ValueError(f"edit.{name}={value!r} is not used without edit.kind; set it to None")
    return []


def make_edit(fields, rep, prefix, shown=None):
    """Return the Edit of {kind, file, ...}.

    Args:
      prefix: of its name.
      shown: seconds of the clip that are kept, from its start; all if None.

    Raises:
      ValueError: see `read_edits`.
    """
    fields = {name: value for name, value in fields.items() if value is not None}
    check_types(fields)
    last = max(fields.get("prefix_seconds", 0), fields.get("seconds", (0, 0))[1])
    if shown is not None and last > shown:
        raise ValueError(f"edit: {last} s lie outside the clip of sample.seconds={shown}")
    kind = fields.get("kind")
    make = functools.partial(choose(KINDS, "edit.kind", kind), rep)
    options = {name: value for name, value in fields.items() if name not in SELECTORS}
    edit = call("edit.", make, options, f"edit.kind={kind!r}")
    stem = pathlib.Path(fields["file"]).stem
    return dataclasses.replace(edit, name=f"{prefix}{kind}-{stem}", settings=dict(fields))


def check_types(fields):
    """Raise ValueError where JSON holds another type than an edit's field has."""
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    pair = lambda x: isinstance(x, list | tuple) and len(x) == 2 and all(map(number, x))
    text = lambda x: isinstance(x, str)
    kinds = ((NUMBERS, number, "a number"), (PAIRS, pair, "two numbers"), (TEXTS, text, "a text"))
    for names, is_valid, expected in kinds:
        for name in names:
            if name in fields and not is_valid(fields[name]):
                raise ValueError(f"edit.{name}={fields[name]!r} is not {expected}")
    for name in ("offset", "second_offset"):
        check_number(f"edit.{name}", fields.get(name), "at least 0")


def read_wave(rep, file, offset=0.0):
    """Return up to a clip of a file from `offset` seconds.  # [A, N] float32, N <= rep.samples"""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"edit.file={str(file)!r}: there is no such file")
    try:
        pcm, *_ = decode_audio(str(file), AudioFormat(rep.sample_rate, rep.channels), start=offset)
    except ValueError as error:
        raise ValueError(f"edit.file={str(file)!r}: {error}") from error
    return pcm[: rep.samples].T.astype(np.float32) / 32768


def read_clip(rep, file, offset):
    """Return a clip that fills the representation; raise ValueError with its length if shorter."""
    wave = read_wave(rep, file, offset)
    if wave.shape[1] < rep.samples:
        raise ValueError(
            f"edit.file={str(file)!r} has {wave.shape[1] / rep.sample_rate:.2f} s after "
            f"edit.offset={offset}, a clip {rep.samples / rep.sample_rate:.2f} s; "
            "choose a longer file or an earlier offset"
        )
    return wave


def encode_wave(rep, wave):
    """Return x_0 of one wave [A, N].  # [1, F, T, C]"""
    return np.asarray(rep.encode(jnp.asarray(wave[None])))


def make_variation(rep, file, strength, offset=0.0):
    """Return the Edit that noises a file to t = strength and denoises it (SDEdit, Meng 2021)."""
    check_strength(strength)
    known = encode_wave(rep, read_clip(rep, file, offset))
    return Edit("", known, np.ones(known.shape[1:3]), strength, lambda wave: wave, {})


def make_interpolation(rep, file, second_file, strength, weight=0.5, offset=0.0, second_offset=0.0):
    """Return the Edit between two files: their slerp, noised to t = strength (Ho 2020, 4.3).

    Weight 0 and 1 give the variations of either file under the same noise.
    """
    check_strength(strength)
    if not 0 <= weight <= 1:
        raise ValueError(f"edit.weight={weight} is not between 0 (file) and 1 (second_file)")
    first = encode_wave(rep, read_clip(rep, file, offset))
    second = encode_wave(rep, read_clip(rep, second_file, second_offset))
    known = editing.slerp(first, second, weight)
    return Edit("", known, np.ones(known.shape[1:3]), strength, lambda wave: wave, {})


def make_inpainting(rep, file, seconds=None, hertz=None, offset=0.0):
    """Return the Edit of a time range (from, to), a band (low, high), or their intersection."""
    if seconds is None and hertz is None:
        raise ValueError(
            "edit.kind='inpaint' needs edit.seconds=(from, to) or edit.hertz=(low, high)"
        )
    original, length = read_clip(rep, file, offset), rep.samples / rep.sample_rate
    low, high = hertz or (0.0, rep.sample_rate / 2)
    first, last = seconds or (0.0, length)
    check_range("edit.seconds", first, last, length)
    check_range("edit.hertz", low, high, rep.sample_rate / 2)
    centers = np.arange(rep.frames) * rep.hop / rep.sample_rate
    frames = (centers >= first) & (centers <= last)
    bins = (rep.frequencies >= low) & (rep.frequencies <= high)
    if not bins.any() or (low > 0 and high < (1 + 4 * FADE_OCTAVES) * low):
        raise ValueError(f"edit.hertz={low, high} is too narrow; make it wider")
    if not frames.any() or last - first < 2 * fade_seconds(rep):
        least = 2 * fade_seconds(rep)
        raise ValueError(f"edit.seconds={first, last} is too short; at least {least:.3f} s")

    def paste(wave):
        if hertz is not None:
            wave = original + filter_band(rep, wave - original, low, high)
        return crossfade(original, wave, first, last, rep) if seconds is not None else wave

    mask = bins[:, None] & frames[None]
    return Edit("", encode_wave(rep, original), mask.astype(float), 1.0, paste, {})


def make_continuation(rep, file, prefix_seconds, offset=0.0):
    """Return the Edit that keeps a file's first `prefix_seconds` and generates what follows."""
    length = rep.samples / rep.sample_rate
    check_range("edit.prefix_seconds", 0.0, prefix_seconds, length)
    if prefix_seconds <= 2 * fade_seconds(rep):
        least = 2 * fade_seconds(rep)
        raise ValueError(f"edit.prefix_seconds={prefix_seconds} must be above {least:.3f} s")
    count = round(prefix_seconds * rep.sample_rate)
    prefix = read_wave(rep, file, offset)[:, :count]
    if prefix.shape[1] < count:
        raise ValueError(
            f"edit.prefix_seconds={prefix_seconds}: {file} is shorter after edit.offset={offset}"
        )
    border = prefix_seconds - fade_seconds(rep)  # the fade ends where the prefix does
    padded = np.pad(prefix, ((0, 0), (0, rep.samples - count)))
    # A frame whose window reaches past the prefix contains silence that is not in the music.
    last_known = max(0, (count - rep.n_fft // 2) // rep.hop)
    mask = np.broadcast_to(np.arange(rep.frames) > last_known, (rep.shape[0], rep.frames))
    paste = lambda wave: crossfade(padded, wave, border, None, rep)
    return Edit("", encode_wave(rep, padded), mask.astype(float), 1.0, paste, {})


def fade_seconds(rep):
    """Return the length of the crossfade at the border of an edit, which lies inside the edit."""
    return rep.n_fft / 2 / rep.sample_rate


def crossfade(original, generated, first, last, rep):
    """Return `original` outside first..last seconds, `generated` inside.  # [A, N]"""
    time = np.arange(original.shape[1]) / rep.sample_rate
    rise = (time - first) / fade_seconds(rep) if first > 0 else np.ones_like(time)
    fall = np.ones_like(time)
    if last is not None and last < time[-1]:
        fall = (last - time) / fade_seconds(rep)
    weight = np.clip(np.minimum(rise, fall), 0.0, 1.0).astype(np.float32)
    return np.where(weight > 0, original + weight * (generated - original), original)


def filter_band(rep, wave, low, high):
    """Return the part of [A, N] between two frequencies, exactly 0 outside them.  # [A, N]"""
    frequency = np.fft.rfftfreq(wave.shape[1], 1 / rep.sample_rate)
    edge = FADE_OCTAVES * low, FADE_OCTAVES * high
    rise = (frequency - low) / edge[0] if low > 0 else np.ones_like(frequency)
    fall = (high - frequency) / edge[1] if high < frequency[-1] else np.ones_like(frequency)
    weight = np.clip(np.minimum(rise, fall), 0.0, 1.0)
    return np.fft.irfft(np.fft.rfft(wave) * weight[None], wave.shape[1]).astype(np.float32)


def check_strength(strength):
    """Raise ValueError where a noise level to start from is not within (0, 1]."""
    if not 0 < strength <= 1:
        raise ValueError(f"edit.strength={strength} is not above 0 and at most 1")


def check_range(name, first, last, length):
    """Raise ValueError where first..last is empty or leaves 0..length."""
    if not 0 <= first < last <= length + 1e-6:
        raise ValueError(f"{name}={first, last} is not a range within 0 to {length:.2f}")


KINDS = {
    "variation": make_variation,
    "interpolation": make_interpolation,
    "inpaint": make_inpainting,
    "continuation": make_continuation,
}
