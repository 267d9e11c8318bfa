"""--mode=search: which indexed songs are like a sound, a text or the songs of labels, and where.

query -> vectors [Q, d], one every hop -> the nearest windows -> their songs, each held against the
query in order -> songs with the range that is nearest
"""

import dataclasses

import numpy as np

from specdiff_jax.audio.ingest import Intake, ingest
from specdiff_jax.conditioning import label_names
from specdiff_jax.data import cache, prepare
from specdiff_jax.data.crops import pcm_to_float
from specdiff_jax.downstream import index as indexing
from specdiff_jax.downstream import vector_index
from specdiff_jax.reports import search_report
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log

FEWEST = 64  # songs that are held against the query, window by window


@dataclasses.dataclass(frozen=True)
class Hit:
    """A song that was found."""

    song: dict  # of the index
    start: float  # seconds into the song
    end: float
    score: float  # mean cosine of the query's windows and the song's, in order; 1 is the same


def run(config, json_path=None, page_path=None):
    """Says the songs that config.search asks for; writes them as JSON and as a page to listen to.

    Raises:
      ValueError: nothing is asked for, there is no index, or it is of another model.
    """
    s, place = config.search, indexing.place_of(config)
    refuse_unused(s)
    index = vector_index.read(place)
    if index is None:
        raise ValueError(f"search.index: there is none at {place}; build it with --mode=index")
    hits = asked(config, index)
    for line in lines(hits, index):
        log(line)
    if json_path is not None:
        write_json(json_path, described(config, index, hits))
    if page_path is not None:
        fileless = any(one.song["file"] is None for one in hits)
        prepared = prepared_songs(config) if fileless else {}
        told = described(config, index, hits)
        log(f"search: {search_report.write_search_report(page_path, told, prepared)}")


def refuse_unused(s):
    """Raises ValueError where nothing is asked for, or something that would be ignored."""
    for name in ("query", "text", "labels"):
        if s[name] is not None and not s[name].strip():
            raise ValueError(f"search.{name} is empty; leave it out or ask for something")
    if s.query is None and s.text is None and s.labels is None:
        raise ValueError("search: ask by --query=FILE, --text or --labels; --mode=index builds")
    if s.query is not None and s.text is not None:
        raise ValueError("search.text is not used beside search.query; leave one out")
    if s.query is None and s.seconds is not None:
        raise ValueError(f"search.seconds={tuple(s.seconds)} is not used without search.query")
    if s.query is None and s.text is None:
        for name in ("embedder", "block", "noise_level"):
            if s[name] is not None:
                raise ValueError(f"search.{name}={s[name]!r} is not used by labels alone; unset it")
    if s.num_results < 1:
        raise ValueError(f"search.num_results={s.num_results} is less than 1")


def asked(config, index):
    """The hits of config.search, the best first.  # [<= search.num_results]"""
    s = config.search
    songs = None if s.labels is None else songs_with(index, s.labels)
    if s.query is None and s.text is None:
        rows = rows_of(index, songs)
        queries = indexing.unit(index.vectors[rows].mean(axis=0, keepdims=True))
    else:
        embedder = indexing.embedder_of(config)
        indexing.refuse_other(index, indexing.about_of(config, embedder, index))
        queries = read(embedder, s.text) if s.text else heard(config, embedder, index)
    return found(index, queries, s.num_results, songs)


def songs_with(index, told):
    """Which songs have all labels of a text with commas between them.  # [S] int64"""
    there = sorted({label for song in index.songs for label in song["labels"]})
    if not there:
        raise ValueError(f"search.labels={told!r}: no song of {index.folder} has a label")
    wanted = {
        label_names.find_label(name.strip(), there, "of the songs") for name in told.split(",")
    }
    songs = [i for i, song in enumerate(index.songs) if wanted <= set(song["labels"])]
    if not songs:
        raise ValueError(f"search.labels={told!r}: no song has all of them")
    return np.array(songs)


def rows_of(index, songs):
    """All rows of some songs, ascending.  # [R] int64"""
    return np.concatenate([np.arange(*index.firsts[song : song + 2]) for song in songs])


def read(embedder, text):
    """The vector of a text.  # [1, d]"""
    if embedder.embed_text is None:
        raise ValueError(
            f"search.text: {embedder.name} reads no texts; index by search.embedder=embed:WORKDIR "
            "of --mode=embed with embed.text, or path:FOLDER with a CLAP model and its tokenizer"
        )
    return indexing.unit(embedder.embed_text([text]))


