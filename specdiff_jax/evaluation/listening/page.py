"""A blind listening test: one offline listening.html from sets of clips, with a masked key.

Two kinds of trial. "mushra" rates all stimuli of a trial from 0 to 100, the hidden real reference
and the hidden anchor (the reference low-passed) among them, after ITU-R BS.1534-3. In "abx" the
listener chooses which of two clips a third one repeats. The page shuffles, plays and saves;
results.py analyzes.

Neither names, sizes nor order in the page identify the sets; clips and key are masked. The mask is
no encryption: `read_listening_page` removes it.
"""

import base64
import hashlib
import itertools
import json
import math
import pathlib
import re

import numpy as np

from specdiff_jax.audio import files
from specdiff_jax.reports import html

FORMAT = "specdiff_jax listening 1"  # of the page's result files
TEMPLATE, SCRIPT = "listening_test.html", "listening_test.js"
TARGET_LUFS = -23.0  # as loud as broadcasting, EBU R 128
PEAK_DB = -1.0  # dBFS, what no sample may exceed
MIN_LUFS = -35.0  # a clip whose peak allows only less has a click
ANCHOR_HZ = 3500  # BS.1534-3: flat below, at least 25 dB down at 4 kHz and 50 dB at 4.5 kHz
MIN_SECONDS = 0.5  # of a clip
FADE = 0.01  # seconds at both ends, against clicks
MAX_STIMULI = 9  # that number keys reach
QUESTIONS = {
    True: "How close is each clip to the reference?",
    False: "How much does each clip sound like real, recorded music?",
}
KINDS = ("mushra", "abx")


def write_listening_page(path, sets, reference=(), kinds=("mushra",), matched=False, **options):
    """Write the page and return its facts.

    Args:
      path: of the HTML file.
      sets: {name: [WAV path, ...]}, two or more, equally many clips; equal places belong together.
      reference: WAV paths of real music, one a place; "mushra" needs them.
      kinds: "mushra", "abx" or both, in the order in which the listener meets them.
      matched: the reference at a place is the very clip that the sets reconstruct; it is then also
        played openly. False for generated music, which has no counterpart.
      options: seconds=10.0 (the longest clip), seed=0 (of the ids), max_bytes=100e6 and
        title="Listening test".

    Returns:
      {"path", "test": id of the page, "trials", "clips", "seconds", "loudness": LUFS,
      "silent": names of clips too quiet to be matched}

    Raises:
      ValueError: one line: sets that do not fit together, or a file that cannot be used.
    """
    title, max_bytes = options.pop("title", "Listening test"), options.pop("max_bytes", 100e6)
    seconds, seed = options.pop("seconds", 10.0), options.pop("seed", 0)
    if options:
        raise ValueError(f"unknown options: {', '.join(options)}")
    check_sets(sets, reference, kinds, matched)
    sources = list_clips(sets, reference, kinds, matched)
    waves, rate = read_waves([file for *_, file in sources], seconds)
    for place, (role, *_) in enumerate(sources):
        if role == "anchor":
            waves[place] = low_pass(waves[place], rate)
    waves, target, silent = match_loudness(waves, rate, [str(file) for *_, file in sources])
    test = assemble_test(sources, waves, rate, kinds, list(sets), seed)
    page = render_test({**test, "matched": matched, "question": QUESTIONS[matched]}, title)
    if len(page) > max_bytes:
        raise ValueError(
            f"{path}: {len(page) / 1e6:.0f} MB of sound are more than {max_bytes / 1e6:.0f}: "
            "take fewer or shorter clips"
        )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"trials": len(test["trials"]), "clips": len(waves), "seconds": waves.shape[-1] / rate}
    facts |= {"test": test["test"], "loudness": target, "silent": silent}
    return {"path": html.write_page(path, page), **facts}


