"""Choose tempo, excerpt, instruments and accompaniment of a score: Score -> Arrangement.

Instruments and tempo are chosen here, so their labels are correct by construction; the key of a
piece without a written one is estimated from its notes.
"""

import dataclasses

import numpy as np

from specdiff_jax.data.sources.songbook import accompaniment, midi, scores
from specdiff_jax.data.sources.songbook.instruments import ENSEMBLES, MELODIES, PROGRAMS

GENRES = {
    "bach": "baroque",
    "mozart": "classical",
    "haydn": "classical",
    "beethoven": "classical",
    "monteverdi": "renaissance",
    "ryansMammoth": "folk",
}
_SPEEDS = {"slow": (54, 74), "moderate": (80, 108), "fast": (116, 144)}  # beats a minute
_MOST_NOTES = 9.0  # a second, in the busiest part of a busy bar
_FEWEST_NOTES = 1.4  # onsets a second, all parts together
_PIECE_LEVEL = {"tune": 92, "chorale": 72, "quartet": 74, "madrigal": 70}  # channel volume


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """Tracks ready for MIDI, with their labels.

    Attributes:
      tracks: tuple of midi.Track.
      quarter_bpm: quarter notes a minute.
      quarters: length in quarter notes.
      labels: 'key:value' strings.
      tempo: beats a minute; a beat of 6/8 is three eighths.
    """

    tracks: tuple[midi.Track, ...]
    quarter_bpm: float
    quarters: float
    labels: tuple[str, ...]
    tempo: float


def arrange(score, seconds, rng, excerpt=0, of=1):
    """Choose tempo, excerpt and players for `seconds` of a score; return an Arrangement.

    Args:
      score: scores.Score.
      seconds: length of the excerpt; a shorter piece is repeated until it fills it.
      rng: numpy Generator; all choices come from it.
      excerpt, of: take the excerpt from this one of `of` equal spans of the piece.

    Raises:
      scores.Unusable: the excerpt would rest for a long while.
    """
    speed = ("slow", "moderate", "fast")[rng.choice(3, p=_speed_odds(score.kind))]
    start_meter = score.meters[0][1]
    quarter_bpm = _clip_tempo(score, rng.uniform(*_SPEEDS[speed]) * beat_quarters(start_meter))
    quarters = seconds * quarter_bpm / 60
    start = _choose_start(score, quarters, rng, excerpt, of)
    parts = [_cut_part(part, score.length, start, quarters) for part in score.parts]
    parts, shift = _shift_to_first_note(parts)
    _check_rests(parts, quarters, quarter_bpm)
    meter = [text for offset, text in score.meters if offset <= start][-1]
    key = score.key or estimate_key(np.concatenate(parts))
    if score.kind == "tune":
        bars = _cut_bars(score, quarters) - shift
        ensemble, tracks, instruments = _build_band(parts[0], bars, meter, key, rng)
    else:
        ensemble, tracks, instruments = _assign_voices(score.kind, parts, rng)
    tracks = tuple(_humanize(track, beat_quarters(meter), quarter_bpm, rng) for track in tracks)
    tempo = quarter_bpm / beat_quarters(meter)
    labels = [
        f"composer:{'traditional' if score.kind == 'tune' else score.composer}",
        f"genre:{GENRES[score.composer]}",
        f"form:{score.form}",
        *(f"instrument:{name}" for name in instruments),
        f"ensemble:{ensemble}",
        f"key:{key[0]}",
        f"mode:{key[1]}",
        f"metre:{meter}",
        f"tempo:{classify_tempo(tempo)}",
    ]
    return Arrangement(tracks, quarter_bpm, quarters, tuple(labels), tempo)


def beat_quarters(meter):
    """Return the quarter notes of one beat: '6/8' -> 1.5, '2/2' -> 2, '3/4' -> 1."""
    over, under = (int(n) for n in meter.split("/"))
    compound = under >= 8 and over % 3 == 0
    return (12 if compound else 4) / under


def classify_tempo(beats):
    """Return 'slow' below 76 beats a minute, 'fast' from 112, else 'moderate'."""
    return "slow" if beats < 76 else "moderate" if beats < 112 else "fast"


def estimate_key(notes):
    """Return the best of 24 keys of [n, 3] notes, by Krumhansl and Kessler (1982)."""
    major = [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88]
    minor = [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17]
    durations = np.bincount(notes[:, 2].astype(int) % 12, weights=notes[:, 1], minlength=12)
    durations = durations - durations.mean()
    best = []
    for mode, profile in (("major", major), ("minor", minor)):
        profile = (np.array(profile) - np.mean(profile)) / np.std(profile)
        best += [(np.roll(profile, tonic) @ durations, mode, tonic) for tonic in range(12)]
    _, mode, tonic = max(best)
    names = "C Db D Eb E F F# G Ab A Bb B" if mode == "major" else "C C# D Eb E F F# G G# A Bb B"
    return names.split()[tonic], mode


def _speed_odds(kind):
    """Return the probabilities of slow, moderate and fast."""
    return [0.1, 0.45, 0.45] if kind == "tune" else [0.35, 0.35, 0.3]


def _clip_tempo(score, quarter_bpm):
    """Return the tempo clipped to the range in which the score is playable."""
    edges = np.append(score.bars, score.length)
    lengths = np.maximum(np.diff(edges), 1e-6)
    busy = [np.histogram(part[:, 0], edges)[0] / lengths for part in score.parts]
    most = max(*(np.percentile(density, 90) for density in busy), 1e-3)  # notes a quarter
    onsets = np.unique(np.concatenate([part[:, 0] for part in score.parts]))
    fewest = len(onsets) / score.length
    return float(np.clip(quarter_bpm, 60 * _FEWEST_NOTES / fewest, 60 * _MOST_NOTES / most))


