"""An index of vectors on disk: which windows of which songs are near to a vector.

    INDEX/    index.json (what it is, its songs; written last)   vectors-HASH.npy   graph-HASH

usearch, because its wheel has a tenth of faiss-cpu's size, its graph of half floats is searched
where it lies on disk, and it brings no second BLAS beside ours. Up to EXACT_UP_TO vectors every one
is compared; past that a graph is asked (Malkov & Yashunin 2016, HNSW, arXiv 1603.09320), and what
it finds is compared again exactly.
"""

import dataclasses
import functools
import hashlib
import pathlib

import numpy as np

from specdiff_jax.runtime.files import atomic_path, read_json, write_json
from specdiff_jax.runtime.logs import log

FORMAT = 1
EXACT_UP_TO = 1_000_000  # vectors
MOST_DEAD = 0.1  # of a graph's vectors, before it is built anew
LOOK = 256  # vectors that a search of the graph keeps in sight; more find more, and cost more
WINDOWS = 1 << 20  # of a song, at most: a key is its number times this, plus the window


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Vectors of length one, window after window and song after song."""

    folder: pathlib.Path
    about: dict  # embedder, sha256, width, sample_rate, window, hop
    songs: tuple  # dicts: name, number, windows, samples, sha256, file, labels, ... by name
    vectors: np.ndarray  # [K, d] float32
    graph: str | None = None  # its file; None where every vector is compared

    @functools.cached_property
    def firsts(self):
        """The first row of each song, and K.  # [songs + 1] int64"""
        return np.cumsum([0] + [song["windows"] for song in self.songs])

    @functools.cached_property
    def keys(self):
        """What the graph calls each row; a song keeps its number as long as it is there.  # [K]"""
        parts = [WINDOWS * s["number"] + np.arange(s["windows"]) for s in self.songs]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.uint64)

    @functools.cached_property
    def by_key(self):
        """The rows in the order of their keys.  # [K] int64"""
        return np.argsort(self.keys)

    def song_at(self, rows):
        """Which song a row is of.  # any shape"""
        return np.searchsorted(self.firsts, rows, side="right") - 1


def library():
    """usearch.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import usearch.index
    except ImportError as error:
        raise ValueError("search needs usearch: pip install -e '.[search]'") from error
    return usearch.index


def exact(vectors, queries, count):
    """The nearest of all vectors.  # [K, d], [Q, d] -> rows [Q, count] int64, cosines [Q, count]"""
    usearch = library()
    metric = usearch.MetricKind.IP
    found = usearch.search(vectors, queries, min(count, len(vectors)), metric, exact=True)
    return found.keys.astype(np.int64).reshape(len(queries), -1), similarities(found, len(queries))


def similarities(found, queries):
    return 1 - found.distances.reshape(queries, -1)


def nearest(index, queries, count, rows=None):
    """The nearest windows, the nearest first.

    Args:
      queries: [Q, d] float32 of length one.
      rows: [R] the only ones that may be found, ascending; all where None.

    Returns:
      rows [Q, <= count] int64, cosines [Q, <= count] float32.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    if rows is not None:
        found, scores = exact(np.ascontiguousarray(index.vectors[rows]), queries, count)
        return rows[found], scores
    if index.graph is None:
        return exact(index.vectors, queries, count)
    return through_graph(index, queries, count)


def through_graph(index, queries, count):
    """`nearest` by the graph: twice as many are asked for, and compared again exactly."""
    graph = opened(index.folder / index.graph)
    graph.expansion_search = max(LOOK, 2 * count)
    keys = graph.search(queries, min(2 * count, len(graph))).keys.reshape(len(queries), -1)
    places = np.searchsorted(index.keys, keys, sorter=index.by_key)
    rows = index.by_key[places.clip(max=len(index.keys) - 1)]
    scores = np.einsum("qkd,qd->qk", index.vectors[rows], queries)
    scores[index.keys[rows] != keys] = -2.0  # of songs that are gone: below any cosine
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)


@functools.lru_cache(maxsize=2)
def opened(path):
    """A graph, searched where it lies."""
    return library().Index.restore(str(path), view=True)


def read(folder, whole=False):
    """The Index of a folder, None where there is none.

    Args:
      whole: compare the vectors with their hash: they are to be kept, not only asked.

    Raises:
      ValueError: it is damaged, or of another version of this program.
    """
    folder = pathlib.Path(folder)
    told = read_json(folder / "index.json")
    if told is None:
        return None
    mend = f"delete {folder} and build it again (--mode=index)"
    if told.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {told.get('format')}, not {FORMAT}; {mend}")
    missing = [told[kind] for kind in ("vectors", "graph") if told[kind]]
    missing = [name for name in missing if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder / missing[0]} is missing; {mend}")
    try:
        vectors = np.load(folder / told["vectors"], mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{folder / told['vectors']} is damaged (cut); {mend}") from error
    index = Index(folder, told["about"], tuple(told["songs"]), vectors, told["graph"])
    if vectors.shape != (index.firsts[-1], index.about["width"]) or (
        whole and named(vectors) != told["vectors"]
    ):
        raise ValueError(f"{folder / told['vectors']} is damaged; {mend}")
    return index


def write(folder, about, songs, vectors, before=None):
    """Writes an Index over what was there: until index.json is replaced, all of the old is left.

    Args:
      before: the Index that it grew out of, whose graph may grow on.

    Returns:
      Index.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = named(vectors)
    if not (folder / name).exists():
        with atomic_path(folder / name) as partial, partial.open("wb") as file:
            np.save(file, vectors)
    index = Index(folder, about, tuple(songs), np.load(folder / name, mmap_mode="r"))
    if len(vectors) > EXACT_UP_TO:
        index = dataclasses.replace(index, graph=write_graph(index, before))
    told = {"format": FORMAT, "about": about, "vectors": name, "graph": index.graph}
    write_json(folder / "index.json", told | {"songs": songs})
    for path in folder.glob("*-*"):  # of an older index, or of a build that was killed
        if path.name not in (name, index.graph):
            path.unlink()
    return index


def named(vectors):
    """The file name of vectors: equal ones have the same."""
    return f"vectors-{hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()[:16]}.npy"


def write_graph(index, before):
    """Writes a graph of the vectors and returns its file's name.

    What is gone stays in it as a way to others and is passed over, until it is a tenth: taking
    points out of such a graph costs it more of what it finds than leaving them.
    """
    usearch = library()
    digest = hashlib.sha256(named(index.vectors).encode() + index.keys.tobytes()).hexdigest()
    name = f"graph-{digest[:16]}"
    if (index.folder / name).exists():
        return name
    old, graph = np.zeros(0, np.uint64), None
    if before is not None and before.graph:
        graph = usearch.Index.restore(str(before.folder / before.graph), view=False)
        old = np.asarray(graph.keys)
        if len(np.setdiff1d(old, index.keys)) > MOST_DEAD * len(index.keys):
            old, graph = old[:0], None
    if graph is None:
        graph = usearch.Index(ndim=index.about["width"], metric="ip", dtype="bf16")
    new = np.flatnonzero(~np.isin(index.keys, old))
    if len(new):
        log(f"index: {len(new):,} vectors into the graph")
        graph.add(index.keys[new], index.vectors[new], log="graph")
    with atomic_path(index.folder / name) as partial:
        graph.save(str(partial))
    return name
