"""Tracks of notes -> the bytes of a Standard MIDI File."""

import dataclasses
import struct

import numpy as np

TICKS = 480  # ticks a quarter note
DRUM_CHANNEL = 9


@dataclasses.dataclass(frozen=True)
class Track:
    """One instrument's notes.

    Attributes:
      program: General MIDI program, 0..127; ignored for drums.
      notes: [n, 4] float64 of (onset, duration, pitch, velocity), times in quarter notes.
      pan: 0 (left) .. 127 (right).
      volume: 0..127, General MIDI channel volume.
      room: 0..127, how much of it goes through the reverberation.
      drums: True for the percussion channel.
    """

    program: int
    notes: np.ndarray
    pan: int = 64
    volume: int = 90
    room: int = 80
    drums: bool = False


def encode_midi(tracks, quarter_bpm, quarters):
    """A format-0 MIDI file that ends exactly at `quarters`.

    Args:
      tracks: sequence of Track; at most 15 melodic ones. Notes past the end are cut.
      quarter_bpm: quarter notes a minute.
      quarters: length of the file in quarter notes.

    Raises:
      ValueError: more melodic tracks than MIDI has channels.
    """
    channels = [c for c in range(16) if c != DRUM_CHANNEL]
    if sum(not track.drums for track in tracks) > len(channels):
        raise ValueError(f"{len(tracks)} tracks do not fit the 15 melodic channels of MIDI")
    end = round(quarters * TICKS)
    events = []  # (tick, order, message): at equal ticks notes end before others begin
    for track in tracks:
        channel = DRUM_CHANNEL if track.drums else channels.pop(0)
        events += _setup_events(track, channel) + _note_events(track.notes, channel, end)
    events.sort()
    tempo = struct.pack(">I", microseconds_per_quarter(quarter_bpm))[1:]
    body = [b"\x00\xff\x51\x03", tempo]
    now = 0
    for tick, _, message in events:
        body += [_variable_length(tick - now), message]
        now = tick
    body += [_variable_length(end - now), b"\xff\x2f\x00"]
    data = b"".join(body)
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
    return header + b"MTrk" + struct.pack(">I", len(data)) + data


def microseconds_per_quarter(quarter_bpm):
    """The integer in which MIDI stores a tempo."""
    return round(60e6 / quarter_bpm)


def _setup_events(track, channel):
    program = bytes([0xC0 | channel, 0 if track.drums else track.program])
    volume = bytes([0xB0 | channel, 7, track.volume])
    pan = bytes([0xB0 | channel, 10, track.pan])
    room = bytes([0xB0 | channel, 91, track.room])
    return [(0, 0, message) for message in (program, volume, pan, room)]


def _note_events(notes, channel, end):
    events = []
    free_at = {}  # pitch -> tick at which it last ended: one channel cannot hold a pitch twice
    for onset, duration, pitch, velocity in notes[np.argsort(notes[:, 0], kind="stable")]:
        pitch = int(pitch)
        start = max(round(onset * TICKS), 0, free_at.get(pitch, 0))
        stop = min(round((onset + duration) * TICKS), end)
        if stop <= start:
            continue
        free_at[pitch] = stop
        velocity = int(min(max(velocity, 1), 127))
        events.append((start, 2, bytes([0x90 | channel, pitch, velocity])))
        events.append((stop, 1, bytes([0x80 | channel, pitch, 0])))
    return events


def _variable_length(number):
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(0x80 | number & 0x7F)
    return bytes(reversed(out))
