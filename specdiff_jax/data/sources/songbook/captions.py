"""Write captions of a song from its labels, as different people might, with no other content."""

import random
import re
import zlib

from specdiff_jax.data.sources.songbook import caption_words as table

# Kind -> its templates. A song gets one caption of each kind. People differ in how much they
# describe, so most templates use a part of the labels. "a" becomes "an" before a vowel.
TEMPLATES = {
    # In the labels' own words: a prompt that can be compared with the labels of its output.
    "literal": (
        "a {tempo} {form} in {key} {mode}, {played} by {cast}.",
        "{cast} performing a {tempo} {genre} {form} in {key} {mode}.",
        "this {tempo} {genre} {form} in {key} {mode} is performed by {cast}.",
        "{genre} {form} in {key} {mode}, {tempo} in tempo, for {cast}.",
        "music {by}: a {tempo} {form} in {key} {mode}, arranged for {cast}.",
        "{genre} music for {cast}, {tempo} in tempo, in {key} {mode}.",
    ),
    "formal": (
        "a {slow} {piece} {by}, {played} by {players}.",
        "{style} {piece} {in_minor}, arranged for {players}.",
        "{style} music {in_minor} performed {slowly} by {players}.",
        "a {piece} {by} in {metre} time, scored for {players}.",
        "a recording of a {sad} {style} {piece}.",
        "the recording features {players} {playing} {slowly}.",
        "a {style} {piece} in {metre} time, {played} {slowly}.",
    ),
    "sentence": (
        "here you can hear {players} in a {sad} {piece}.",
        "it sounds {mood} and is {played} by {players}.",
        "{players} {playing} something {mood}.",
        "{players} {playing} {slowly}.",
        "this is a {slow} {piece} {setting}.",
        "I hear {some}, and the mood is {mood}.",
        "sounds like {players} {playing} a {slow} {piece}.",
        "the music is {slow} and {mood}.",
        "the music is {played} by {players}, {slowly}.",
    ),
    "request": (
        "give me {players} {playing} a {sad} {piece}.",
        "give me something {slow} with {some}.",
        "I want to hear a {slow} {piece} {setting}.",
        "please play some {sad} {style} music.",
        "can I have a {slow} {piece} {in_minor}?",
        "make a {sad} {piece} for {players}.",
        "I'd like {players}, please, {slowly}.",
        "looking for {style} music with {some}.",
        "could you make it {mood} and {slow}, with {some}?",
    ),
    "long": (
        "{players} can be heard in this {style} {piece}. it is {slow} and the mood is {mood}.",
        "this is a {piece} {by} {in_minor}, {played} {slowly}. it features {some}.",
        "a {sad} {piece} {setting}, in {metre} time. it is {played} by {players}, {slowly}.",
        "this is an example of {style} music {by}. you hear {some}, {slow} and {mood}.",
        "someone arranged this {piece} for {players}. it is {played} {slowly} and stays {mood}.",
    ),
    "tags": (
        "{one}, {sad}, {slow}",
        "{slow}, {sad}",
        "{style}, {one}, {sad}",
        "{bare}, {slow}",
        "{bare}, {sad}",
        "{group}, {sad}, {slow}",
        "{group}, {style}",
        "{sad}, {piece}, {one}",
        "{style}, {piece}, {slow}, {bare}",
    ),
    "short": (
        "{slow} {one}",
        "{sad} {one}",
        "{slow} {group}",
        "{sad} {group}",
        "{sad} {one} music",
        "{one} {slowly}",
        "{slow} {piece}",
        "{sad} {slow} music",
        "{one} {in_minor}",
    ),
    "name": ("{one}", "{group}", "{ensemble}", "{one} music", "{some}"),
}
CASUAL = ("request", "tags", "short", "name")  # half of these are written in lower case
SUNG = {"choir", "voice"}


