"""The vector index: exact search equals numpy's, a graph has nearly its recall."""

import sys

import numpy as np
import pytest

from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.downstream import vector_index

pytest.importorskip("usearch")
ABOUT = {"embedder": "none", "sha256": None, "width": 16, "hop": 1}


def build_index(folder, seeds, before=None):
    """An Index of songs of 20 vectors each that lie about one place."""
    numbers = {song["name"]: song["number"] for song in before.songs} if before else {}
    fresh = iter(range(max(numbers.values(), default=-1) + 1, 10**6))
    songs, vectors = [], []
    for seed in seeds:
        rng, name = np.random.default_rng(seed), f"{seed:04d}"
        number = numbers[name] if name in numbers else next(fresh)
        songs.append({"name": name, "number": number, "windows": 20})
        vectors.append(rng.standard_normal((1, 16)) + rng.standard_normal((20, 16)) / 2)
    vectors = l2_normalize(np.concatenate(vectors)).astype(np.float32)
    return vector_index.write_index(folder, ABOUT, songs, vectors, before)


@pytest.fixture
def queries():
    return l2_normalize(np.random.default_rng(99).standard_normal((40, 16))).astype(np.float32)


def search_brute_force(index, queries, count, rows=slice(None)):
    """(rows, cosines) of the best, by numpy."""
    cosines = queries @ np.asarray(index.vectors)[rows].T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.arange(len(index.vectors))[rows][best], np.take_along_axis(cosines, best, 1)


def measure_recall(index, queries, count=10):
    near, scores = vector_index.find_nearest(index, queries, count)
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(
        scores, np.einsum("qkd,qd->qk", index.vectors[near], queries), atol=1e-6
    )
    true, _ = search_brute_force(index, queries, count)
    return np.mean([len(set(a) & set(b)) / count for a, b in zip(near, true, strict=True)])


def test_exact_search_is_brute_force(tmp_path, queries):
    index = build_index(tmp_path, range(30))
    assert index.graph is None
    for count in (1, 10, 600, 900):
        near, scores = vector_index.find_nearest(index, queries, count)
        rows, cosines = search_brute_force(index, queries, count)
        np.testing.assert_array_equal(near, rows)
        np.testing.assert_allclose(scores, cosines, atol=1e-6)
    some = np.arange(100, 300, 3)
    near, scores = vector_index.find_nearest(index, queries, 10, some)
    rows, cosines = search_brute_force(index, queries, 10, some)
    np.testing.assert_array_equal(near, rows)
    np.testing.assert_allclose(scores, cosines, atol=1e-6)


def test_song_at_gives_the_song_of_a_row(tmp_path):
    index = build_index(tmp_path, [3, 5, 8])
    np.testing.assert_array_equal(index.song_at([0, 19, 20, 59]), [0, 0, 1, 2])
    again = vector_index.read_index(tmp_path, whole=True)
    assert again.songs == index.songs and again.about == ABOUT
    np.testing.assert_array_equal(again.vectors, index.vectors)


def test_graph_keeps_its_recall_as_songs_come_and_go(tmp_path, queries, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_UP_TO", 1000)
    index = build_index(tmp_path, range(100))
    assert index.graph and measure_recall(index, queries) > 0.97
    first = index.graph
    updated = build_index(
        tmp_path, range(5, 120), vector_index.read_index(tmp_path)
    )  # five removed, twenty new
    assert updated.graph != first and not (tmp_path / first).exists()
    graph = vector_index.open_graph(tmp_path / updated.graph)
    assert len(graph) == 20 * 120  # the few removed ones stay in the graph
    assert measure_recall(updated, queries) > 0.97
    assert vector_index.find_nearest(updated, queries, 300)[1].min() > -1.1
    fewer = build_index(tmp_path, range(50, 120), vector_index.read_index(tmp_path))
    assert len(vector_index.open_graph(tmp_path / fewer.graph)) == 20 * 70  # built again
    assert measure_recall(fewer, queries) > 0.97
    small = build_index(tmp_path, range(50, 60), vector_index.read_index(tmp_path))
    assert small.graph is None and measure_recall(small, queries) == 1


def test_write_index_of_equal_vectors_keeps_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_UP_TO", 10)
    index = build_index(tmp_path, range(3))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}
    build_index(tmp_path, range(3), index)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").write_text("{"), "index.json"),
        (lambda folder: (folder / "index.json").write_text('{"format": 9}'), "has format 9, not 2"),
        (lambda folder: next(folder.glob("vectors*")).write_bytes(b"\x93NUMPY"), "is damaged"),
        (lambda folder: next(folder.glob("vectors*")).unlink(), "is missing; delete"),
    ],
)
def test_read_index_names_a_damaged_file(tmp_path, damage, message):
    build_index(tmp_path, range(3))
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        vector_index.read_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_import_usearch_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ValueError, match="search needs usearch: pip install"):
        vector_index.import_usearch()