def heard(config, embedder, index):
    """The vectors of a file, or of a range of it.  # [Q, d]"""
    s, d = config.search, config.data
    if s.seconds is not None and not (len(s.seconds) == 2 and 0 <= s.seconds[0] < s.seconds[1]):
        raise ValueError(f"search.seconds={tuple(s.seconds)} is not (from, to) within the file")
    intake = Intake(embedder.sample_rate, 1, d.loudness, d.level_db)
    try:
        pcm, *_ = ingest(s.query, intake, *(s.seconds or (None, None)))
    except ValueError as error:
        raise ValueError(f"search.query={s.query!r}: {error}") from error
    if len(pcm) < embedder.min_samples:
        least = embedder.min_samples / embedder.sample_rate
        raise ValueError(
            f"search.query={s.query!r}: {len(pcm) / embedder.sample_rate:.3f} s are shorter than "
            f"one patch, {least:.3f} s; take a longer range"
        )
    return indexing.embedded(embedder, pcm_to_float(pcm)[:, 0], index.about["hop"])


def found(index, queries, count, songs=None):
    """The songs that are nearest to a query of Q windows that follow each other.

    Songs with a window near to one of the query's are taken, at least FEWEST of them where there
    are so many, and put in order by their best range. One window of a query misses none.

    Args:
      songs: the only ones that may be found; all where None.

    Returns:
      Hits, the best first; equal ones by name.
    """
    rows = None if songs is None else rows_of(index, songs)
    there = len(index.songs) if songs is None else len(songs)
    total = len(index.vectors) if rows is None else len(rows)
    wanted = min(max(count, FEWEST), there)
    asked_for = wanted * -(-total // there)  # all windows of a song may be alike
    while True:
        near, _ = vector_index.nearest(index, queries, asked_for, rows)
        near = np.unique(index.song_at(near))
        if len(near) >= wanted or asked_for >= total:
            break
        asked_for *= 4
    hits = [best_range(index, song, queries) for song in near]
    return sorted(hits, key=lambda hit: (-hit.score, hit.song["name"]))[:count]


def best_range(index, song, queries):
    """The Hit of a song: where its windows, one after another, are most like the query's.

    A query that is longer than the song is held against it at every shift within the query.
    """
    first, last = index.firsts[song : song + 2]
    cosines = index.vectors[first:last] @ queries.T  # [W, Q]
    windows, asked_for = cosines.shape
    length = min(windows, asked_for)
    if windows < asked_for:
        cosines = cosines.T
    shifts = len(cosines) - length + 1
    steps = np.arange(length)
    means = cosines[np.arange(shifts)[:, None] + steps[None], steps[None]].mean(axis=1)
    place = int(means.argmax())
    at = 0 if windows < asked_for else place
    return hit(index, index.songs[song], at, at + length - 1, float(means[place]))


def hit(index, song, first, last, score):
    """The Hit of the windows `first` to `last` of a song."""
    about = index.about
    at = indexing.starts(song["samples"], about["window"], about["hop"])
    end = min(song["samples"], at[last] + about["window"])
    rate = about["sample_rate"]
    return Hit(song, float(at[first] / rate), float(end / rate), score)


def lines(hits, index):
    """The table."""
    songs, windows = len(index.songs), len(index.vectors)
    way = "exact" if index.graph is None else "by a graph"
    yield f"search: {songs} songs, {windows:,} vectors of {index.about['embedder']}, {way}"
    yield f"{'score':>6}  {'from':>8}  {'to':>8}  song"
    for one in hits:
        name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label(one))
        yield f"{one.score:6.3f}  {clock(one.start):>8}  {clock(one.end):>8}  {name}"


def label(one):
    told = ", ".join(one.song["labels"][:4])
    return one.song["name"] + (f"  ({told})" if told else "")


def clock(seconds):
    """Minutes and seconds, as players show them."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def prepared_songs(config):
    """{name: (samples [n, A] int16, Hz)} of the songs of data.source, where they are prepared.

    A player's last resort: songs that are rendered, or lie within a data set, have no file.
    """
    place = prepare.locate_cache(config)
    if config.data.trim_db is not None or not (place / "manifest.json").exists():
        return {}
    manifest = cache.read_manifest(place)
    shards, rate = cache.open_shards(place, manifest), manifest["sample_rate"]
    cut = lambda song: shards[song["shard"]][song["start"] : song["start"] + song["samples"]]
    return {song["name"]: (cut(song), rate) for song in manifest["songs"]}


def described(config, index, hits):
    """The query and what it found, for JSON."""
    s = config.search
    query = {"file": s.query, "seconds": s.seconds and list(s.seconds)}
    query |= {"text": s.text, "labels": s.labels}
    kept = ("name", "artist", "labels", "captions", "file", "offset")
    return {
        "query": query,
        "index": str(index.folder),
        "embedder": index.about["embedder"],
        "sha256": index.about["sha256"],
        "songs": len(index.songs),
        "vectors": len(index.vectors),
        "found": [
            {"score": one.score, "start": one.start, "end": one.end}
            | {name: one.song[name] for name in kept}
            for one in hits
        ],
    }
