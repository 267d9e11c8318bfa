"""The embedded music: real scores from the music21 corpus, rendered with a General MIDI SoundFont.

score file -> Score -> Arrangement -> MIDI bytes -> 48 kHz wave -> Song

Nothing is downloaded: the scores come inside the music21 wheel, the SoundFont inside the
pretty_midi wheel, and midirenderer plays the one with the other.

The `artist` of a Song is its leak group. Songs that share musical material share it: excerpts and
movements of one work ('W. A. Mozart: K155'), settings of one hymn ('J. S. Bach: Nun danket alle
Gott', also where the words differ and only the tune is the same), and one fiddle tune under two
titles. A run of equal intervals identifies a tune in any key. A piece that would join two earlier
groups is skipped, and so is a duplicate of a piece, transposed or not.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import pathlib
import wave as wave_file
import zlib

import numpy as np

from specdiff_jax.data.sources.items import Pcm, Skipped, Song, Source
from specdiff_jax.data.sources.songbook import arrangements, captions, midi, scores, titles
from specdiff_jax.runtime import worker_pool

SAMPLE_RATE = 48_000  # of the renderer
NUM_PIECES = 300
SECONDS = 30.0
PIECE_SECONDS = 3600.0  # a file that takes longer to parse and render stops the songbook
PACKAGES = ("music21", "midirenderer", "pretty_midi")  # of the songbook extra
_RMS = 0.1  # every song is brought to this level, -20 dBFS,
_PEAK = 0.95  # unless its peaks would go over this one
_FLOOR = 2.0**-14  # peak of the added noise floor, two steps of 16 bits: a rest is never all zeros
# kind -> (intervals in a run that identifies a tune, how many of them must not be 0)
_RUNS = {"chorale": (12, 8), "tune": (20, 14)}


def render_songs(num_pieces=NUM_PIECES, seconds=SECONDS, seed=0, workers=None):
    """Return an iterator over the rendered songbook.

    Args:
      num_pieces: how many Songs; others replace pieces that are skipped.
      seconds: length of each, exactly round(seconds * SAMPLE_RATE) samples.
      seed: chooses pieces, excerpts, instruments and tempos. A longer songbook of the same seed
        and seconds begins with the shorter one.
      workers: processes; None takes one for each usable core, 1 renders in this process.
        With more, the calling script needs the usual `if __name__ == '__main__'` guard.

    Yields:
      Song (audio: Pcm, [2, N] float32) or Skipped, the same ones in the same order, bit for bit,
      whatever `workers` is. If the corpus runs out first, the last value is a Skipped for that.

    Raises:
      ValueError: an argument out of range.
      ValueError: a package of the 'songbook' extra is missing, or a worker process died.
    """
    if num_pieces < 1 or (workers is not None and workers < 1):
        raise ValueError(f"num_pieces={num_pieces} and workers={workers} must be at least 1")
    if not 1 <= seconds <= 600:
        raise ValueError(f"seconds={seconds} must be between 1 and 600")
    corpus = _find_corpus()
    read_soundfont()
    return _render_pieces(corpus, num_pieces, seconds, seed, workers or worker_pool.count_cores())


def parse_num_pieces(source):
    """Return the number of pieces of 'songbook' or 'songbook:900'; None for another source.

    Raises:
      ValueError: the part after the colon is no number.
    """
    name, _, count = source.partition(":")
    if name != "songbook":
        return None
    if count and not count.isdecimal():
        raise ValueError(f"data.source={source!r}: write 'songbook' or 'songbook:900'")
    return int(count or NUM_PIECES)


def package_versions():
    """Return the versions of the packages that the sound depends on; None for a missing one."""
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {name: spec and importlib.metadata.version(name) for name, spec in specs.items()}


def read_soundfont():
    """Return the bytes of the General MIDI SoundFont inside the pretty_midi wheel."""
    file = _find_package("pretty_midi") / "TimGM6mb.sf2"
    if not file.is_file():
        raise ValueError(f"{file.name} is missing: reinstall with pip install -e '.[songbook]'")
    return file.read_bytes()


def render_midi(midi_file, soundfont_bytes):
    """Render MIDI bytes to [2, N] float32 at SAMPLE_RATE, within [-1, 1)."""
    import midirenderer  # an extra

    data = midirenderer.render_wave_from(soundfont_bytes, midi_file)
    with wave_file.open(io.BytesIO(data)) as reader:
        if reader.getframerate() != SAMPLE_RATE or reader.getsampwidth() != 2:
            raise ValueError(
                "midirenderer no longer writes 48 kHz 16-bit: see songbook.render_midi"
            )
        samples = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
        return samples.reshape(-1, reader.getnchannels()).T.astype(np.float32) / 32768


def _render_pieces(corpus, num_pieces, seconds, seed, workers):
    """Yield the Song and Skipped values of `render_songs`."""
    groups = _LeakGroups()
    accepted = 0
    jobs = [(source, seconds, seed) for source in scores.list_sources(corpus, seed)]
    for results in _render_in_order(jobs, workers):
        for result in results:
            result = groups.admit(result)
            accepted += isinstance(result, Song)
            yield result
            if accepted == num_pieces:
                return
    yield Skipped("songbook", f"the corpus has only {accepted} such pieces, not {num_pieces}")


def _render_in_order(jobs, workers):
    """Yield the results of `_render_source` for each job, in order."""
    if workers == 1:
        yield from map(_render_source, jobs)
        return
    for job, results, reason in worker_pool.in_order(_render_source, jobs, PIECE_SECONDS, workers):
        if reason:
            raise ValueError(f"songbook: {job[0].name}: {reason}")
        yield results


def _render_source(job):
    """Return the list of Skipped or (Song, fingerprint) of one file; runs in a worker."""
    source, seconds, seed = job
    try:
        score = scores.read_score(source)
    except scores.Unusable as error:
        return [Skipped(source.name, str(error))]
    results = []
    for excerpt in range(source.first, source.first + source.count):
        name = f"{source.name}#{excerpt + 1}" if source.of > 1 else source.name
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        try:
            plan = arrangements.arrange(score, seconds, rng, excerpt, source.of)
        except scores.Unusable as error:
            results.append(Skipped(name, str(error)))
            continue
        results.append((_render_song(name, score, plan, seconds), fingerprint_score(score)))
    return results


def _render_song(name, score, plan, seconds):
    """Return the Song of an Arrangement."""
    # One quarter note longer than the song: the end is cut from sound and not from silence.
    data = midi.encode_midi(plan.tracks, plan.quarter_bpm, plan.quarters + 1)
    samples = round(seconds * SAMPLE_RATE)
    wave = render_midi(data, _cached_soundfont())
    if wave.shape[-1] < samples:
        raise ValueError(f"{name}: midirenderer returned {wave.shape[-1]} of {samples} samples")
    composer = scores.COMPOSERS[score.composer]
    return Song(
        name=name,
        artist=f"{composer}: {score.work}",
        labels=plan.labels,
        captions=captions.write_captions(plan.labels),
        audio=Pcm(_set_level(wave[:, :samples], zlib.crc32(name.encode())), SAMPLE_RATE),
        tempo=plan.tempo,
    )


def _set_level(wave, seed):
    """Return a wave at the songbook's level, with a noise floor.  # [2, N] float32"""
    if np.abs(wave).max() > 0.999:
        raise ValueError("the renderer clips: lower the channel volumes in arrangements.py")
    rms = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    noise = np.random.default_rng(seed).random(wave.shape, np.float32)
    gain = np.float32(min(_RMS / rms, (_PEAK - _FLOOR) / np.abs(wave).max()))
    return wave * gain + np.float32(_FLOOR) * (2 * noise - 1)


