"""What a search found as one page: a table, and players of the ranges beside the query."""

import base64
import io
import pathlib

import numpy as np
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.reports.charts import absent, text
from specdiff_jax.reports.html import filled, shown, table_html, write_page

SECONDS = 15.0  # of a range that is put into the page


def write_search_report(path, told, prepared):
    """Writes the page of what `search.described` tells and returns its path.

    Args:
      prepared: {name: (samples [n, A] int16, Hz)} of songs that lie in no file.
    """
    query, found = told["query"], told["found"]
    cards = f'<div class="cards">{"".join(card(one, prepared) for one in found)}</div>'
    body = f"<section>{table(told)}</section><section>{cards}</section>"
    if query["file"]:
        first, last = query["seconds"] or (0.0, SECONDS)
        body = player(query["file"], first, last, "the query") + body
    return write_page(path, filled("plain.html", title=title(query), body=body))


def title(query):
    """What was asked for, in words."""
    file = query["file"] and pathlib.Path(query["file"]).name
    parts = [file or query["text"] or "", query["labels"] or ""]
    if query["seconds"]:
        parts[0] += f" ({query['seconds'][0]:g} to {query['seconds'][1]:g} s)"
    return text("Like " + ", ".join(filter(None, parts)))


def table(told):
    rows = []
    for one in told["found"]:
        numbers = (shown(one[name]) for name in ("score", "start", "end"))
        cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
        rows.append(f"<tr><td><bdi>{text(one['name'])}</bdi></td>{cells}</tr>")
    note = (
        f"{told['songs']:,} songs, {told['vectors']:,} vectors of {told['embedder']}. "
        "Score: cosine, 1 is the same; from and to in seconds."
    )
    return table_html(note, ["song", "score", "from", "to"], rows)


def card(one, prepared):
    """A song that was found, with its range to listen to and its labels."""
    heading = f"{one['name']}, {one['start']:.1f} to {one['end']:.1f} s"
    if one["file"] is not None:
        first, last = (one["offset"] + one[end] for end in ("start", "end"))
        sound = player(one["file"], first, last, heading)
    elif one["name"] in prepared:
        pcm, rate = prepared[one["name"]]
        first, last = (int(rate * at) for at in (one["start"], one["end"]))
        sound = sounding(pcm[first : min(last, first + int(rate * SECONDS))], rate, heading)
    else:
        sound = absent("Its sound lies in no file; --mode=prepare keeps it.")
    words = f'<p class="meta"><bdi>{text(", ".join(one["labels"]))}</bdi></p>'
    return f'<article class="card">{sound}<h3><bdi>{text(heading)}</bdi></h3>{words}</article>'


def player(file, first, last, heading):
    """A player with the range inside it, or why there is none."""
    try:
        blocks = files.Sound(file, first, min(last, first + SECONDS))
        rate, wave = blocks.sample_rate, np.concatenate(list(blocks), axis=1)
    except ValueError as error:
        return absent(f"{file} cannot be heard: {error}")
    return sounding(files.to_int16(wave.mean(axis=0)), rate, heading)


def sounding(pcm, rate, heading):
    """A player of some samples.  # [n] or [n, A] int16"""
    held = io.BytesIO()
    soundfile.write(held, pcm, rate, format="WAV", subtype="PCM_16")
    sound = base64.b64encode(held.getvalue()).decode("ascii")
    return (
        f'<audio controls preload="metadata" aria-label="{text(heading)}" '
        f'src="data:audio/wav;base64,{sound}"></audio>'
    )
