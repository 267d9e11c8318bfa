"""The songbook: its sound agrees with its labels and is reproducible."""

import collections
import dataclasses
import itertools
import re

import numpy as np
import pytest

from specdiff_jax.data.sources.items import Skipped, Song
from specdiff_jax.data.sources.songbook import (
    accompaniment,
    arrangements,
    caption_words,
    captions,
    instruments,
    midi,
    scores,
    songbook,
    titles,
)

SECONDS = 4.0


@pytest.fixture(scope="module")
def results():
    return list(songbook.render_songs(4, SECONDS, seed=0, workers=1))


@pytest.fixture(scope="module")
def four(results):
    return [result for result in results if isinstance(result, Song)]


@pytest.fixture(scope="module")
def order():
    return scores.list_sources(songbook._find_corpus(), seed=0)


def _tune(pitches, name="ryansMammoth/tune", work="tune", length=None):
    """A score of quavers in G, one part."""
    notes = np.array([(i / 2, 0.5, pitch) for i, pitch in enumerate(pitches)], np.float64)
    length = length or len(pitches) / 2
    return scores.Score(
        kind="tune",
        name=name,
        composer="ryansMammoth",
        work=work,
        form="reel",
        parts=(notes,),
        length=length,
        bars=np.arange(0, length, 2),
        meters=((0.0, "2/4"),),
        key=("G", "major"),
    )


def _walk(count, seed=0):
    return 67 + np.cumsum(np.random.default_rng(seed).choice([-4, -2, -1, 1, 2, 4], count))


# rendering


@pytest.mark.slow
def test_songbook_is_equal_for_any_number_of_workers(results):
    # Fewer pieces too: a longer songbook begins with the shorter one.
    again = list(songbook.render_songs(3, SECONDS, seed=0, workers=2))
    assert sum(isinstance(result, Song) for result in again) == 3
    for one, other in zip(results, again, strict=False):
        one, other = dict(vars(one)), dict(vars(other))
        for ours, theirs in zip(one.pop("audio", ()), other.pop("audio", ()), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert one == other


def test_songs_have_the_requested_length_one_loudness_and_no_silence(four):
    assert len(four) == 4
    for song in four:
        assert song.audio.wave.shape == (2, round(SECONDS * song.audio.sample_rate))
        assert song.audio.wave.dtype == np.float32
        assert np.abs(song.audio.wave).max() < 1.0
        assert np.sqrt(np.mean(song.audio.wave**2)) == pytest.approx(0.1, rel=0.02)
        tenths = np.abs(song.audio.wave).mean(0).reshape(-1, 4800)
        assert (tenths.max(1) > 0).all()
        level = 20 * np.log10(np.sqrt(np.mean(tenths**2, axis=1)))
        assert (level > -50).mean() > 0.8


@pytest.mark.parametrize(("instrument", "pitch"), [("flute", 69), ("church organ", 48)])
def test_rendered_note_has_its_pitch(instrument, pitch):
    note = np.array([[0.0, 4.0, pitch, 100.0]])
    track = midi.Track(instruments.PROGRAMS[instrument], note)
    wave = songbook.render_midi(
        midi.encode_midi([track], 120.0, 4.0), songbook.read_soundfont()
    ).mean(0)
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    # Harmonic product: the fundamental is where its overtones have energy too.
    size = len(power) // 4
    product = np.prod([power[::k][:size] for k in (1, 2, 3)], axis=0)
    low = int(50 * len(wave) / songbook.SAMPLE_RATE)
    hertz = (low + product[low:].argmax()) * songbook.SAMPLE_RATE / len(wave)
    assert hertz == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.01)


def test_rendered_note_begins_at_its_tempo():
    note = np.array([[2.0, 1.0, 60, 110.0]])
    track = midi.Track(instruments.PROGRAMS["piano"], note)
    for bpm in (60.0, 150.0):
        wave = songbook.render_midi(midi.encode_midi([track], bpm, 4.0), songbook.read_soundfont())
        first = np.argmax(np.abs(wave).max(0) > 0.01) / songbook.SAMPLE_RATE
        assert first == pytest.approx(2 * 60 / bpm, abs=0.02)


def test_songbook_depends_on_the_seed(four):
    other = next(
        s for s in songbook.render_songs(1, SECONDS, seed=1, workers=1) if isinstance(s, Song)
    )
    assert other.name != four[0].name


# labels and captions


def test_labels_are_complete(four):
    for song in four:
        count = collections.Counter(label.split(":")[0] for label in song.labels)
        assert count.pop("instrument") >= 1
        keys = ("composer", "genre", "form", "ensemble", "key", "mode", "metre", "tempo")
        assert count == dict.fromkeys(keys, 1)
        assert len(song.captions) == 8


