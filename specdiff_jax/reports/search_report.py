"""The page of a search: a table of results, and players of the ranges beside the query."""

import base64
import io
import pathlib

import numpy as np
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.reports.html import Card, Row, Table, format_number, render, write_page

SECONDS = 15.0  # of a range that is put into the page


def write_search_report(path, results, prepared):
    """Write the page of the results of a search and return its path.

    Args:
      results: the value that --mode=search writes as JSON.
      prepared: {name: (samples [n, A] int16, Hz)} of songs that lie in no file.
    """
    query = results["query"]
    player = None
    if query["file"]:
        first, last = query["seconds"] or (0.0, SECONDS)
        player = load_player(query["file"], first, last, "the query")
    page = render(
        "search_report.html",
        title=describe_query(query),
        query=player,
        songs=tabulate_songs(results),
        cards=[load_result(row, prepared) for row in results["results"]],
    )
    return write_page(path, page)


def describe_query(query):
    """Return the query as a heading."""
    file = query["file"] and pathlib.Path(query["file"]).name
    parts = [file or query["text"] or "", query["labels"] or ""]
    if query["seconds"]:
        parts[0] += f" ({query['seconds'][0]:g} to {query['seconds'][1]:g} s)"
    return "Like " + ", ".join(filter(None, parts))


def tabulate_songs(results):
    """Return the songs with their scores and ranges."""
    rows = [
        Row(row["name"], tuple(format_number(row[key]) for key in ("score", "start", "end")))
        for row in results["results"]
    ]
    note = (
        f"{results['songs']:,} songs, {results['vectors']:,} vectors of {results['embedder']}. "
        "Score: cosine, 1 is the same; from and to in seconds."
    )
    return Table(note, ("song", "score", "from", "to"), rows)


def load_result(row, prepared):
    """Return the Card of a song: the range that matches the query, and the song's labels."""
    heading = f"{row['name']}, {row['start']:.1f} to {row['end']:.1f} s"
    labels = ", ".join(row["labels"])
    if row["file"] is not None:
        first, last = (row["offset"] + row[end] for end in ("start", "end"))
        return load_player(row["file"], first, last, heading, labels)
    if row["name"] in prepared:
        pcm, rate = prepared[row["name"]]
        first, last = (int(rate * at) for at in (row["start"], row["end"]))
        sound = encode_wav(pcm[first : min(last, first + int(rate * SECONDS))], rate)
        return Card(heading, sound=sound, lines=(("meta", labels),))
    missing = ("Its sound lies in no file; --mode=prepare keeps it.",)
    return Card(heading, missing=missing, lines=(("meta", labels),))


def load_player(file, first, last, heading, labels=""):
    """Return the Card of a range of a file, or with the reason why it cannot be played."""
    lines = (("meta", labels),)
    try:
        blocks = files.Sound(file, first, min(last, first + SECONDS))
        rate, wave = blocks.sample_rate, np.concatenate(list(blocks), axis=1)
    except ValueError as error:
        return Card(heading, missing=(f"{file} cannot be played: {error}",), lines=lines)
    sound = encode_wav(files.to_int16(wave.mean(axis=0)), rate)
    return Card(heading, sound=sound, lines=lines)


def encode_wav(pcm, rate):
    """Return samples as a `data:` URI of a WAV file.  # [n] or [n, A] int16"""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
