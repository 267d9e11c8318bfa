"""No music on both sides, and new songs change no old split."""

import pytest

from specdiff_jax.data import splits

FRACTIONS = (0.1, 0.1)


def make_entries(artists, **more):
    return [{"name": f"song {i}", "artist": a} | more for i, a in enumerate(artists)]


def assign(entries, duplicates=()):
    warnings = splits.assign_splits(entries, duplicates, *FRACTIONS)
    return [entry["split"] for entry in entries], warnings


def test_splits_divide_no_artist_and_are_stable_under_new_songs():
    entries = make_entries([f"artist {i % 40}" for i in range(200)])
    assigned, warnings = assign(entries)
    split_of = dict(zip([e["artist"] for e in entries], assigned, strict=True))
    assert [split_of[e["artist"]] for e in entries] == assigned
    assert set(assigned) == set(splits.SPLITS) and not warnings
    more = make_entries([*(f"new {i}" for i in range(50)), *split_of])
    assign(more)
    assert all(e["split"] == split_of.get(e["artist"], e["split"]) for e in more)


def test_split_fractions_hold_on_average():
    assigned, _ = assign(make_entries([f"artist {i}" for i in range(5000)]))
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert assigned.count(split) / 5000 == pytest.approx(share, abs=0.02)


def test_duplicates_join_the_splits_of_their_artists():
    names = [f"artist {i}" for i in range(300)]
    alone, _ = assign(make_entries(names))
    pairs = [(i, i + 150) for i in range(150)]
    assert any(alone[i] != alone[j] for i, j in pairs)
    joined, _ = assign(make_entries(names), pairs)
    assert all(joined[i] == joined[j] for i, j in pairs)
    back, _ = assign(make_entries(names[::-1]), [(299 - i, 299 - j) for i, j in pairs])
    assert back[::-1] == joined


def test_given_split_is_kept_and_its_leaks_are_warned_of():
    entries = make_entries(["a", "a", "b", "c", "d"])
    for entry, split in zip(entries, ["train", "test", "valid", None, "train"], strict=True):
        entry["given_split"] = split
    assigned, warnings = assign(entries, [(2, 3)])
    assert assigned[:3] == ["train", "test", "valid"] and assigned[4] == "train"
    assert assigned[3] == "valid"  # the duplicate follows the song that has a split
    assert len(warnings) == 1 and "'song 0' in train" in warnings[0]
    assert "'song 1' in test" in warnings[0]


def test_one_artist_is_split_by_song_and_one_song_is_rejected():
    assigned, warnings = assign(make_entries(["a"] * 30))
    assert {"train", "valid"} <= set(assigned) and "all songs are of 'a'" in warnings[0]
    with pytest.raises(ValueError, match="one song only"):
        assign(make_entries(["a"]))
    with pytest.raises(ValueError, match="no song could be read"):
        assign([])
    assert set(assign(make_entries(["a", "b"]))[0]) == {"train", "valid"}


def test_one_artist_is_split_by_album():
    """Parts of one file are of one album: no file is on both sides."""
    entries = make_entries(["a"] * 40)
    for number, entry in enumerate(entries):
        entry["album"] = f"album {number % 8}"
    assigned, warnings = assign(entries)
    assert assigned == assigned[:8] * 5 and {"train", "valid"} <= set(assigned)
    assert "split by album" in warnings[0]


def test_missing_valid_split_is_taken_from_train():
    """As many on the Hub: what is given as test stays test, no artist is divided."""
    entries = make_entries([f"artist {i % 50}" for i in range(200)])
    for number, entry in enumerate(entries):
        entry["given_split"] = "test" if number % 50 < 10 else "train"
    assigned, warnings = assign(entries)
    assert assigned == assigned[:50] * 4 and assigned[:10] == ["test"] * 10
    assert 0 < assigned[10:50].count("valid") < 10 and "test" not in assigned[10:50]
    assert "gives no valid split" in warnings[0]
    few = make_entries(["a", "b", "c"], given_split="train")
    assert sorted(assign(few)[0]) == ["train", "train", "valid"]