@pytest.mark.parametrize("metre", ["2/4", "2/2"])
def test_tempo_label_equals_the_tempo_of_the_midi_file(metre):
    seen = set()
    for seed in range(12):
        score = dataclasses.replace(_tune(_walk(64)), meters=((0.0, metre),))
        plan = arrangements.arrange(score, SECONDS, np.random.default_rng(seed))
        data = midi.encode_midi(plan.tracks, plan.quarter_bpm, plan.quarters)
        microseconds = int.from_bytes(re.search(rb"\xff\x51\x03(...)", data, re.DOTALL)[1], "big")
        beats = 60e6 / microseconds / (2 if metre == "2/2" else 1)
        speed = "slow" if beats < 76 else "moderate" if beats < 112 else "fast"
        assert f"tempo:{speed}" in plan.labels
        assert plan.quarters * microseconds / 1e6 == pytest.approx(SECONDS, rel=1e-4)
        seen.add(speed)
    assert len(seen) > 1


def test_instrument_labels_equal_the_programs_of_the_tracks():
    names = {program: name for name, program in instruments.PROGRAMS.items()}
    for seed in range(12):
        plan = arrangements.arrange(_tune(_walk(64)), SECONDS, np.random.default_rng(seed))
        playing = {"drums" if t.drums else names[t.program] for t in plan.tracks if len(t.notes)}
        assert playing == {x[11:] for x in plan.labels if x.startswith("instrument:")}


@pytest.fixture(scope="module")
def captioned():
    """(labels as a dict, captions) of songs of every cast, composer, tempo and mode."""
    casts = {cast for casts in instruments.ENSEMBLES.values() for cast in casts}
    backing = (("steel guitar", "double bass"), ("nylon guitar", "electric bass"))
    for lead, (comp, bass) in itertools.product(instruments.MELODIES, backing):
        band = (lead, comp if comp != lead else "piano", bass, "drums")
        casts |= {(name, band[:size]) for size, name in BANDS.items()}
    music = itertools.product(
        [("bach", "chorale"), ("traditional", "slip jig"), ("monteverdi", "madrigal")],
        caption_words.MODE,
        caption_words.TEMPO,
    )
    result = []
    for ((composer, form), mode, tempo), (ensemble, names) in itertools.product(
        music, sorted(casts)
    ):
        genre = {"bach": "baroque", "monteverdi": "renaissance"}.get(composer, "folk")
        meaning = dict(composer=composer, genre=genre, form=form, ensemble=ensemble, key="F#")
        meaning |= dict(mode=mode, metre="6/8", tempo=tempo)
        labels = [f"{k}:{v}" for k, v in meaning.items()]
        labels += [f"instrument:{name}" for name in dict.fromkeys(names)]
        result.append((meaning | {"instrument": set(names)}, captions.write_captions(labels)))
    return result


BANDS = {1: "solo", 2: "duo", 3: "trio", 4: "folk band"}


def _meanings():
    """Kind of label -> word -> the labels it may stand for."""
    means = {kind: collections.defaultdict(set) for kind in ("player", "tempo", "mode", "form")}
    for name, words in caption_words.INSTRUMENTS.items():
        people = caption_words.PERSONS.get(name, f"{name} player")
        for word in (*words, people):
            for form in (word, f"{word}s"):
                means["player"][form].add(name)
    for word, names in _ensemble_words().items():
        means["player"][word] |= names
    for kind, tables in (("tempo", ("TEMPO", "PACE")), ("mode", ("MODE", "KEY"))):
        for words in tables:
            for name, ways in getattr(caption_words, words).items():
                for word in (name, *ways):
                    means[kind][word].add(name)
    for name in ("chorale", "madrigal", "slip jig"):
        for word in caption_words.FORMS.get(name, (name, *caption_words.DANCES)):
            means["form"][word].add(name)
    means["player"]["strings"] |= {"violin", "viola", "cello"}  # of a quartet too
    return means


def _ensemble_words():
    words = collections.defaultdict(set)
    for name, phrases in caption_words.ENSEMBLES.items():
        for phrase in (name, *phrases):
            # Without its place for an instrument, "a lone {one}" is "lone".
            words[re.sub(r"\{\w+\}", "", phrase).strip().removeprefix("a ").strip()].add(name)
    return words


