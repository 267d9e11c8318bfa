"""No music on both sides, whoever the artist is said to be; new songs move no old one."""

import pytest

from specdiff_jax.data import splits

FRACTIONS = (0.1, 0.1)


def made(artists, **more):
    return [{"name": f"song {i}", "artist": a} | more for i, a in enumerate(artists)]


def assigned(entries, duplicates=()):
    warnings = splits.assign_splits(entries, duplicates, *FRACTIONS)
    return [entry["split"] for entry in entries], warnings


def test_no_artist_is_divided_and_new_songs_move_none():
    entries = made([f"artist {i % 40}" for i in range(200)])
    found, warnings = assigned(entries)
    split_of = dict(zip([e["artist"] for e in entries], found, strict=True))
    assert [split_of[e["artist"]] for e in entries] == found
    assert set(found) == set(splits.SPLITS) and not warnings
    more = made([*(f"new {i}" for i in range(50)), *split_of])
    assigned(more)
    assert all(e["split"] == split_of.get(e["artist"], e["split"]) for e in more)


def test_fractions_hold_on_average():
    found, _ = assigned(made([f"artist {i}" for i in range(5000)]))
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert found.count(split) / 5000 == pytest.approx(share, abs=0.02)


def test_copies_pull_their_artists_to_one_side():
    names = [f"artist {i}" for i in range(300)]
    alone, _ = assigned(made(names))
    pairs = [(i, i + 150) for i in range(150)]
    assert any(alone[i] != alone[j] for i, j in pairs)
    joined, _ = assigned(made(names), pairs)
    assert all(joined[i] == joined[j] for i, j in pairs)
    back, _ = assigned(made(names[::-1]), [(299 - i, 299 - j) for i, j in pairs])
    assert back[::-1] == joined


def test_a_given_split_is_kept_and_its_leaks_are_told():
    entries = made(["a", "a", "b", "c", "d"])
    for entry, split in zip(entries, ["train", "test", "valid", None, "train"], strict=True):
        entry["given_split"] = split
    found, warnings = assigned(entries, [(2, 3)])
    assert found[:3] == ["train", "test", "valid"] and found[4] == "train"
    assert found[3] == "valid"  # the copy follows the song that has a split
    assert len(warnings) == 1 and "'song 0' in train" in warnings[0]
    assert "'song 1' in test" in warnings[0]


def test_one_artist_is_split_by_song_and_one_song_is_refused():
    found, warnings = assigned(made(["a"] * 30))
    assert {"train", "valid"} <= set(found) and "all songs are of 'a'" in warnings[0]
    with pytest.raises(ValueError, match="one song only"):
        assigned(made(["a"]))
    with pytest.raises(ValueError, match="no song could be read"):
        assigned([])
    assert set(assigned(made(["a", "b"]))[0]) == {"train", "valid"}


def test_one_artist_is_split_by_album_where_there_are_some():
    """Parts of one file are of one album: no file is on both sides."""
    entries = made(["a"] * 40)
    for number, entry in enumerate(entries):
        entry["album"] = f"album {number % 8}"
    found, warnings = assigned(entries)
    assert found == found[:8] * 5 and {"train", "valid"} <= set(found)
    assert "split by album" in warnings[0]


def test_a_data_set_without_a_valid_split_gives_some_of_train():
    """As many on the Hub: what is given as test stays test, no artist is divided."""
    entries = made([f"artist {i % 50}" for i in range(200)])
    for number, entry in enumerate(entries):
        entry["given_split"] = "test" if number % 50 < 10 else "train"
    found, warnings = assigned(entries)
    assert found == found[:50] * 4 and found[:10] == ["test"] * 10
    assert 0 < found[10:50].count("valid") < 10 and "test" not in found[10:50]
    assert "gives no valid split" in warnings[0]
    few = made(["a", "b", "c"], given_split="train")
    assert sorted(assigned(few)[0]) == ["train", "train", "valid"]
