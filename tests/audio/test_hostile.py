"""Broken and hostile files: accepted at their right length or left out with a reason, no crash."""

import functools
import io
import os
import struct

import numpy as np
import pytest
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.audio.decode import AudioFormat
from specdiff_jax.data import cache, prepare
from specdiff_jax.data.sources.decode import decode_item
from specdiff_jax.data.sources.items import Song
from specdiff_jax.runtime import worker_pool
from tests.helpers import synth

RATE = 8000
FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}
WAVE = synth.chords(110 * 2 ** (np.arange(12) / 12), 0.25, RATE)


def encoded(wave=WAVE, rate=RATE, format="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def mutated(data, seed):
    """Random byte damage: some bytes changed, and sometimes cut, doubled or shifted."""
    rng, damaged = np.random.default_rng(seed), bytearray(data)
    header = rng.random() < 0.5  # half of all damage to the first bytes, where it hurts
    for _ in range(rng.integers(1, 40)):
        place = rng.integers(0, min(200, len(damaged)) if header else len(damaged))
        damaged[place] = rng.integers(0, 256)
    kind, middle = rng.integers(0, 5), rng.integers(1, len(damaged))
    if kind == 0:
        damaged = damaged[:middle]
    elif kind == 1:
        damaged = damaged[middle:] + damaged[:middle]
    elif kind == 2:
        damaged = damaged + damaged
    return bytes(damaged)


def outcomes(sounds):
    """Return [(decoded, reason)] of sounds; workers that import this file would import JAX too."""
    jobs = [Song("song", None, (), (), sound) for sound in sounds]
    one = functools.partial(decode_item, audio_format=AudioFormat(RATE))
    return [
        (output, reason) for _, output, reason in worker_pool.in_order(one, jobs, 60.0, count=2)
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_125_damaged_files_of_each_kind(suffix):
    data = encoded(format=FORMATS[suffix])
    result = outcomes([mutated(data, seed) for seed in range(125)])
    assert len(result) == 125
    for output, reason in result:
        assert (output is None) != (reason is None)
        if output:
            pcm, facts, _ = output
            length = facts["seconds"] * RATE
            assert (
                abs(len(pcm) - length) <= 2 and facts["seconds"] >= 0.99 * facts["claimed_seconds"]
            )
        else:
            assert reason and "\n" not in reason
    assert any(reason for _, reason in result)
    assert (
        any(output for output, _ in result) or suffix == "flac"
    )  # whose every frame has a checksum


def lying_header(frames):
    """A WAV whose data chunk claims so many 16-bit frames and holds 100."""
    data = bytes(200)
    head = b"RIFF" + struct.pack("<I", min(36 + 2 * frames, 2**32 - 1)) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return head + b"data" + struct.pack("<I", min(2 * frames, 2**32 - 1)) + data


def with_header(rate=RATE, channels=1):
    """A WAV of noise with a header that says so."""
    data = np.random.default_rng(0).integers(-9999, 9999, 400 * channels, np.int16).tobytes()
    block = 2 * channels
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    head += struct.pack(
        "<IHHIIHH", 16, 1, channels, rate, min(rate * block, 2**32 - 1), block % 65536, 16
    )
    return head + b"data" + struct.pack("<I", len(data)) + data


MALFORMED = {
    "zero length": b"",
    "header only": encoded(np.zeros(0, np.float32)),
    "half a header": encoded()[:20],
    "text": b"this is a text that somebody called song.wav\n" * 10,
    "a page": b"<html><script>alert(1)</script></html>",
    "claims four GB": lying_header(2**31),
    "NaN": encoded(np.where(np.arange(len(WAVE)) == 500, np.nan, WAVE), subtype="FLOAT"),
    "infinite": encoded(np.where(np.arange(len(WAVE)) == 500, np.inf, WAVE), subtype="FLOAT"),
    "1 Hz": with_header(rate=1),
    "four GHz": with_header(rate=2**32 - 1),
    "65535 channels": with_header(channels=65535),
    "silence": encoded(np.zeros(RATE, np.float32)),
    "cut flac": encoded(format="FLAC")[:9000],
}


def test_decode_rejects_each_malformed_file_with_a_reason():
    for name, (output, reason) in zip(MALFORMED, outcomes(MALFORMED.values()), strict=True):
        assert output is None and reason, name


@pytest.mark.slow
def test_two_hours_of_silence_in_a_small_flac_cost_little_memory():
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 44_100, 2, format="FLAC") as sound:
        minute = np.zeros((44_100 * 60, 2), np.int16)
        for _ in range(120):
            sound.write(minute)
    assert len(buffer.getvalue()) < 2_000_000
    [(output, reason)] = outcomes([buffer.getvalue()])  # the worker may take 1.6 GB, no more
    assert output is None and "silent" in reason


def forbid(monkeypatch, closed):
    """A folder that cannot be listed, also where the tests run as root."""
    closed.mkdir()
    real = os.scandir

    def scandir(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(closed))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.skipif(os.name != "posix", reason="file names of bytes")
def test_names_links_and_permissions(nano, tmp_path, monkeypatch):
    folder = tmp_path / "songs"
    names = ["new\nline.wav", "quote'\".wav", "<script>alert(1)</script>.wav", "%s{0}.wav", "ü.wav"]
    for number, name in enumerate(names):
        wave = synth.chords(110 * 2 ** (3 * np.random.default_rng(number).random(8)), 0.25, RATE)
        files.write(folder / name.replace("/", "-"), wave, RATE)
    raw = os.fsencode(folder) + b"/\xff\xfe.wav"
    with open(raw, "wb") as file:
        file.write(encoded())
    (folder / "loop").symlink_to(folder)
    (folder / "nothing.wav").symlink_to(tmp_path / "not there")
    (folder / "folder.wav").mkdir()
    (folder / "song.m4a").write_bytes(b"aac")
    forbid(monkeypatch, folder / "closed")
    nano.data.update(source=str(folder), cache_dir=str(tmp_path / "cache"), max_error_fraction=0.9)
    prepare.run(nano)
    place = prepare.locate_cache(nano)
    manifest = cache.read_manifest(place)
    assert manifest["num_items"] == 9 == len(manifest["songs"]) + len(manifest["skipped"])
    reasons = {skip["name"]: skip["reason"] for skip in manifest["skipped"]}
    assert "folder not listed: Permission denied" in reasons["closed"]
    assert (
        set(reasons) == {"nothing.wav", "song.m4a", "closed"}
        and "libsndfile" in reasons["song.m4a"]
    )
    page = (place / "data_report.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
