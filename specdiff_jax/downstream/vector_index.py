"""A vector index on disk: which windows of which songs are nearest to a vector.

    INDEX/    index.json (its settings and songs; written last)   vectors-HASH.npy   graph-HASH

usearch, because its wheel has a tenth of the size of faiss-cpu's, it searches a graph of half
floats on disk, and it brings no second BLAS. Up to EXACT_UP_TO vectors the search is exact. Above
that a graph proposes candidates that are compared exactly (Malkov & Yashunin 2016, HNSW, arXiv
1603.09320).
"""

import dataclasses
import functools
import hashlib
import pathlib

import numpy as np

from specdiff_jax.runtime.files import atomic_path, read_json, write_json
from specdiff_jax.runtime.logs import log

FORMAT = 2
EXACT_UP_TO = 1_000_000  # vectors
MAX_REMOVED = 0.1  # fraction of a graph's vectors; above it the graph is built again
EXPANSION = 256  # candidates of a graph search; more raise the recall and the cost
MAX_WINDOWS = 1 << 20  # of a song: a key is its number times this, plus the window


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Vectors of length one in the order of songs and of their windows."""

    folder: pathlib.Path
    about: dict  # embedder, sha256, width, sample_rate, window, hop
    songs: tuple  # dicts: name, number, windows, samples, sha256, file, labels, ... by name
    vectors: np.ndarray  # [K, d] float32
    graph: str | None = None  # its file; None where the search is exact

    @functools.cached_property
    def firsts(self):
        """Return the first row of each song, and K.  # [songs + 1] int64"""
        return np.cumsum([0] + [song["windows"] for song in self.songs])

    @functools.cached_property
    def keys(self):
        """Return the key of each row in the graph; a song keeps its number.  # [K] uint64"""
        parts = [MAX_WINDOWS * s["number"] + np.arange(s["windows"]) for s in self.songs]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.uint64)

    @functools.cached_property
    def by_key(self):
        """Return the rows in the order of their keys.  # [K] int64"""
        return np.argsort(self.keys)

    def song_at(self, rows):
        """Return which song each row belongs to.  # any shape"""
        return np.searchsorted(self.firsts, rows, side="right") - 1


def import_usearch():
    """Return the module usearch.index.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import usearch.index
    except ImportError as error:
        raise ValueError("search needs usearch: pip install -e '.[search]'") from error
    return usearch.index


def search_exact(vectors, queries, count):
    """Return (rows [Q, count] int64, cosines [Q, count]) of the nearest of vectors [K, d]."""
    usearch = import_usearch()
    metric = usearch.MetricKind.IP
    matches = usearch.search(vectors, queries, min(count, len(vectors)), metric, exact=True)
    rows = matches.keys.astype(np.int64).reshape(len(queries), -1)
    return rows, 1 - matches.distances.reshape(len(queries), -1)


def find_nearest(index, queries, count, rows=None):
    """Return (rows, cosines) of the nearest windows, the nearest first.

    Args:
      queries: [Q, d] float32 of length one.
      rows: [R] to search among, ascending; all where None.

    Returns:
      rows [Q, <= count] int64, cosines [Q, <= count] float32.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    if rows is not None:
        near, scores = search_exact(np.ascontiguousarray(index.vectors[rows]), queries, count)
        return rows[near], scores
    if index.graph is None:
        return search_exact(index.vectors, queries, count)
    return search_graph(index, queries, count)


def search_graph(index, queries, count):
    """Return `find_nearest` by the graph: twice as many candidates, compared exactly."""
    graph = open_graph(index.folder / index.graph)
    graph.expansion_search = max(EXPANSION, 2 * count)
    keys = graph.search(queries, min(2 * count, len(graph))).keys.reshape(len(queries), -1)
    places = np.searchsorted(index.keys, keys, sorter=index.by_key)
    rows = index.by_key[places.clip(max=len(index.keys) - 1)]
    scores = np.einsum("qkd,qd->qk", index.vectors[rows], queries)
    scores[index.keys[rows] != keys] = -2.0  # of removed songs: below any cosine
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)


@functools.lru_cache(maxsize=2)
def open_graph(path):
    """Return a graph that is searched on disk."""
    return import_usearch().Index.restore(str(path), view=True)


def read_index(folder, whole=False):
    """Return the Index of a folder, None where there is none.

    Args:
      whole: verify the hash of the vectors, as before they are written again.

    Raises:
      ValueError: it is damaged, or has another format.
    """
    folder = pathlib.Path(folder)
    saved = read_json(folder / "index.json")
    if saved is None:
        return None
    remedy = f"delete {folder} and build it again (--mode=index)"
    if saved.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {saved.get('format')}, not {FORMAT}; {remedy}")
    missing = [saved[kind] for kind in ("vectors", "graph") if saved[kind]]
    missing = [name for name in missing if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder / missing[0]} is missing; {remedy}")
    try:
        vectors = np.load(folder / saved["vectors"], mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{folder / saved['vectors']} is damaged (cut); {remedy}") from error
    index = Index(folder, saved["about"], tuple(saved["songs"]), vectors, saved["graph"])
    if vectors.shape != (index.firsts[-1], index.about["width"]) or (
        whole and vectors_filename(vectors) != saved["vectors"]
    ):
        raise ValueError(f"{folder / saved['vectors']} is damaged; {remedy}")
    return index


def write_index(folder, about, songs, vectors, before=None):
    """Write and return an Index; the old one stays whole until index.json is replaced.

    Args:
      before: the Index that it updates, whose graph is extended where that is possible.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = vectors_filename(vectors)
    if not (folder / name).exists():
        with atomic_path(folder / name) as partial, partial.open("wb") as file:
            np.save(file, vectors)
    index = Index(folder, about, tuple(songs), np.load(folder / name, mmap_mode="r"))
    if len(vectors) > EXACT_UP_TO:
        index = dataclasses.replace(index, graph=write_graph(index, before))
    saved = {"format": FORMAT, "about": about, "vectors": name, "graph": index.graph}
    write_json(folder / "index.json", saved | {"songs": songs})
    for path in folder.glob("*-*"):  # of the old index, or of a build that was interrupted
        if path.name not in (name, index.graph):
            path.unlink()
    return index


def vectors_filename(vectors):
    """Return the file name of vectors, with their hash."""
    return f"vectors-{hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()[:16]}.npy"


def write_graph(index, before):
    """Write a graph of the vectors and return the name of its file.

    Removed vectors stay in the graph as links to others, and results skip them, until they are more
    than MAX_REMOVED of it: to delete points of such a graph costs more recall than to keep them.
    """
    usearch = import_usearch()
    digest = hashlib.sha256(
        vectors_filename(index.vectors).encode() + index.keys.tobytes()
    ).hexdigest()
    name = f"graph-{digest[:16]}"
    if (index.folder / name).exists():
        return name
    old, graph = np.zeros(0, np.uint64), None
    if before is not None and before.graph:
        graph = usearch.Index.restore(str(before.folder / before.graph), view=False)
        old = np.asarray(graph.keys)
        if len(np.setdiff1d(old, index.keys)) > MAX_REMOVED * len(index.keys):
            old, graph = old[:0], None
    if graph is None:
        graph = usearch.Index(ndim=index.about["width"], metric="ip", dtype="bf16")
    new = np.flatnonzero(~np.isin(index.keys, old))
    if len(new):
        log(f"index: {len(new):,} vectors are added to the graph")
        graph.add(index.keys[new], index.vectors[new], log="graph")
    with atomic_path(index.folder / name) as partial:
        graph.save(str(partial))
    return name
