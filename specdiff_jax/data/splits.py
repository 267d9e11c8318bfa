"""Assign songs to train, valid and test so that no music is on both sides."""

import hashlib

from specdiff_jax.audio.fingerprint import group_songs

SPLITS = ("train", "valid", "test")


def hash_to_fraction(name):
    """Return a number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def join_leak_groups(names, duplicates):
    """Return the leak group of each song: artists, joined where recordings are the same.

    Args:
      names: [songs] artists.
      duplicates: pairs (i, j) of the same recording.

    Returns:
      [songs] names; a joined group is called by its member of the lowest split number, so only
      a new song that joins groups can move an old one.
    """
    first = {}
    same = [(first.setdefault(name, index), index) for index, name in enumerate(names)]
    joined = [int(group) for group in group_songs(len(names), [*same, *duplicates])]
    name_of = {}
    for name, group in zip(names, joined, strict=True):
        name_of[group] = min(name_of.get(group, name), name, key=hash_to_fraction)
    return [name_of[group] for group in joined]


def assign_splits(entries, duplicates, valid_fraction, test_fraction):
    """Set entry["group"] and entry["split"] of each song and return warnings, a line each.

    The split depends on a group's hash, so a new song never moves an old one. Every group has the
    same probability to be held out, so the fractions hold for durations too, on average. A split
    that the data set gives is kept, and songs of the same group without one follow it. Where the
    hash leaves valid or train empty, the groups with the lowest and highest hash fill them.

    Raises:
      ValueError: no songs, or one recording only.
    """
    if not entries:
        raise ValueError("data.source: no song could be read; see the reasons above")
    names, warnings = join_leak_groups([entry["artist"] for entry in entries], duplicates), []
    for kind in ("album", "name") if len(set(names)) < 2 else ():
        finer = join_leak_groups(
            [entry.get(kind) or entry["name"] for entry in entries], duplicates
        )
        if kind == "name" or len(set(finer)) > 1:
            kind = kind.replace("name", "song")
            warnings.append(f"all songs are of {names[0]!r}: split by {kind}, not by artist")
            names = finer
            break
    ordered = sorted(set(names), key=hash_to_fraction)
    if len(ordered) < 2:
        raise ValueError("data.source: one song only; a held-out split needs at least two")
    given, leaks = collect_given_splits(entries, names)
    split_of = {
        name: given.get(name) or split_by_hash(name, valid_fraction, test_fraction)
        for name in ordered
    }
    free = [name for name in ordered if name not in given]
    for split, name in (("valid", free[0]), ("train", free[-1])) if free else ():
        if split not in split_of.values():
            split_of[name] = split
    valid_groups = choose_valid_groups(ordered, split_of, valid_fraction)
    if valid_groups:
        warnings.append(
            f"the data set gives no valid split: {len(valid_groups)} artists of train are it"
        )
    for entry, name in zip(entries, names, strict=True):
        own_split = entry.pop("given_split", None)
        entry["group"] = name
        entry["split"] = "valid" if name in valid_groups else own_split or split_of[name]
    return warnings + leaks


def choose_valid_groups(ordered, split_of, fraction):
    """Return the groups of train that become valid where there is none, as in many data sets."""
    train = [name for name in ordered if split_of[name] == "train"]
    if "valid" in split_of.values() or len(train) < 2:
        return set()
    return {name for name in train[:-1] if hash_to_fraction(name) < fraction} or {train[0]}


def split_by_hash(name, valid_fraction, test_fraction):
    """Return the split of a group that the data set gives none."""
    number = hash_to_fraction(name)
    if number < valid_fraction:
        return "valid"
    return "test" if number >= 1 - test_fraction else "train"


def collect_given_splits(entries, names):
    """Return ({group: split given by the data set}, warnings about groups that it divides)."""
    examples = {}
    for entry, name in zip(entries, names, strict=True):
        if entry.get("given_split"):
            examples.setdefault(name, {}).setdefault(entry["given_split"], entry["name"])
    leaks = [
        f"the given split divides {name!r}: "
        + ", ".join(f"{example!r} in {split}" for split, example in sorted(where.items()))
        for name, where in examples.items()
        if len(where) > 1
    ]
    # Songs without a split follow the one that is held out, the safe side.
    safest = lambda where: next(s for s in ("test", "valid", "train") if s in where)
    return {name: safest(where) for name, where in examples.items()}, leaks
