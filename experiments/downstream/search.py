"""Measure cost and quality of search: a collection of music, and a million synthetic vectors.

    python -m experiments.downstream.search synthetic [--vectors 1000000] [--width 128]
    python -m experiments.downstream.search gallery [--songs 1000] [--width 384]
    python -m experiments.downstream.search songs --workdir runs/tiny [--songs 1000]
        [--embedders logmel ...]

`songs`: prepared songs of the run's collection as files, those outside its training split first:
speed of the build, time of a query, retrieval by windows. A query is the window in the middle of a
song, the gallery are adjacent windows of all songs that do not overlap it. Relevant are the same
song, or in two rows songs with the same `--label`, with and without excerpts of the same song.
`gallery`: time from the vectors of a query to songs and ranges, in synthetic songs of 40 windows.
`synthetic`: windows around as many centers as there are songs of 40; recall of the graph against
exact search, memory and time of both. Writes results/downstream/search.csv, a row each; rows of
other parts and sizes are kept.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np
import tqdm

from experiments.lib.stopwatch import other_seconds, peak_rss
from experiments.lib.tables import RESULTS, read_csv, write_csv
from specdiff_jax.audio import files
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import cache, prepare
from specdiff_jax.data.crops import pcm_to_wave
from specdiff_jax.downstream import index as indexing
from specdiff_jax.downstream import search, vector_index
from specdiff_jax.evaluation.metrics import retrieval
from specdiff_jax.training import trained_model

WINDOWS = 40  # of a synthetic song
SPREAD = 0.5  # of its windows, in the deviation of the songs
NEAR = 0.1  # of a query about a window
QUERIES = 200
MB = 1e6


# ---- a million vectors


def windows_of_songs(count, width, seed):
    """Return vectors of length one, song by song.  # [count, width]"""
    rng, parts = np.random.default_rng(seed), []
    for first in range(0, count, 100 * WINDOWS):
        songs = rng.standard_normal((min(100, -(-(count - first) // WINDOWS)), 1, width))
        windows = songs + SPREAD * rng.standard_normal((len(songs), WINDOWS, width))
        parts.append(l2_normalize(windows.reshape(-1, width)).astype(np.float32))
    return np.concatenate(parts)[:count]


def synthetic(count, width, folder):
    """Rows of an exact index and of a graph over the same vectors."""
    vectors = windows_of_songs(count, width, 0)
    rng = np.random.default_rng(1)
    places = rng.integers(0, count, QUERIES)
    queries = l2_normalize(vectors[places] + NEAR * rng.standard_normal((QUERIES, width)))
    songs = [
        {"name": f"{k:06d}", "number": k, "windows": min(WINDOWS, count - WINDOWS * k)}
        for k in range(-(-count // WINDOWS))
    ]
    about, rows, true = {"embedder": "synthetic", "width": width}, [], None
    for way, most in (("exact", count), ("graph", 0)):
        vector_index.EXACT_UP_TO = most
        before, began, others = peak_rss(), time.perf_counter(), other_seconds()
        index = vector_index.write_index(folder, about, songs, vectors)
        seconds = time.perf_counter() - began
        others = None if others is None else (other_seconds() - others) / seconds
        rows.append({"part": "synthetic", "index": way, "vectors": count, "width": width})
        sizes = sum(path.stat().st_size for path in folder.iterdir())
        rows[-1] |= {"build_s": seconds, "other_cores": others, "disk_mb": sizes / MB}
        rows[-1] |= {"peak_rss_added_mb": (peak_rss() - before) / MB}
        results, times = answered(index, queries)
        true = results if true is None else true
        both = [len(set(a) & set(b)) / 10 for a, b in zip(results, true, strict=True)]
        rows[-1] |= times | {"recall_10": float(np.mean(both))}
        print(rows[-1], flush=True)
    return rows


def gallery(count, width, folder):
    """A row for queries of one window and of ten, in songs that are made up."""
    vectors = windows_of_songs(count * WINDOWS, width, 0)
    songs = [
        {"name": f"{k:06d}", "number": k, "windows": WINDOWS, "samples": WINDOWS + 1}
        for k in range(count)
    ]
    about = {"embedder": "synthetic", "width": width, "window": 2, "hop": 1, "sample_rate": 1}
    index = vector_index.write_index(folder, about, songs, vectors)
    for windows in (1, 10):
        times, worked = [], []  # the latter is what a busy machine does not lengthen
        for first in range(0, QUERIES * WINDOWS, WINDOWS):
            began, cpu = time.perf_counter(), time.process_time()
            search.rank_songs(index, vectors[first : first + windows], 10)
            times.append(1000 * (time.perf_counter() - began))
            worked.append(1000 * (time.process_time() - cpu))
        row = {"part": "gallery", "songs": count, "vectors": len(vectors), "width": width}
        row |= {"query_windows": windows, "query_ms": float(np.median(times))}
        row |= {"query_ms_95": float(np.quantile(times, 0.95))}
        yield row | {"query_cpu_ms": float(np.median(worked))}


def answered(index, queries):
    """(rows of the first ten of each query, milliseconds of one query alone)."""
    vector_index.find_nearest(index, queries[:2], 10)  # the files are read once
    results, times = [], []
    for query in queries:
        began = time.perf_counter()
        results.append(vector_index.find_nearest(index, query[None], 10)[0][0].tolist())
        times.append(1000 * (time.perf_counter() - began))
    return results, {
        "query_ms": float(np.median(times)),
        "query_ms_95": float(np.quantile(times, 0.95)),
    }


# ---- music


def exported(config, count, folder):
    """Prepared songs as files with their labels beside them; how many seconds they are."""
    place, seconds = prepare.locate_cache(config), 0.0
    manifest = cache.read_manifest(place)
    shards = cache.open_shards(place, manifest)
    songs = sorted(manifest["songs"], key=lambda song: song["split"] == "train")[:count]
    for number, song in enumerate(tqdm.tqdm(songs, "files", unit=" songs")):
        pcm = shards[song["shard"]][song["start"] : song["start"] + song["samples"]]
        files.write(folder / f"{number:04d}.wav", pcm_to_wave(pcm), manifest["sample_rate"])
        (folder / f"{number:04d}.json").write_text(json.dumps({"labels": song["labels"]}))
        seconds += song["seconds"]
    return seconds


def of_songs(workdir, count, embedders, label, folder):
    """Rows of each embedder."""
    config, rows = trained_model.load(workdir).config, []
    seconds = exported(config, count, folder / "songs")
    for name in embedders:
        own = config.copy_and_resolve_references()
        own.data.source, own.workdir = str(folder / "songs"), str(workdir)
        own.search = searching(name, folder)
        rows += [row | {"part": "songs", "embedder": name} for row in measured(own, seconds, label)]
        for row in rows[-4:]:
            print(row, flush=True)
    return rows


def searching(name, folder):
    """The section of a config that searches with an embedder."""
    from configs import base

    section = base.get_config("tiny").search
    plain = "".join(c if c.isalnum() else "-" for c in name)
    section.update(embedder=name, index=str(folder / plain), num_results=10)
    return section


def measured(config, seconds, label):
    """Return a row of times, and three of matches."""
    began, others = time.perf_counter(), other_seconds()
    indexing.run(config)
    took = time.perf_counter() - began
    row = {"songs": len(list(pathlib.Path(config.data.source).glob("*.wav")))}
    row |= {"build_s": took, "build_times_real_time": seconds / took}
    if others is not None:
        row["other_cores"] = (other_seconds() - others) / took
    index = vector_index.read_index(indexing.index_folder(config))
    row |= {"vectors": len(index.vectors), "width": index.about["width"]} | time_queries(
        config, index
    )
    return [row, *count_matches(index, label)]


def time_queries(config, index):
    """Return milliseconds of a query by vector, and of one by five seconds of a file."""
    queries = np.array(index.vectors[:: max(1, len(index.vectors) // 50)])
    alone, whole = [], []
    for query in queries:
        began = time.perf_counter()
        search.rank_songs(index, query[None], 10)
        alone.append(1000 * (time.perf_counter() - began))
    embedder = indexing.load_embedder(config)
    config.search.update(query=f"{config.data.source}/0000.wav", seconds=(5.0, 10.0))
    for _ in range(10):
        began = time.perf_counter()
        search.rank_songs(index, search.embed_file(config, embedder, index), 10)
        whole.append(1000 * (time.perf_counter() - began))
    return {"query_ms": float(np.median(alone)), "file_query_ms": float(np.median(whole))}


def count_matches(index, label):
    """Yield rows of retrieval by windows; see the top of this file."""
    parts = [np.arange(*index.firsts[song : song + 2]) for song in range(len(index.songs))]
    middles = np.array([rows[len(rows) // 2] for rows in parts])
    # Every second window of half a window's hop: side by side, without the query's neighbors.
    kept = [rows[abs(rows - middle) % 2 == 0] for rows, middle in zip(parts, middles, strict=True)]
    gallery = np.setdiff1d(np.concatenate(kept), middles)
    scores = np.asarray(index.vectors[middles]) @ np.asarray(index.vectors[gallery]).T
    same = np.arange(len(parts))[:, None] == index.song_at(gallery)[None]
    labels = np.array(
        [next((x for x in s["labels"] if x.startswith(label + ":")), None) for s in index.songs]
    )
    alike = labels[:, None] == labels[index.song_at(gallery)][None]
    alike &= (labels != None)[:, None]  # noqa: E711
    goals = {
        "same song": (same, None),
        f"{label}, same-song excerpts included": (alike, None),
        f"{label}, same-song excerpts excluded": (alike, same),
    }
    for goal, (relevant, excluded) in goals.items():
        one = retrieval.measure_retrieval(scores, relevant, excluded)
        row = {"goal": goal, "gallery": one.gallery, "queries": one.queries}
        row |= {f"recall_{depth}": value for depth, value in one.recall.items()}
        yield row | {"mrr": one.mrr, "map_10": one.map_10, "median_rank": one.median_rank}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("synthetic", "gallery", "songs"))
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, help="128; of a gallery 384")
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="a run, for its backbone and its songs"
    )
    parser.add_argument("--songs", type=int, default=1000)
    parser.add_argument("--embedders", nargs="+", default=["logmel"])
    parser.add_argument("--label", default="composer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if args.part == "synthetic":
            rows = synthetic(args.vectors, args.width or 128, folder)
        elif args.part == "gallery":
            rows = list(gallery(args.songs, args.width or 384, folder))
        else:
            rows = of_songs(args.workdir, args.songs, args.embedders, args.label, folder)
    again = {(row["part"], str(row.get("vectors"))) for row in rows}
    kept = [
        r
        for r in read_csv(RESULTS / "downstream" / "search.csv")
        if (r["part"], r.get("vectors")) not in again
    ]
    round_ = lambda v: round(v, 4) if isinstance(v, float) else v
    write_csv(
        RESULTS / "downstream" / "search.csv",
        kept + [{k: round_(v) for k, v in r.items()} for r in rows],
    )


if __name__ == "__main__":
    main()