def _reader(means):
    """text -> [(word, the labels it may stand for)] of its words, the longest of each place."""
    words = "|".join(map(re.escape, sorted(means, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")
    return lambda text: [(word, means[word]) for word in pattern.findall(text)]


def _allowed_labels(meaning):
    return {
        "player": meaning["instrument"] | {meaning["ensemble"]},
        "tempo": {meaning["tempo"]},
        "mode": {meaning["mode"]},
        "form": {meaning["form"]},
    }


def test_captions_contain_only_words_of_their_labels(captioned):
    readers = {kind: _reader(means) for kind, means in _meanings().items()}
    for meaning, texts in captioned:
        allowed = _allowed_labels(meaning)
        for text in texts:
            plain = re.sub(r"\ban (?=[aeiou])", "a ", text.lower())
            for kind, read in readers.items():
                for word, labels in read(plain):
                    assert labels & allowed[kind], (word, text, meaning)
            keys = set(re.findall(r" in (\S+) (?:major|minor|dorian|mixolydian)", text))
            assert keys <= {"F#", "a", "the"}
            assert set(re.findall(r"\d+/\d+", text)) <= {meaning["metre"]}


def test_ensemble_words_name_no_instrument_that_the_ensemble_lacks():
    casts = collections.defaultdict(set)
    for ensemble, names in itertools.chain(*instruments.ENSEMBLES.values()):
        casts[ensemble] |= {*names, ensemble}
    casts["folk band"] |= {"drums"}
    means = {
        w: names & set(caption_words.INSTRUMENTS) for w, names in _meanings()["player"].items()
    }
    read = _reader({word: names for word, names in means.items() if names})
    for ensemble, phrases in caption_words.ENSEMBLES.items():
        for phrase in phrases:
            for word, labels in read(phrase):
                assert labels & casts[ensemble], (word, phrase, ensemble)


def test_captions_are_one_of_each_kind_and_the_first_literal(captioned):
    for meaning, texts in captioned:
        assert len(texts) == 8
        assert meaning["ensemble"] in texts[0].lower()
        assert all(name in texts[0].lower() for name in meaning["instrument"] - {"choir"})
        assert texts[0][0].isupper() and texts[0].endswith(".")
        for text in texts:
            assert not re.search(r"\ba [aeiou]|[{}]|  |\ban [^aeiou]", text)
            assert text == text.strip() and len(text) < 250


def test_captions_vary_in_length_words_and_content(captioned):
    texts = [text for _, texts in captioned for text in texts]
    assert np.mean([len(text.split()) <= 5 for text in texts]) >= 0.25
    everything = " \n ".join(texts).lower()
    tables = ("INSTRUMENTS", "TEMPO", "PACE", "MODE", "KEY")
    for table in tables:
        for word in itertools.chain(*getattr(caption_words, table).values()):
            assert word in everything, word
    for word, ensembles in _ensemble_words().items():
        assert word in everything, (word, ensembles)
    means = _meanings()
    lead, group = set(caption_words.INSTRUMENTS), set(caption_words.ENSEMBLES)
    means["instrument"] = {w: n for w, n in means["player"].items() if n & lead}
    means["ensemble"] = {w: n for w, n in means["player"].items() if n & group}
    for kind in ("instrument", "ensemble", "tempo", "mode"):
        read = _reader(means[kind])
        fraction = np.mean([bool(read(text.lower())) for text in texts[::7]])
        assert 0.2 < fraction < 0.9, kind


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_estimated_key_follows_a_transposition(mode):
    scale = [0, 2, 4, 5, 7, 9, 11, 12] if mode == "major" else [0, 2, 3, 5, 7, 8, 11, 12]
    for tonic in range(12):
        notes = np.array([(i, 1 + 2 * (step % 12 in (0, 7)), 60) for i, step in enumerate(scale)])
        notes[:, 2] += np.array(scale) + tonic
        key = arrangements.estimate_key(notes.astype(float))
        assert (accompaniment.pitch_class(key[0]), key[1]) == (tonic, mode)


@pytest.mark.parametrize(("root", "quality"), [(7, "major"), (2, "major"), (0, "major")])
def test_accompaniment_of_a_broken_chord_is_that_chord(root, quality):
    melody = np.array([(i, 1, 60 + root + (0, 4, 7, 12)[i % 4]) for i in range(8)], float)
    chords, bass, _ = accompaniment.accompany(melody, np.array([0.0, 4]), 1, "4/4", ("G", "major"))
    assert {int(p) % 12 for p in chords[:, 2]} == {(root + step) % 12 for step in (0, 4, 7)}
    assert {int(p) % 12 for p in bass[:, 2]} <= {root % 12, (root + 7) % 12}


# scores


def test_list_sources_mixes_kinds_by_share_without_repeats(order):
    assert order == scores.list_sources(songbook._find_corpus(), seed=0)
    assert order != scores.list_sources(songbook._find_corpus(), seed=1)
    first = collections.Counter()
    for source in itertools.takewhile(lambda _: first.total() < 300, order):
        first[source.kind] += source.count
    for kind, (_, share) in scores.KINDS.items():
        assert first[kind] / first.total() == pytest.approx(share, abs=0.02)
    excerpts = [(s.name, i) for s in order for i in range(s.first, s.first + s.count)]
    assert len(excerpts) == len(set(excerpts)) > 1400
    assert {s.name.split("/")[0] for s in order} == set(scores.COMPOSERS)


def test_read_notes_joins_ties_and_drops_grace_notes():
    from music21 import converter, note

    stream = converter.parse("tinyNotation: 4/4 c2 c2~ c2 d4 e4")
    stream.recurse().notes.last().activeSite.insert(0, note.Note("G5").getGrace())
    expected = [(0, 2, 60), (2, 4, 60), (6, 1, 62), (7, 1, 64)]
    np.testing.assert_array_equal(scores._read_notes(stream), expected)


def test_cut_part_repeats_a_short_piece_without_a_gap():
    part = _tune(_walk(16)).parts[0]
    cut = arrangements._cut_part(part, 8.0, 3.0, 20.0)
    np.testing.assert_allclose(cut[:, 0], np.arange(0, 20, 0.5))
    np.testing.assert_array_equal(cut[:, 2], np.resize(np.roll(part[:, 2], -6), 40))


def test_arrange_rejects_long_rests():
    rests = _tune(_walk(16), length=400.0)
    with pytest.raises(scores.Unusable, match="rests for"):
        arrangements.arrange(rests, 30.0, np.random.default_rng(0))


def test_broken_score_is_skipped_with_its_reason(tmp_path):
    bad = tmp_path / "bad.mxl"
    bad.write_bytes(b"not a zip")
    job = scores.Source("chorale", str(bad), "bach/bad"), SECONDS, 0
    [result] = songbook._render_source(job)
    assert isinstance(result, Skipped)
    assert result.name == "bach/bad" and "parse" in result.reason and "\n" not in result.reason


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("mozart/k155/movement1", "K155"),
        ("mozart/k155/movement3", "K155"),
        ("beethoven/opus18no1/movement2", "op. 18 no. 1"),
        ("beethoven/opus132", "op. 132"),
        ("monteverdi/madrigal.3.15", "madrigal 3.15-17"),
        ("monteverdi/madrigal.3.17", "madrigal 3.15-17"),
        ("monteverdi/madrigal.3.18", "madrigal 3.18"),
    ],
)
def test_parts_of_a_work_share_their_group(order, name, work):
    source = next(s for s in order if s.name == name)
    assert titles.read_title(source, None, None)[0] == work


# leak groups


def _admit(groups, score):
    song = Song(score.name, f"Trad.: {score.work}", (), (), np.zeros((2, 1)), 1)
    return groups.admit((song, songbook.fingerprint_score(score)))


def test_tune_with_two_names_or_keys_is_one_group():
    groups = songbook._LeakGroups()
    tune = _walk(60)
    first = _admit(groups, _tune(tune, "x/first", "first"))
    variant = np.concatenate([tune[:40] + 5, _walk(20, seed=9)])
    second = _admit(groups, _tune(variant, "x/second", "second"))
    stranger = _admit(groups, _tune(_walk(60, seed=5), "x/third", "third"))
    namesake = _admit(groups, _tune(_walk(60, seed=6), "x/fourth", "The Third"))
    assert first.artist == second.artist == "Trad.: first"
    assert stranger.artist == namesake.artist == "Trad.: third"


def test_duplicates_and_pieces_of_two_groups_are_skipped():
    groups = songbook._LeakGroups()
    one, other = _walk(60), _walk(60, seed=5)
    _admit(groups, _tune(one, "x/one", "one"))
    _admit(groups, _tune(other, "x/other", "other"))
    copy = _admit(groups, _tune(one - 7, "x/copy", "copy"))
    medley = _admit(groups, _tune(np.concatenate([one, other]), "x/medley", "medley"))
    assert copy == Skipped("x/copy", "the same notes as x/one")
    assert isinstance(medley, Skipped) and "one" in medley.reason and "other" in medley.reason


# bad input


def test_missing_package_is_named_with_its_remedy(monkeypatch):
    real = songbook.importlib.util.find_spec
    for missing in ("music21", "midirenderer", "pretty_midi"):
        without = lambda name, gone=missing: None if name == gone else real(name)
        monkeypatch.setattr(songbook.importlib.util, "find_spec", without)
        with pytest.raises(ValueError, match=rf"{missing}.*pip install -e '.\[songbook\]'"):
            songbook.render_songs()


@pytest.mark.parametrize("bad", [{"num_pieces": 0}, {"seconds": 0.1}, {"workers": 0}])
def test_arguments_out_of_range_fail_before_any_work(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        songbook.render_songs(**bad)


def test_exhausted_corpus_ends_with_a_skipped(monkeypatch):
    monkeypatch.setattr(scores, "list_sources", lambda corpus, seed: [])
    [last] = songbook.render_songs(5, SECONDS, workers=1)
    assert isinstance(last, Skipped) and "not 5" in last.reason
