"""--mode=search: the indexed songs nearest to a sound, a text or the songs of labels, and where.

query -> vectors [Q, d], one every hop -> nearest windows -> their songs, aligned with the query
-> songs with their best range
"""

import dataclasses

import numpy as np

from specdiff_jax.audio.decode import AudioFormat, decode_audio
from specdiff_jax.conditioning import label_names
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import cache, prepare
from specdiff_jax.data.crops import pcm_to_float
from specdiff_jax.downstream import index as indexing
from specdiff_jax.downstream import vector_index
from specdiff_jax.reports import search_report
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log

MIN_CANDIDATES = 64  # songs that are aligned with the query, window by window


@dataclasses.dataclass(frozen=True)
class Hit:
    """A song in the results."""

    song: dict  # of the index
    start: float  # seconds into the song
    end: float
    score: float  # mean cosine of the query's windows and the song's, in order


def run(config, json_path=None, page_path=None):
    """Log the results of config.search; write them as JSON and as a page with players.

    Raises:
      ValueError: there is no query or no index, or the index is of another model.
    """
    s, place = config.search, indexing.index_folder(config)
    refuse_unused(s)
    index = vector_index.read_index(place)
    if index is None:
        raise ValueError(f"search.index: there is none at {place}; build it with --mode=index")
    hits = find_songs(config, index)
    for line in format_hits(hits, index):
        log(line)
    if json_path is not None:
        write_json(json_path, to_json(config, index, hits))
    if page_path is not None:
        fileless = any(one.song["file"] is None for one in hits)
        prepared = open_prepared_songs(config) if fileless else {}
        results = to_json(config, index, hits)
        log(f"search: {search_report.write_search_report(page_path, results, prepared)}")


def refuse_unused(s):
    """Raise ValueError where there is no query, or a field has no effect."""
    for name in ("query", "text", "labels"):
        if s[name] is not None and not s[name].strip():
            raise ValueError(f"search.{name} is empty; unset it or give a value")
    if s.query is None and s.text is None and s.labels is None:
        raise ValueError(
            "search: give --query=FILE, --text or --labels; --mode=index builds the index"
        )
    if s.query is not None and s.text is not None:
        raise ValueError("search.text is not used beside search.query; unset one")
    if s.query is None and s.seconds is not None:
        raise ValueError(f"search.seconds={tuple(s.seconds)} is not used without search.query")
    if s.query is None and s.text is None:
        for name in ("embedder", "block", "noise_level"):
            if s[name] is not None:
                raise ValueError(
                    f"search.{name}={s[name]!r} is not used with labels alone; unset it"
                )
    if s.num_results < 1:
        raise ValueError(f"search.num_results={s.num_results} is less than 1")


def find_songs(config, index):
    """Return the Hits of config.search, the best first.  # [<= search.num_results]"""
    s = config.search
    songs = None if s.labels is None else select_songs(index, s.labels)
    if s.query is None and s.text is None:
        rows = rows_of_songs(index, songs)
        queries = l2_normalize(index.vectors[rows].mean(axis=0, keepdims=True))
    else:
        embedder = indexing.load_embedder(config)
        indexing.refuse_other_index(index, indexing.describe(config, embedder, index))
        queries = embed_text(embedder, s.text) if s.text else embed_file(config, embedder, index)
    return rank_songs(index, queries, s.num_results, songs)


def select_songs(index, text):
    """Return the songs with all labels of a comma-separated text.  # [S] int64"""
    present = sorted({label for song in index.songs for label in song["labels"]})
    if not present:
        raise ValueError(f"search.labels={text!r}: no song of {index.folder} has a label")
    names = map(str.strip, text.split(","))
    labels = {label_names.find_label(name, present, "of the songs") for name in names}
    songs = [i for i, song in enumerate(index.songs) if labels <= set(song["labels"])]
    if not songs:
        raise ValueError(f"search.labels={text!r}: no song has all of them")
    return np.array(songs)


def rows_of_songs(index, songs):
    """Return all rows of some songs, ascending.  # [R] int64"""
    return np.concatenate([np.arange(*index.firsts[song : song + 2]) for song in songs])


def embed_text(embedder, text):
    """Return the vector of a text.  # [1, d]"""
    if embedder.embed_text is None:
        raise ValueError(
            f"search.text: {embedder.name} embeds no texts; set search.embedder=embed:WORKDIR "
            "of --mode=embed with embed.text, or path:FOLDER with a CLAP model and its tokenizer"
        )
    return l2_normalize(embedder.embed_text([text])).astype(np.float32)


