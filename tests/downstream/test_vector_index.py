"""The index itself: every vector compared as numpy does it, or nearly all found by a graph."""

import sys

import numpy as np
import pytest

from specdiff_jax.downstream import index as indexing
from specdiff_jax.downstream import vector_index

pytest.importorskip("usearch")
ABOUT = {"embedder": "none", "sha256": None, "width": 16, "hop": 1}


def made(folder, seeds, before=None):
    """An Index of songs of 20 vectors each that lie about one place."""
    numbers = {song["name"]: song["number"] for song in before.songs} if before else {}
    fresh = iter(range(max(numbers.values(), default=-1) + 1, 10**6))
    songs, vectors = [], []
    for seed in seeds:
        rng, name = np.random.default_rng(seed), f"{seed:04d}"
        number = numbers[name] if name in numbers else next(fresh)
        songs.append({"name": name, "number": number, "windows": 20})
        vectors.append(rng.standard_normal((1, 16)) + rng.standard_normal((20, 16)) / 2)
    vectors = indexing.unit(np.concatenate(vectors))
    return vector_index.write_index(folder, ABOUT, songs, vectors, before)


@pytest.fixture
def queries():
    return indexing.unit(np.random.default_rng(99).standard_normal((40, 16)))


def brute(index, queries, count, rows=slice(None)):
    """(rows, cosines) of the best, by numpy."""
    cosines = queries @ np.asarray(index.vectors)[rows].T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.arange(len(index.vectors))[rows][best], np.take_along_axis(cosines, best, 1)


def recall(index, queries, count=10):
    found, scores = vector_index.nearest(index, queries, count)
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(
        scores, np.einsum("qkd,qd->qk", index.vectors[found], queries), atol=1e-6
    )
    true, _ = brute(index, queries, count)
    return np.mean([len(set(a) & set(b)) / count for a, b in zip(found, true, strict=True)])


def test_the_exact_index_is_brute_force(tmp_path, queries):
    index = made(tmp_path, range(30))
    assert index.graph is None
    for count in (1, 10, 600, 900):
        found, scores = vector_index.nearest(index, queries, count)
        rows, cosines = brute(index, queries, count)
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_allclose(scores, cosines, atol=1e-6)
    some = np.arange(100, 300, 3)
    found, scores = vector_index.nearest(index, queries, 10, some)
    rows, cosines = brute(index, queries, 10, some)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(scores, cosines, atol=1e-6)


def test_rows_know_their_songs(tmp_path):
    index = made(tmp_path, [3, 5, 8])
    np.testing.assert_array_equal(index.song_at([0, 19, 20, 59]), [0, 0, 1, 2])
    again = vector_index.read_index(tmp_path, whole=True)
    assert again.songs == index.songs and again.about == ABOUT
    np.testing.assert_array_equal(again.vectors, index.vectors)


def test_the_graph_finds_nearly_all_and_grows_and_forgets(tmp_path, queries, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_UP_TO", 1000)
    index = made(tmp_path, range(100))
    assert index.graph and recall(index, queries) > 0.97
    first = index.graph
    grown = made(
        tmp_path, range(5, 120), vector_index.read_index(tmp_path)
    )  # five gone, twenty new
    assert grown.graph != first and not (tmp_path / first).exists()
    graph = vector_index.opened(tmp_path / grown.graph)
    assert len(graph) == 20 * 120  # what is gone is passed over, as few as it is
    assert recall(grown, queries) > 0.97
    assert vector_index.nearest(grown, queries, 300)[1].min() > -1.1
    fewer = made(tmp_path, range(50, 120), vector_index.read_index(tmp_path))
    assert len(vector_index.opened(tmp_path / fewer.graph)) == 20 * 70  # and built anew
    assert recall(fewer, queries) > 0.97
    small = made(tmp_path, range(50, 60), vector_index.read_index(tmp_path))
    assert small.graph is None and recall(small, queries) == 1


def test_the_same_vectors_keep_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_UP_TO", 10)
    index = made(tmp_path, range(3))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}
    made(tmp_path, range(3), index)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "index.json").write_text("{"), "index.json"),
        (lambda folder: (folder / "index.json").write_text('{"format": 9}'), "has format 9, not 1"),
        (lambda folder: next(folder.glob("vectors*")).write_bytes(b"\x93NUMPY"), "is damaged"),
        (lambda folder: next(folder.glob("vectors*")).unlink(), "is missing; delete"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, harm, message):
    made(tmp_path, range(3))
    harm(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        vector_index.read_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ValueError, match="search needs usearch: pip install"):
        vector_index.library()