def check_sets(sets, reference, kinds, matched):
    """Raise ValueError where the sets, the reference and the kinds of trial do not fit together."""
    counts = {name: len(paths) for name, paths in sets.items()}
    if len(sets) < 2 or len(set(counts.values())) != 1 or not all(counts.values()):
        raise ValueError(f"two or more sets of equally many clips are needed, not {counts}")
    if not kinds or len(set(kinds)) != len(kinds) or set(kinds) - set(KINDS):
        raise ValueError(f"kinds must be of {KINDS}, each once, not {tuple(kinds)}")
    count = next(iter(counts.values()))
    if "mushra" in kinds and len(reference) != count:
        raise ValueError(f"{count} clips a set need {count} real references, not {len(reference)}")
    if "mushra" in kinds and len(sets) + 2 > MAX_STIMULI:
        raise ValueError(f"at most {MAX_STIMULI - 2} sets fit into one trial, not {len(sets)}")


def list_clips(sets, reference, kinds, matched):
    """Return [(role, set number, place, path), ...] of every clip that the page needs."""
    clips = [
        ("set", number, place, path)
        for number, paths in enumerate(sets.values())
        for place, path in enumerate(paths)
    ]
    if "mushra" in kinds:
        # Without an open reference a trial must not hold the same music twice:
        # the pair would reveal the set.
        shift = 0 if matched else 1
        for place, path in enumerate(reference):
            clips.append(("reference", None, place, path))
            clips.append(("anchor", None, place, reference[(place + shift) % len(reference)]))
            if matched:
                clips.append(("open", None, place, path))
    return clips


# ---- sound


def read_waves(paths, seconds):
    """Return ([clips, C, N] float64, Hz): the highest rate, stereo if all are, the shortest N."""
    import soxr

    sounds = {path: read_wave(path) for path in paths}
    rate = max(rate for _, rate in sounds.values())
    stereo = all(len(wave) == 2 for wave, _ in sounds.values())
    for path, (wave, own) in sounds.items():
        wave = wave if stereo else wave.mean(axis=0, keepdims=True)
        sounds[path] = wave if own == rate else soxr.resample(wave.T, own, rate).T
    shortest = min(sounds, key=lambda path: sounds[path].shape[-1])
    length = min(sounds[shortest].shape[-1], round(seconds * rate))
    if length < MIN_SECONDS * rate:
        raise ValueError(f"{shortest}: {length / rate:.2f} s are too short to rate")
    ramp = np.arange(length) / (FADE * rate)
    fade = np.clip(np.minimum(ramp, ramp[::-1]), 0, 1)
    return np.stack([sounds[path][:, :length] * fade for path in paths]), rate


def read_wave(path):
    """Return (the whole file [C, N] float64, its sample rate)"""
    try:
        sound = files.Sound(str(path))
        wave = np.concatenate(list(sound), axis=-1).astype(np.float64)
        if not np.isfinite(wave).all():
            raise ValueError("holds samples that are not numbers")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return wave, sound.sample_rate


def low_pass(wave, rate):
    """Return the anchor [C, N]: linear phase, flat to ANCHOR_HZ (or a quarter of a low rate).

    At least 60 dB down from 8/7 of it: 4 kHz, where BS.1534-3 requires 25 dB.
    """
    import scipy.signal

    edge = min(ANCHOR_HZ, rate / 4)
    taps, beta = scipy.signal.kaiserord(62, (edge / 7) / (rate / 2))
    kernel = scipy.signal.firwin(taps | 1, edge * 15 / 14, window=("kaiser", beta), fs=rate)
    # mode="same" keeps the first input's length; a clip of MIN_SECONDS is longer than the kernel.
    return scipy.signal.oaconvolve(wave, kernel[None], mode="same", axes=-1)


def measure_loudness(wave, rate):
    """Return the LUFS of [C, N] (ITU-R BS.1770-4); -inf below its absolute gate of -70."""
    import pyloudnorm

    return float(pyloudnorm.Meter(rate).integrated_loudness(wave.T))


def match_loudness(waves, rate, names):
    """Return (waves of one loudness, that loudness, names of silent clips, which keep theirs).

    The loudness is TARGET_LUFS, or as much less as keeps every peak below PEAK_DB.
    """
    levels = np.array([measure_loudness(wave, rate) for wave in waves])
    audible = np.isfinite(levels)
    silent = sorted({name for name, one in zip(names, audible, strict=True) if not one})
    if not audible.any():
        raise ValueError(f"{names[0]}: silent, as is every other clip: nothing to listen to")
    # Twice: a gain shifts quiet parts across the absolute gate of the measure.
    for _ in range(2):
        levels[audible] = [measure_loudness(wave, rate) for wave in waves[audible]]
        peaks = 20 * np.log10(np.abs(waves[audible]).max(axis=(1, 2)))
        room = levels[audible] - peaks + PEAK_DB  # the loudness at which the peak is reached
        target = min(TARGET_LUFS, room.min())
        if target < MIN_LUFS:
            name = np.array(names)[audible][room.argmin()]
            raise ValueError(
                f"{name}: peaks {-room.min():.0f} dB over its loudness: remove its click"
            )
        gain = 10 ** ((target - levels[audible]) / 20)
        waves[audible] *= gain[:, None, None]
    return waves, float(target), silent