def _choose_start(score, quarters, rng, excerpt, of):
    """Return a bar line of the excerpt's own span: excerpts overlap as little as possible."""
    if score.length <= quarters or score.kind in ("chorale", "tune"):
        if excerpt:
            raise scores.Unusable("too short for another excerpt")
        return 0.0
    # As many excerpts as fit side by side; spans that stay empty have none.
    spans = max(min(of, int(score.length / quarters)), 1)
    if excerpt >= spans:
        raise scores.Unusable("too short for another excerpt")
    low = excerpt * score.length / spans
    high = (excerpt + 1) * score.length / spans - quarters
    bars = score.bars[(score.bars >= low) & (score.bars <= high)]
    return float(rng.choice(bars)) if len(bars) else low


def _cut_part(part, length, start, quarters):
    """Return the notes of [start, start + quarters) of a piece that repeats without end."""
    rounds = int(np.ceil((start + quarters) / length))
    notes = np.concatenate([part + [r * length, 0, 0] for r in range(rounds)])
    notes[:, 0] -= start
    # A note that began before the start sounds from the start on.
    before = np.minimum(notes[:, 0], 0)
    notes[:, 0] -= before
    notes[:, 1] += before
    return notes[(notes[:, 1] > 1e-6) & (notes[:, 0] < quarters)]


def _cut_bars(score, quarters):
    """Return the bar starts of the repeated piece."""
    rounds = int(np.ceil(quarters / score.length)) + 1
    return np.concatenate([score.bars + r * score.length for r in range(rounds)])


def _shift_to_first_note(parts):
    """Return the parts from the first note on, and the rest before it."""
    shift = min((part[0, 0] for part in parts if len(part)), default=0.0)
    return [part - [shift, 0, 0] for part in parts], shift


def _check_rests(parts, quarters, quarter_bpm, longest=1.5):
    """Raise Unusable for a silent part or a rest of more than `longest` seconds."""
    notes = np.concatenate(parts)
    if not all(len(part) for part in parts):  # its instrument would be a false label
        raise scores.Unusable("a part is silent throughout the excerpt")
    notes = notes[np.argsort(notes[:, 0])]
    ends = np.maximum.accumulate(notes[:, 0] + notes[:, 1])
    rests = np.append(notes[1:, 0], quarters) - ends
    rest = rests.max() * 60 / quarter_bpm
    if rest > longest:
        raise scores.Unusable(f"rests for {rest:.1f} s")


def _assign_voices(kind, parts, rng):
    """Return (ensemble, tracks, instruments) of a piece with written parts."""
    ensemble, names = ENSEMBLES[kind][rng.integers(len(ENSEMBLES[kind]))]
    pans = np.linspace(34, 94, len(parts)).astype(int)
    tracks = [
        midi.Track(PROGRAMS[name], _add_velocity(part, 80), int(pan), _PIECE_LEVEL[kind])
        for name, part, pan in zip(names, parts, pans, strict=True)
    ]
    return ensemble, tracks, list(dict.fromkeys(names))


def _build_band(melody, bars, meter, key, rng):
    """Arrange a tune alone, with chords, with chords and bass, or with chords, bass and drums."""
    size = rng.choice(4, p=[0.12, 0.28, 0.3, 0.3]) + 1
    lead = MELODIES[rng.integers(len(MELODIES))]
    comp = [c for c in ("nylon guitar", "steel guitar", "piano", "accordion") if c != lead]
    comp = comp[rng.integers(len(comp))]
    bass = ("double bass", "electric bass")[rng.integers(2)]
    chords, low, drums = accompaniment.accompany(melody, bars, beat_quarters(meter), meter, key)
    players = [
        (lead, midi.Track(PROGRAMS[lead], _add_velocity(melody, 96), 58, 100)),
        (comp, midi.Track(PROGRAMS[comp], _add_velocity(chords, 66), 84, 80)),
        (bass, midi.Track(PROGRAMS[bass], _add_velocity(low, 84), 50, 90)),
        ("drums", midi.Track(0, drums, 64, 76, drums=True)),
    ][:size]
    ensemble = ("solo", "duo", "trio", "folk band")[size - 1]
    return ensemble, [track for _, track in players], [name for name, _ in players]


def _add_velocity(notes, velocity):
    """Return notes with one velocity.  # [n, 3] -> [n, 4]"""
    return np.column_stack([notes, np.full(len(notes), velocity, np.float64)])


def _humanize(track, beat, quarter_bpm, rng):
    """Vary the dynamics by phrase and beat, and the onsets by a few milliseconds."""
    notes = track.notes.copy()
    onset = notes[:, 0]
    phrase = rng.uniform(12, 20) * beat
    swell = 8 * np.sin(2 * np.pi * (onset / phrase + rng.uniform()))
    lean = 6 * (np.abs(onset / beat - np.round(onset / beat)) < 0.02)
    notes[:, 3] = np.clip(notes[:, 3] + swell + lean + rng.normal(0, 3, len(notes)), 20, 120)
    notes[:, 0] = np.maximum(onset + rng.normal(0, 0.006, len(notes)) * quarter_bpm / 60, 0)
    if not track.drums:
        notes[:, 1] *= 0.96  # a breath before the next note separates repeated notes
    return dataclasses.replace(track, notes=notes)
