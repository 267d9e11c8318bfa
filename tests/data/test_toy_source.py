"""A new kind of source is one Source in one dict: nothing else of the project has to change."""

import numpy as np
import pytest

from specdiff_jax.data import cache, collection, prepare
from specdiff_jax.data.sources.items import Pcm, Skipped, Song, Source
from tests.helpers import synth
from tests.helpers.nano import RATE


def iterate_songs(name, toy_octave=0):
    """Yield as many chord sequences as the name gives, and one piece that is skipped."""
    for number in range(int(name.partition(":")[2])):
        roots = 110 * 2 ** (toy_octave + 2 * np.random.default_rng(number).random(4))
        wave = synth.chords(roots, 0.5, RATE)
        yield Song(f"toy {number}", f"artist {number}", ("kind:toy",), (), Pcm(wave[None], RATE))
    yield Skipped("toy silence", "nothing to play")


@pytest.fixture
def toy(fresh, monkeypatch):
    """A config whose data.source is of the toy kind."""
    source = Source(
        title="a toy, as 'toy:3'",
        matches=lambda name: name.startswith("toy:"),
        songs=iterate_songs,
        fingerprint=lambda name, options: options.get("toy_octave"),
        expected=lambda name: int(name.partition(":")[2]),
        limit_errors=False,
    )
    monkeypatch.setitem(collection.SOURCES, "toy", source)
    fresh.data.update(source="toy:3", toy_octave=1)
    return fresh


def test_toy_source_is_prepared_end_to_end(toy):
    prepare.run(toy)
    manifest = cache.verify_cache(prepare.locate_cache(toy))
    assert manifest["num_items"] == 4 and collection.count_expected(toy) == 3
    assert [song["name"] for song in manifest["songs"]] == ["toy 0", "toy 1", "toy 2"]
    assert [skip["reason"] for skip in manifest["skipped"]] == ["nothing to play"]
    wave = next(iterate_songs("toy:1", toy_octave=1)).audio.wave[0]
    songs = prepare.load_split(toy, manifest["songs"][0]["split"], 100)
    first = [entry["name"] for entry in songs.entries].index("toy 0")
    pcm = songs.read(songs.starts[first], len(wave))[:, 0]
    np.testing.assert_allclose(pcm / 32768, wave, atol=1 / 32768)


def test_toy_source_option_changes_the_cache_and_fits_no_other_kind(toy, music):
    place = prepare.locate_cache(toy)
    toy.data.toy_octave = 2
    assert prepare.locate_cache(toy) != place
    toy.data.source = str(music)
    with pytest.raises(ValueError, match="data.toy_octave=2 is not used by a folder of sound file"):
        collection.iterate_items(toy)
