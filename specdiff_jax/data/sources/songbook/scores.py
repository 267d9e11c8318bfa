"""Choose files of the music21 corpus, their order and excerpts, and read them as Scores.

Four kinds of piece: four-part chorales by Bach, string quartets by Mozart, Haydn and Beethoven,
madrigals by Monteverdi, and fiddle tunes of Ryan's Mammoth Collection (1883). The other
collections of the corpus are excluded because their license is reserved or unclear.
"""

import dataclasses
import pathlib
import warnings

import numpy as np

from specdiff_jax.data.sources.songbook import titles

# kind -> (folders of the corpus, share of the songbook)
KINDS = {
    "chorale": (("bach",), 0.30),
    "tune": (("ryansMammoth",), 0.30),
    "quartet": (("mozart", "haydn", "beethoven"), 0.24),
    "madrigal": (("monteverdi",), 0.16),
}
COMPOSERS = {
    "bach": "J. S. Bach",
    "mozart": "W. A. Mozart",
    "haydn": "J. Haydn",
    "beethoven": "L. van Beethoven",
    "monteverdi": "C. Monteverdi",
    "ryansMammoth": "Trad.",
}
# Not chorales or not quartets, and superseded encodings.
_EXCLUDED = {"bach/bwv846", "mozart/k545/movement1_exposition", "monteverdi/madrigal.3.1_old"}


@dataclasses.dataclass(frozen=True)
class Source:
    """One file, and which of its excerpts to take: `first` .. `first + count - 1` out of `of`."""

    kind: str
    path: str
    name: str
    first: int = 0
    count: int = 1
    of: int = 1


@dataclasses.dataclass(frozen=True)
class Score:
    """The notes and metadata of a file; times in quarter notes.

    Attributes:
      kind, name: as in Source.
      composer: the folder of the corpus.
      work: the words that name its leak group.
      form: chorale, quartet movement, madrigal, or the dance of a tune.
      parts: from the highest to the lowest, each [n, 3] float64 of (onset, duration, pitch).
      length: quarter notes until the piece may be repeated.
      bars: [b] float64, where each bar starts.
      meters: ((offset, '6/8'), ...).
      key: (tonic, mode) as written, or None where the file has no mode.
    """

    kind: str
    name: str
    composer: str
    work: str
    form: str
    parts: tuple[np.ndarray, ...]
    length: float
    bars: np.ndarray
    meters: tuple[tuple[float, str], ...]
    key: tuple[str, str] | None


class Unusable(Exception):
    """This file cannot be used; the message is the reason in one line."""


def list_sources(corpus, seed):
    """Return the files in their order of use: shuffled by `seed`, kinds mixed by share.

    Args:
      corpus: pathlib.Path of the music21 corpus folder.
      seed: integer.

    Returns:
      list[Source]; a longer songbook continues a shorter one.
    """
    order = []
    for number, (kind, (folders, share)) in enumerate(KINDS.items()):
        rng = np.random.default_rng([seed, number])
        files = [file for folder in folders for file in _list_files(corpus, folder)]
        names = [_name_piece(corpus, files[i]) for i in rng.permutation(len(files))]
        paths = {_name_piece(corpus, file): str(file) for file in files}
        jobs = [job for name in names for job in _plan_excerpts(kind, paths[name], name)]
        jobs.sort(key=lambda job: job.first)  # every file once before any file a second time
        done = 0
        for job in jobs:
            done += job.count
            order.append(((done - 0.5) / share, number, job))
    order.sort(key=lambda item: item[:2])
    return [job for _, _, job in order]


def _list_files(corpus, folder):
    """Return the files of a folder, one a piece: MusicXML is preferred to a second encoding."""
    best = {}
    for suffix in (".abc", ".xml", ".mxl"):
        for file in sorted((corpus / folder).rglob("*" + suffix)):
            best[_name_piece(corpus, file)] = file
    return [best[name] for name in sorted(best) if name not in _EXCLUDED]


def _name_piece(corpus, file):
    """Return the path of a file in the corpus without its suffix."""
    file = pathlib.Path(file)
    return file.relative_to(corpus).with_name(file.stem).as_posix()