def write_captions(labels):
    """Return captions of a labelled song.

    Args:
      labels: 'key:value' strings with composer, genre, form, instrument (one or more), ensemble,
        key, mode, metre and tempo, as `arrangements.arrange` makes them.

    Returns:
      tuple of strings, one of each kind of TEMPLATES. The first names instruments and ensemble as
      the labels do. The same labels always give the same captions.
    """
    rng = random.Random(zlib.crc32("|".join(labels).encode()))
    of = {}
    for label in labels:
        name, value = label.split(":", 1)
        of.setdefault(name, []).append(value)
    instruments = of.pop("instrument")
    of = {name: values[0] for name, values in of.items()}
    return tuple(_write_caption(kind, of, instruments, rng) for kind in TEMPLATES)


def _write_caption(kind, of, instruments, rng):
    """Fill a random template of a kind."""
    # Each caption draws its own words, as another person would.
    words = _draw_words(of, instruments, rng) | _draw_players(of["ensemble"], instruments, rng)
    text = rng.choice(TEMPLATES[kind]).format(**of | words)
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    if kind in CASUAL and rng.random() < 0.5:
        return text.rstrip(".")
    return re.sub(r"(^|[.] )([a-z])", lambda match: match[0].upper(), text)


def _draw_words(of, instruments, rng):
    """Draw the words that describe the music."""
    moods = table.MODE[of["mode"]]
    sung = SUNG.issuperset(instruments)
    forms = table.FORMS.get(of["form"]) or (of["form"], *table.DANCES)
    return {
        "slow": rng.choice(table.TEMPO[of["tempo"]]),
        "slowly": rng.choice(table.PACE[of["tempo"]]),
        "sad": rng.choice(moods),
        "mood": rng.choice(moods[2:] or moods),  # nobody writes "it sounds major"
        "in_minor": rng.choice(table.KEY[of["mode"]]),
        "piece": rng.choice(forms + (table.ANY_FORM[:2] if sung else table.ANY_FORM)),
        "style": rng.choice(table.GENRES[of["genre"]]),
        "setting": rng.choice(table.SETTINGS[of["genre"]]),
        "by": rng.choice(table.BY[of["composer"]]),
        "played": "sung" if sung else "played",
        "playing": "singing" if sung else "playing",
    }


def _draw_players(ensemble, instruments, rng):
    """Draw the words for the players: by instruments, by ensemble, by both."""
    names = [rng.choice(table.INSTRUMENTS[name]) for name in instruments]
    if len(set(names)) < len(names):  # "a guitar and a guitar"
        names = instruments
    person = table.PERSONS.get(instruments[0], f"{instruments[0]} player")
    called = [p.format(one=names[0], person=person) for p in table.ENSEMBLES[ensemble]]
    groups = [name[2:] for name in called if name.startswith("a ") and "cappella" not in name]
    group = rng.choice(called)
    bare, some = _join_names(names), _join_names([_add_article(name) for name in names])
    ways = [group, f"{group} ({bare})", f"{group} with {some}", some]
    if len(names) == 1:  # not "four guitars (guitar)"
        ways = ways[:1] if ensemble == "solo" or names[0].rstrip("s") in group else ways[:2]
    return {
        "cast": name_cast(ensemble, instruments),
        "players": rng.choice(ways),
        "ensemble": group,
        "group": rng.choice(groups),
        "bare": bare,
        "some": some if len(names) > 1 or ensemble == "solo" else group,
        "one": rng.choice((names[0], rng.choice(names))),
    }


def name_cast(ensemble, instruments):
    """Return the players in the labels' own words."""
    if ensemble == "solo":
        return f"solo {instruments[0]}"
    if instruments == [ensemble]:
        return f"a {ensemble}"
    return f"a {ensemble} ({_join_names(instruments)})"


def _join_names(names):
    """Return 'a, b and c'."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _add_article(name):
    """Return a name with its article; plurals and mass nouns have none."""
    plural = name.endswith("s") and not name.endswith("ss")
    return name if plural or name in table.MASS else f"a {name}"
