"""Write tracks of notes as the bytes of a Standard MIDI File."""

import dataclasses
import io

import numpy as np

TICKS = 480  # ticks a quarter note
MAX_MELODIC = 15  # channels of MIDI without that of the drums
VOLUME, PAN, REVERB = 7, 10, 91  # General MIDI controllers


@dataclasses.dataclass(frozen=True)
class Track:
    """One instrument's notes.

    Attributes:
      program: General MIDI program, 0..127; ignored for drums.
      notes: [n, 4] float64 of (onset, duration, pitch, velocity), times in quarter notes.
      pan: 0 (left) .. 127 (right).
      volume: 0..127, General MIDI channel volume.
      room: 0..127, the share that is sent to the reverberation.
      drums: True for the percussion channel.
    """

    program: int
    notes: np.ndarray
    pan: int = 64
    volume: int = 90
    room: int = 80
    drums: bool = False


def encode_midi(tracks, quarter_bpm, quarters):
    """Return the bytes of a MIDI file that lasts until `quarters`.

    Args:
      tracks: sequence of Track, drums last; at most 15 melodic ones. Notes past the end are cut.
      quarter_bpm: quarter notes a minute.
      quarters: length of the file in quarter notes.

    Raises:
      ValueError: more melodic tracks than MIDI has channels.
    """
    import pretty_midi  # an extra

    if sum(not track.drums for track in tracks) > MAX_MELODIC:
        raise ValueError(f"{len(tracks)} tracks do not fit the 15 melodic channels of MIDI")
    # pretty_midi truncates the tempo to whole microseconds: half of one keeps it exact.
    tempo = 60e6 / (microseconds_per_quarter(quarter_bpm) + 0.5)
    file = pretty_midi.PrettyMIDI(resolution=TICKS, initial_tempo=tempo)
    end = round(quarters * TICKS)
    for track in tracks:
        program = 0 if track.drums else track.program
        instrument = pretty_midi.Instrument(program, is_drum=track.drums)
        for controller, value in ((VOLUME, track.volume), (PAN, track.pan), (REVERB, track.room)):
            change = pretty_midi.ControlChange(controller, value, 0.0)
            instrument.control_changes.append(change)
        for start, stop, pitch, velocity in quantize_notes(track.notes, end):
            times = file.tick_to_time(start), file.tick_to_time(stop)
            instrument.notes.append(pretty_midi.Note(velocity, pitch, *times))
        file.instruments.append(instrument)
    # The file lasts until its last event, which may be later than its last note.
    file.lyrics.append(pretty_midi.Lyric("", file.tick_to_time(end)))
    buffer = io.BytesIO()
    file.write(buffer)
    return buffer.getvalue()


def microseconds_per_quarter(quarter_bpm):
    """Return the integer in which MIDI stores a tempo."""
    return round(60e6 / quarter_bpm)


def quantize_notes(notes, end):
    """Yield (start, stop, pitch, velocity) of notes in ticks, cut at `end`, none of them empty.

    A note waits for the end of an earlier one of its pitch: a channel plays a pitch once.
    """
    free_at = {}  # pitch -> tick at which it last ended
    for onset, duration, pitch, velocity in notes[np.argsort(notes[:, 0], kind="stable")]:
        pitch = int(pitch)
        start = max(round(onset * TICKS), 0, free_at.get(pitch, 0))
        stop = min(round((onset + duration) * TICKS), end)
        if stop > start:
            free_at[pitch] = stop
            yield start, stop, pitch, int(min(max(velocity, 1), 127))
