"""Add chords, bass and drums to a fiddle tune: a plain vamp under the melody."""

import numpy as np

# mode -> (semitones above the tonic, 'major' or 'minor', weight) of each chord
_PALETTES = {
    "major": ((0, "major", 1.0), (7, "major", 0.8), (5, "major", 0.7), (2, "minor", 0.1)),
    "minor": ((0, "minor", 1.0), (10, "major", 0.6), (3, "major", 0.4), (7, "minor", 0.5)),
    "dorian": ((0, "minor", 1.0), (10, "major", 0.8), (5, "major", 0.3), (7, "minor", 0.3)),
    "mixolydian": ((0, "major", 1.0), (10, "major", 0.8), (5, "major", 0.6), (7, "minor", 0.2)),
}
_TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}
_PITCH_CLASSES = dict(zip(["C", "D", "E", "F", "G", "A", "B"], (0, 2, 4, 5, 7, 9, 11), strict=True))
_KICK, _SNARE, _HAT = 36, 38, 42


def pitch_class(tonic):
    """Return the pitch class of a note name: 'F#' -> 6, 'Bb' -> 10."""
    return (_PITCH_CLASSES[tonic[0]] + tonic.count("#") - tonic.count("b")) % 12


def accompany(melody, bars, beat, meter, key):
    """Return a vamp in step with the bars.

    Args:
      melody: [n, 3] of (onset, duration, pitch) in quarters.
      bars: [b] start of each bar; a pick-up bar is simply a short one.
      beat: quarters in a beat.
      meter: as '6/8'.
      key: (tonic, mode).

    Returns:
      chords [n, 3], bass [n, 3], drums [n, 4] with velocities.
    """
    compound = beat == 1.5
    pulse = 1.5 if compound else 1.0 if meter in ("2/4", "3/4") else 2.0
    off = pulse * (2 / 3 if compound else 1 / 2)
    end = float((melody[:, 0] + melody[:, 1]).max())
    chords, bass, drums = [], [], []
    for start, stop in zip(bars, np.append(bars[1:], bars[-1] + 4 * beat), strict=True):
        start, stop = max(start, 0.0), min(stop, end)
        span = pulse if compound or pulse == 2.0 else 2 * pulse
        for window in np.arange(start, stop - 0.74 * pulse, span):  # a pick-up stays bare
            root, quality = _choose_chord(melody, window, min(window + span, stop), key)
            triad = [55 + (root + step - 55) % 12 for step in _TRIADS[quality]]
            for i, at in enumerate(np.arange(window, min(window + span, stop) - 1e-6, pulse)):
                low = 36 + (root + (7 if i % 2 else 0) - 36) % 12
                bass.append((at, pulse * 0.8, low))
                chords += [(at + off, pulse * 0.4, pitch) for pitch in triad]
                strong = len(bass) % 2
                drums += [(at, 0.1, _KICK if strong else _SNARE, 88 if strong else 60)]
                drums += [(at, 0.1, _HAT, 60), (at + off, 0.1, _HAT, 46)]
    return _stack_rows(chords, 3), _stack_rows(bass, 3), _stack_rows(drums, 4)


def _choose_chord(melody, start, stop, key):
    """Return (root, quality) of the chord that shares most with the melody between two times."""
    tonic, mode = pitch_class(key[0]), key[1]
    palette = _PALETTES.get(mode, _PALETTES["major"])
    inside = (melody[:, 0] < stop - 1e-6) & (melody[:, 0] + melody[:, 1] > start + 1e-6)
    notes = melody[inside]
    overlap = np.minimum(notes[:, 1], stop - start) / (stop - start)
    overlap = overlap * np.where(np.abs(notes[:, 0] - start) < 1e-3, 1.6, 1.0)
    best = []
    for order, (step, quality, bonus) in enumerate(palette):
        classes = [(tonic + step + third) % 12 for third in _TRIADS[quality]]
        shared = overlap @ np.isin(notes[:, 2] % 12, classes)
        best.append((shared + 0.25 * bonus, -order, (tonic + step) % 12, quality))
    return max(best)[2:]


def _stack_rows(rows, width):
    """Return rows as float64, also where there are none.  # [n, width]"""
    return np.array(rows, np.float64).reshape(-1, width)
