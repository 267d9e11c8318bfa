"""Read the titles of pieces, which name their leak groups."""

import pathlib
import re
import unicodedata

# First part of a madrigal cycle -> number of its parts: they are one work.
_CYCLES = {(3, 8): 3, (3, 15): 3, (3, 19): 2, (4, 6): 2, (5, 4): 5}
_SMALL_WORDS = {"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"}


def read_title(source, stream, top):
    """Return the title of a piece and its form.

    Args:
      source: scores.Source.
      stream: the parsed music21 score; only a tune's title is read from it.
      top: its highest part, a music21 Part; only a chorale's words are read from it.

    Returns:
      (work, form) as in scores.Score.
    """
    file = source.name.split("/")[-1]
    if source.kind == "chorale":
        hymn = _look_up_hymn(file) or _read_first_line(top)
        return hymn or "BWV " + file[3:], "chorale"
    if source.kind == "quartet":
        work = source.name.split("/")[1]
        work = work.upper() if work[0] == "k" else re.sub(r"opus(\d+)", r"op. \1", work)
        return re.sub(r"(\d)no", r"\1 no. ", work), "quartet movement"
    if source.kind == "madrigal":
        book, number = (int(n) for n in file.split(".")[1:])
        first, last = next(
            ((a, a + n - 1) for (b, a), n in _CYCLES.items() if b == book and a <= number < a + n),
            (number, number),
        )
        work = f"madrigal {book}.{first}" + (f"-{last}" if last > first else "")
        return work, "madrigal"
    return _read_tune_title(source, stream)


def _look_up_hymn(file):
    """Return the hymn of a chorale numbered BWV 250..438, as music21's table has it, or ''."""
    from music21.corpus import chorales

    number = re.fullmatch(r"bwv(\d+)", file)
    row = chorales.ChoraleList().byBWV.get(int(number[1])) if number else None
    return row["title"] if row else ""


def _read_first_line(part):
    """Return the sung words up to the first fermata: the first line names a hymn."""
    words, joined = [], False
    for note in part.flatten().notes:
        lyric = note.lyrics[0] if note.lyrics else None
        text = re.sub(r"\s+", " ", lyric.text or "").strip() if lyric else ""
        if text and joined and words:
            words[-1] += text
        elif text:
            words.append(text)
        if text:
            joined = lyric.syllabic in ("begin", "middle")
        if len(words) > 1 and any(e.name == "fermata" for e in note.expressions):
            break
    return re.sub(r"^\d+\. ?", "", " ".join(words[:9])).strip(" ,;.:!?/")


def _read_tune_title(source, stream):
    """Return (title, dance) of a fiddle tune."""
    text = pathlib.Path(source.path).read_text(encoding="utf-8", errors="replace")
    dance = re.search(r"^R:\s*(.+?)\s*$", text, re.MULTILINE)
    form = re.sub(r"^slip ?jig$", "slip jig", dance[1].lower()) if dance else "dance tune"
    form = {"fling": "highland fling", "slide": "jig"}.get(form, form)
    name = (stream.metadata.title if stream.metadata else "") or source.name.split("/")[-1]
    name = re.split(r"\s+--?\s+", name)[0].strip(' ."')
    name = " ".join(_capitalize(i, w) for i, w in enumerate(name.split()))
    return name, form


def _capitalize(index, word):
    """Return a word of a title; small words after the first stay lower-case."""
    word = word.lower()
    return word if index and word in _SMALL_WORDS else word[:1].upper() + word[1:]


def normalize_title(text):
    """Return lower-case letters and digits without accents and articles, to compare titles."""
    text = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss"))
    text = "".join(c for c in text if c.isalnum() or c == " ")
    return "".join(w for w in text.split() if w not in ("the", "a", "o"))