# ---- the page


def assemble_test(sources, waves, rate, kinds, names, seed):
    """Return the page's data: clips and trials under opaque ids in random order, masked key."""
    rng = np.random.default_rng(seed)
    ids = [f"{number:08x}" for number in rng.choice(2**32, len(sources) + 1, replace=False)]
    salt, *ids = ids
    at = {source[:3]: key for source, key in zip(sources, ids, strict=True)}
    key = {"sets": names, "clips": {one: list(source) for source, one in at.items()}}
    pcm = {
        one: mask_base64(np.ascontiguousarray(files.to_int16(wave).T, "<i2").tobytes(), one)
        for one, wave in zip(ids, waves, strict=True)
    }
    digest = hashlib.sha256(json.dumps([key, sorted(pcm.items())]).encode()).hexdigest()[:16]
    return {
        "format": FORMAT,
        "test": digest,
        "rate": rate,
        "channels": waves.shape[1],
        "trials": list_trials(at, kinds, len(names)),
        "salt": salt,
        "key": mask_base64(json.dumps(key).encode(), salt),
        "clips": dict(sorted(pcm.items())),
    }


def list_trials(at, kinds, count):
    """Return [{"kind", "clips": [id, ...], "open": id or None}, ...], lists ordered by id."""
    places = range(1 + max(place for *_, place in at))
    trials = []
    for place in places if "mushra" in kinds else ():
        clips = [one for (role, _, own), one in at.items() if own == place and role != "open"]
        opened = at.get(("open", None, place))
        trials.append({"kind": "mushra", "clips": sorted(clips), "open": opened})
    for pair in itertools.combinations(range(count), 2) if "abx" in kinds else ():
        for place in places:
            clips = sorted(at["set", number, place] for number in pair)
            trials.append({"kind": "abx", "clips": clips, "open": None})
    return sorted(trials, key=lambda one: (kinds.index(one["kind"]), one["clips"]))


def mask_bytes(raw, salt):
    """Return the bytes XOR a stream that grows from the salt (8 hex digits); its own inverse.

    The stream is murmur3's finalizer of salt, salt + 1, ...; it is no cipher.
    """
    x = np.arange(math.ceil(len(raw) / 4), dtype=np.uint32) + np.uint32(int(salt, 16))
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    stream = (x ^ (x >> np.uint32(16))).astype("<u4").view(np.uint8)[: len(raw)]
    return (np.frombuffer(raw, np.uint8) ^ stream).tobytes()


def mask_base64(raw, salt):
    """Return masked bytes as base64."""
    return base64.b64encode(mask_bytes(raw, salt)).decode("ascii")


def render_test(test, title):
    """Return the page of a test; its content policy lets only its own script run."""
    script = html.read_template(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return html.render(TEMPLATE, title=title, script=script, script_hash=digest, test=test)


def read_listening_page(path):
    """Return the contents of a written page without the mask.

    Returns:
      the page's data, with "key" {"sets": [name], "clips": {id: [role, set number, place]}} and
      "clips" {id: [C, N] int16}.
    """
    page = pathlib.Path(path).read_text("utf-8")
    match = re.search(r'<script type="application/json" id="test">(.*?)</script>', page, re.DOTALL)
    if not match:
        raise ValueError(f"{path}: not a page of a listening test")
    test = json.loads(match[1])
    unmask = lambda body, salt: mask_bytes(base64.b64decode(body), salt)
    test["key"] = json.loads(unmask(test["key"], test["salt"]))
    for one, body in test["clips"].items():
        pcm = np.frombuffer(unmask(body, one), "<i2")
        test["clips"][one] = pcm.reshape(-1, test["channels"]).T
    return test
