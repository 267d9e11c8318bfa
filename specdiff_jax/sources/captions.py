"""Labels -> captions: two or three sentences a person might write, saying only what labels say."""

import zlib

_WITH_FORM = (
    "{A} {tempo} {form} in {key} {mode}, played by {players}.",
    "{Players} performing {a} {tempo} {genre} {form}.",
    "This {genre} {form} in {metre} time is performed by {players}.",
)
_WITH_COMPOSER = (
    "{Origin} {form} in {key} {mode}, {tempo_phrase}, for {players}.",
    "Music by {composer}: {a} {form} in {metre}, arranged for {players}.",
    "{Genre} music for {players}, {tempo_phrase}, in {key} {mode}.",
)
_SHORT = (
    "{Genre} {form}, {tempo}, {instruments}.",
    "{Ensemble}, {instruments}, {mode} key, {tempo_phrase}.",
    "{A} {tempo} piece in {metre} with {instruments}.",
)
_TEMPO = {
    "slow": ("slow", "unhurried", "at a slow pace"),
    "moderate": ("moderate", "mid-tempo", "at a moderate pace"),
    "fast": ("fast", "lively", "at a quick pace"),
}
_ENSEMBLES_WITH_MEMBERS = ("duo", "trio", "folk band", "mixed quartet")
_COMPOSERS = {
    "bach": "Johann Sebastian Bach",
    "mozart": "Mozart",
    "haydn": "Haydn",
    "beethoven": "Beethoven",
    "monteverdi": "Monteverdi",
}


def captions(labels):
    """Captions of a labelled song.

    Args:
      labels: 'key:value' strings with composer, genre, form, instrument (one or more), ensemble,
        key, mode, metre and tempo, as `arrangements.arrange` makes them.

    Returns:
      tuple of two or three strings. The same labels always give the same captions.
    """
    seed = zlib.crc32("|".join(labels).encode())
    words = _words(labels, seed)
    # One way of speaking from each group, so that the captions of a song differ in kind.
    groups = [_WITH_FORM, _WITH_COMPOSER, _SHORT]
    chosen = [group[(seed >> (4 * i)) % len(group)] for i, group in enumerate(groups)]
    if words["composer"] == "traditional" and "{composer}" in chosen[1]:
        chosen[1] = _WITH_COMPOSER[0]
    count = 3 if seed >> 16 & 1 else 2
    return tuple(template.format(**words) for template in chosen[:count])


def _words(labels, seed):
    of = {}
    for label in labels:
        name, value = label.split(":", 1)
        of.setdefault(name, []).append(value)
    instruments = of["instrument"]
    words = {name: values[0] for name, values in of.items()}
    words["instruments"] = _list(instruments)
    words["players"] = _players(words["ensemble"], instruments)
    words["composer"] = _COMPOSERS.get(words["composer"], words["composer"])
    words["origin"] = "traditional" if words["composer"] == "traditional" else words["genre"]
    adjectives = _TEMPO[words["tempo"]]
    words["tempo"] = adjectives[(seed >> 20) % 2]
    words["tempo_phrase"] = adjectives[2]
    words["a"] = _article(words["tempo"])
    words |= {name.capitalize(): text[:1].upper() + text[1:] for name, text in words.items()}
    return words


def _players(ensemble, instruments):
    if ensemble == "solo":
        return f"solo {instruments[0]}"
    if ensemble in _ENSEMBLES_WITH_MEMBERS:
        return f"{_article(ensemble)} {ensemble} of {_list(instruments)}"
    if ensemble == "choir":
        return "a choir"
    return f"{_article(ensemble)} {ensemble} ({_list(instruments)})"


def _list(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _article(word):
    return "an" if word[0] in "aeiou" else "a"