def fingerprint_score(score):
    """Return (hash of all notes, runs of the tune): scores with the same music share them.

    The hash does not depend on the key. The runs are hashes of the intervals of the top voice: of a
    hymn on every beat, where settings agree, of a tune from note to note; empty for kinds whose
    group is the work alone.
    """
    notes = np.concatenate([part - [0, 0, score.parts[0][0, 2]] for part in score.parts])
    digest = hashlib.sha256(np.round(notes * 96).astype(np.int64).tobytes()).hexdigest()
    if score.kind not in _RUNS:
        return digest, frozenset()
    top = score.parts[0]
    if score.kind == "chorale":
        beats = np.arange(0, score.length)
        pitches = top[np.searchsorted(top[:, 0], beats + 1e-6, side="right").clip(1) - 1, 2]
    else:
        pitches = top[:, 2]
    length, moving = _RUNS[score.kind]
    steps = np.diff(pitches).astype(np.int8)
    runs = (steps[i : i + length] for i in range(len(steps) - length + 1))
    return digest, frozenset(zlib.crc32(r.tobytes()) for r in runs if np.sum(r != 0) >= moving)


class _LeakGroups:
    """The leak groups so far; the order of `admit` calls decides their names."""

    def __init__(self):
        self._name_of = {}  # hash of a piece -> its name
        self._artist_of = {}  # run or plain title -> artist

    def admit(self, result):
        """Return a Skipped, or the Song of (Song, fingerprint) with its final artist."""
        if isinstance(result, Skipped):
            return result
        song, (digest, runs) = result
        first = self._name_of.setdefault(digest, song.name)
        if first.split("#")[0] != song.name.split("#")[0]:
            return Skipped(song.name, f"the same notes as {first}")
        keys = {
            titles.normalize_title(song.artist),
            *((song.artist.split(":")[0], run) for run in runs),
        }
        artists = sorted({self._artist_of[key] for key in keys if key in self._artist_of})
        if len(artists) > 1:
            return Skipped(song.name, f"shares music with {' and with '.join(artists)}")
        artist = artists[0] if artists else song.artist
        self._artist_of |= dict.fromkeys(keys, artist)
        return Song(**{**vars(song), "artist": artist})


def _find_corpus():
    """Return the folder of the music21 corpus; the renderer must be installed too."""
    _find_package("midirenderer")
    return _find_package("music21") / "corpus"


def _find_package(name):
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        raise ValueError(
            f"data.source='songbook' needs {name}, which is not installed: "
            "pip install -e '.[songbook]'"
        )
    return pathlib.Path(spec.origin).parent


@functools.cache
def _cached_soundfont():
    """Return the SoundFont, read once a process."""
    return read_soundfont()


def iterate_songs(name, songbook_seconds=SECONDS):
    """Return an iterator over the songbook that data.source names."""
    return render_songs(parse_num_pieces(name), songbook_seconds)


SOURCE = Source(
    title="the songbook, as 'songbook' or 'songbook:900'",
    matches=lambda name: bool(parse_num_pieces(name)),
    songs=iterate_songs,
    fingerprint=lambda name, options: package_versions(),
    expected=parse_num_pieces,
    limit_errors=False,  # another piece replaces one that is skipped
)