def _plan_excerpts(kind, path, name):
    """Return the Sources of a file; a quartet is slow to parse, so one gives several excerpts."""
    if kind == "quartet":
        count = 2 if "movement" in name else 3  # the other files hold whole quartets
        return [Source(kind, path, name, i * count, count, 2 * count) for i in range(2)]
    if kind == "madrigal":
        return [Source(kind, path, name, i, 1, 3) for i in range(3)]
    return [Source(kind, path, name)]


def read_score(source):
    """Parse the file of a Source and return its Score.

    Raises:
      Unusable: with the reason, for files that do not parse, do not expand or lack parts.
    """
    stream = _parse_stream(source)
    parts = _choose_parts(source, list(stream.parts))
    notes = tuple(_read_notes(part) for part in parts)
    if any(len(part) < 8 for part in notes):
        raise Unusable("a part is empty")
    flat = parts[0].flatten()
    work, form = titles.read_title(source, stream, parts[0])
    return Score(
        kind=source.kind,
        name=source.name,
        composer=source.name.split("/")[0],
        work=work,
        form=form,
        parts=notes,
        length=float(max(part.highestTime for part in parts)),
        bars=np.unique([float(bar.offset) for bar in parts[0].getElementsByClass("Measure")]),
        meters=_read_meters(flat),
        key=_read_key(flat) if source.kind == "tune" else None,
    )


def _parse_stream(source):
    """Return the music21 score of a file; raise Unusable where it does not parse."""
    from music21 import converter  # slow to import

    reader = converter.Converter()
    # Whatever goes wrong inside the parser concerns this file alone.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.parseFileNoPickle(source.path)
            stream = reader.stream
            if source.kind in ("chorale", "tune"):  # the others are longer than any excerpt
                stream = stream.expandRepeats()
    except Exception as error:
        raise Unusable(f"does not parse or expand: {type(error).__name__}: {error}") from error
    if not hasattr(stream, "parts") or not len(stream.parts):
        raise Unusable("holds no single score")
    return stream


def _choose_parts(source, parts):
    """Return the parts of a kind, from high to low; raise Unusable for too few or too many."""
    names = [(part.partName or "").strip().lower() for part in parts]
    if source.kind == "chorale":
        voices = ["soprano", "alto", "tenor", "bass"]
        if all(names.count(voice) == 1 for voice in voices):
            return [parts[names.index(voice)] for voice in voices]
    needed = {"chorale": (4, 4), "quartet": (4, 4), "madrigal": (5, 6), "tune": (1, 1)}
    low, high = needed[source.kind]
    if not low <= len(parts) <= high:
        raise Unusable(f"{len(parts)} parts, a {source.kind} here has {low}")
    return parts[:low] if low == high else parts[:4] + parts[-1:]


def _read_notes(part):
    """Return [n, 3] of (onset, duration, pitch): ties joined, no grace notes or chord symbols."""
    from music21 import harmony

    notes = []
    last_of = {}  # pitch -> index of the note that a tie may extend
    for element in part.flatten().notes:
        if isinstance(element, harmony.Harmony) or element.quarterLength == 0:
            continue
        onset, duration = float(element.offset), float(element.quarterLength)
        for note in getattr(element, "notes", None) or (element,):
            if not hasattr(note, "pitch"):
                continue
            pitch = note.pitch.midi
            tied = note.tie is not None and note.tie.type in ("stop", "continue")
            last = notes[last_of[pitch]] if pitch in last_of else None
            if tied and last and abs(last[0] + last[1] - onset) < 1e-3:
                last[1] = onset + duration - last[0]
                continue
            last_of[pitch] = len(notes)
            notes.append([onset, duration, pitch])
    return np.array(sorted(notes), np.float64).reshape(-1, 3)


def _read_meters(flat):
    """Return ((offset, '6/8'), ...) of a part; 4/4 where none is written."""
    meters = []
    for signature in flat.getElementsByClass("TimeSignature"):
        if not meters or meters[-1][1] != signature.ratioString:
            # The first one may stand after a pick-up that it governs too.
            meters.append((float(signature.offset) if meters else 0.0, signature.ratioString))
    return tuple(meters) or ((0.0, "4/4"),)


def _read_key(flat):
    """Return (tonic, mode) as written, or None; raise Unusable where it changes."""
    keys = {
        (key.tonic.name.replace("-", "b"), key.mode)
        for key in flat.getElementsByClass("KeySignature")
        if getattr(key, "mode", None)
    }
    if len(keys) > 1:
        raise Unusable("changes key")
    return next(iter(keys), None)
