"""Sound files in, sound files out; libsndfile decodes block by block, in bounded memory."""

import os
import pathlib
import re

import numpy as np
import soundfile

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
FOREIGN = (".m4a", ".aac", ".wma", ".ape", ".mka", ".mp4", ".wv")  # sound that libsndfile cannot
SAMPLE_RATES = (1000, 768_000)  # Hz, what a real file may claim
MAX_CHANNELS = 64
NO_TAGS = {"artist": None, "album": None}
STREAMED = 0x7FFF_0000  # bytes that a WAV claims whose writer could not know its length
BLOCK = 1 << 18  # frames decoded at a time


class Sound:
    """An open sound file that has been checked; iterate it for blocks [channels, n] float32.

    Args:
      file: a path or a binary file object.
      start, end: seconds to take; None for the file's ends.

    Raises:
      ValueError: not a sound file, an absurd header, an empty or impossible range; while
        iterating: damaged, or shorter than the header claims (libsndfile decodes truncated files
        short, without an error).
    """

    def __init__(self, file, start=None, end=None):
        try:
            # A path goes as bytes: names that are not UTF-8 are names too.
            self.file = soundfile.SoundFile(os.fsencode(file) if isinstance(file, str) else file)
        except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
            gone = isinstance(file, str | os.PathLike) and not os.path.exists(file)
            why = "there is no such file" if gone else one_line(error)
            raise ValueError(f"not readable as sound ({why})") from error
        self.sample_rate, self.channels = self.file.samplerate, self.file.channels
        self.tags = {name: clean_tag(getattr(self.file, name)) for name in NO_TAGS}
        low, high = SAMPLE_RATES
        if not low <= self.sample_rate <= high:
            raise ValueError(f"claims {self.sample_rate} Hz, outside {low} to {high}")
        if self.channels > MAX_CHANNELS:
            raise ValueError(f"claims {self.channels} channels, more than {MAX_CHANNELS}")
        self.first = round((start or 0) * self.sample_rate)
        last = self.file.frames if end is None else round(end * self.sample_rate)
        self.claimed = min(last, self.file.frames) - self.first  # frames
        self.requested = last - self.first  # a list may name more than the file holds
        stated = count_claimed_frames(self.file)
        if end is None and self.file.frames < 0.99 * stated:
            raise ValueError(f"truncated, {self.file.frames} of {stated} samples are there")
        if self.claimed <= 0:
            raise ValueError(f"holds no samples between start={start} and end={end}")

    def __iter__(self):
        read = 0
        try:
            if self.first:
                self.file.seek(self.first)
            while read < self.claimed:
                size = min(BLOCK, self.claimed - read)
                block = self.file.read(size, dtype="float32", always_2d=True)
                if not block.size:
                    break
                read += len(block)
                yield block.T
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise ValueError(f"damaged after {read} samples ({one_line(error)})") from error
        finally:
            self.file.close()
        if read < 0.99 * self.claimed:
            raise ValueError(f"truncated, {read} of {self.claimed} samples decode")


def count_claimed_frames(file):
    """Frames that the header claims: libsndfile counts what is left of a WAV that was cut."""
    match = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    stated, actual = map(int, match.groups()) if match else (0, 0)
    return file.frames * stated // actual if 0 < actual < stated < STREAMED else file.frames


def clean_tag(value):
    """A tag that says something, or None."""
    return " ".join(value.split())[:200] or None


def one_line(error):
    """What an error says, without line breaks or the file's own name for itself."""
    return " ".join(str(error).split())[-160:]


def to_int16(wave):
    """[-1, 1) float -> int16, rounded; louder samples clip at full scale."""
    scaled = wave * 32768.0
    np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def write(path, wave, sample_rate):
    """Writes [N] or [channels, N] float32 as 16-bit PCM WAV, clipped at full scale, as loud."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, to_int16(np.asarray(wave)).T, sample_rate, subtype="PCM_16")


def find_files(folder, suffixes=SUFFIXES, unreadable=None):
    """All files under `folder` with such a suffix, sorted; links to folders are not followed.

    Args:
      unreadable: a list that gets the OSError of each folder that cannot be listed.
    """
    paths = []
    for root, _, names in os.walk(
        folder, onerror=None if unreadable is None else unreadable.append
    ):
        chosen = (name for name in names if name.lower().endswith(suffixes))
        paths += [pathlib.Path(root) / name for name in chosen]
    return sorted(paths)


def read_stamp(path):
    """[size, modification time] of a file; nothing where it cannot be asked, as a dangling link."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return [None, None]
    return [stat.st_size, stat.st_mtime_ns]