def embed_file(config, embedder, index):
    """Return the vectors of search.query, or of its range search.seconds.  # [Q, d]"""
    s, d = config.search, config.data
    if s.seconds is not None and not (len(s.seconds) == 2 and 0 <= s.seconds[0] < s.seconds[1]):
        raise ValueError(f"search.seconds={tuple(s.seconds)} is not (from, to) within the file")
    audio_format = AudioFormat(embedder.sample_rate, 1, d.loudness, d.level_db)
    try:
        pcm, *_ = decode_audio(s.query, audio_format, *(s.seconds or (None, None)))
    except ValueError as error:
        raise ValueError(f"search.query={s.query!r}: {error}") from error
    if len(pcm) < embedder.min_samples:
        least = embedder.min_samples / embedder.sample_rate
        raise ValueError(
            f"search.query={s.query!r}: {len(pcm) / embedder.sample_rate:.3f} s are shorter than "
            f"one patch, {least:.3f} s; set a longer range"
        )
    return indexing.embed_wave(embedder, pcm_to_float(pcm)[:, 0], index.about["hop"])


def rank_songs(index, queries, count, songs=None):
    """Return the Hits nearest to a query of Q successive windows, the best first, then by name.

    Candidates are the songs with a window near to one of the query's, at least MIN_CANDIDATES of
    them where there are so many; they are ranked by their best range. For a query of one window the
    ranking is exact.

    Args:
      songs: to search among; all where None.
    """
    rows = None if songs is None else rows_of_songs(index, songs)
    song_count = len(index.songs) if songs is None else len(songs)
    total = len(index.vectors) if rows is None else len(rows)
    wanted = min(max(count, MIN_CANDIDATES), song_count)
    neighbors = wanted * -(-total // song_count)  # one song may own all the nearest windows
    while True:
        near, _ = vector_index.find_nearest(index, queries, neighbors, rows)
        near = np.unique(index.song_at(near))
        if len(near) >= wanted or neighbors >= total:
            break
        neighbors *= 4
    hits = [find_best_range(index, song, queries) for song in near]
    return sorted(hits, key=lambda hit: (-hit.score, hit.song["name"]))[:count]


def find_best_range(index, song, queries):
    """Return the Hit of a song: the shift at which its windows are nearest to the query's.

    A song that is shorter than the query is shifted within the query.
    """
    first, last = index.firsts[song : song + 2]
    cosines = index.vectors[first:last] @ queries.T  # [W, Q]
    windows, queried = cosines.shape
    length = min(windows, queried)
    if windows < queried:
        cosines = cosines.T
    shifts = len(cosines) - length + 1
    steps = np.arange(length)
    means = cosines[np.arange(shifts)[:, None] + steps[None], steps[None]].mean(axis=1)
    place = int(means.argmax())
    start = 0 if windows < queried else place
    return make_hit(index, index.songs[song], start, start + length - 1, float(means[place]))


def make_hit(index, song, first, last, score):
    """Return the Hit of the windows `first` to `last` of a song."""
    about = index.about
    starts = indexing.window_starts(song["samples"], about["window"], about["hop"])
    end = min(song["samples"], starts[last] + about["window"])
    rate = about["sample_rate"]
    return Hit(song, float(starts[first] / rate), float(end / rate), score)


def format_hits(hits, index):
    """Yield the lines of the table of results."""
    songs, windows = len(index.songs), len(index.vectors)
    method = "exact" if index.graph is None else "by a graph"
    yield f"search: {songs} songs, {windows:,} vectors of {index.about['embedder']}, {method}"
    yield f"{'score':>6}  {'from':>8}  {'to':>8}  song"
    for one in hits:
        name = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in format_name(one)
        )
        yield f"{one.score:6.3f}  {format_time(one.start):>8}  {format_time(one.end):>8}  {name}"


def format_name(hit):
    """Return the name of a Hit's song with its first labels."""
    labels = ", ".join(hit.song["labels"][:4])
    return hit.song["name"] + (f"  ({labels})" if labels else "")


def format_time(seconds):
    """Return minutes and seconds, M:SS.S."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def open_prepared_songs(config):
    """Return {name: (samples [n, A] int16, Hz)} of the prepared songs of data.source.

    Players need them for songs without a file: rendered ones, and those of a data set.
    """
    place = prepare.locate_cache(config)
    if config.data.trim_db is not None or not (place / "manifest.json").exists():
        return {}
    manifest = cache.read_manifest(place)
    shards, rate = cache.open_shards(place, manifest), manifest["sample_rate"]
    cut = lambda song: shards[song["shard"]][song["start"] : song["start"] + song["samples"]]
    return {song["name"]: (cut(song), rate) for song in manifest["songs"]}


def to_json(config, index, hits):
    """Return the query and its results, for `json`."""
    s = config.search
    query = {"file": s.query, "seconds": s.seconds and list(s.seconds)}
    query |= {"text": s.text, "labels": s.labels}
    fields = ("name", "artist", "labels", "captions", "file", "offset")
    return {
        "query": query,
        "index": str(index.folder),
        "embedder": index.about["embedder"],
        "sha256": index.about["sha256"],
        "songs": len(index.songs),
        "vectors": len(index.vectors),
        "results": [
            {"score": one.score, "start": one.start, "end": one.end}
            | {name: one.song[name] for name in fields}
            for one in hits
        ],
    }
