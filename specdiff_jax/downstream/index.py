"""--mode=index: build the vector index of a collection that --mode=search reads.

song -> mono wave [N] -> windows -> embedder -> vectors [W, d] of length one, with their times

A second build adds new songs, removes songs that are gone, and embeds again only songs whose
content changed. The old index stays whole until the new one is complete.
"""

import functools
import pathlib

import numpy as np
import tqdm

from specdiff_jax.audio.decode import AudioFormat
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import cache, collection
from specdiff_jax.data.crops import pcm_to_float
from specdiff_jax.data.sources import decode
from specdiff_jax.data.sources.items import More
from specdiff_jax.downstream import embedders, head_job, vector_index
from specdiff_jax.evaluation.embedders.embedder import embed_windows
from specdiff_jax.runtime import worker_pool
from specdiff_jax.runtime.logs import log

FILE_SECONDS = 300.0  # a file that takes longer to decode is skipped
# Fields that a build does not use: the whole of every file is indexed.
UNUSED = {
    "data": ("include_labels", "exclude_labels", "max_songs", "trim_db"),
    "search": ("query", "seconds", "text", "labels"),
}
LEVELS = ("loudness", "level_db")  # fields of data that an index is built with
CHUNK = 7  # batches of windows that are copied at once


def run(config):
    """Build the index of config.search, or update it."""
    for section, names in UNUSED.items():
        for name in names:
            if (value := config[section][name]) is not None:
                raise ValueError(
                    f"{section}.{name}={value!r} is not used by --mode=index; unset it"
                )
    collection.build_audio_format(config)  # refuse wrong options before any work
    vector_index.import_usearch()
    embedder, place = load_embedder(config), index_folder(config)
    with cache.lock_cache(place):
        before = vector_index.read_index(place, whole=True)
        about = describe(config, embedder, before)
        if before is not None:
            refuse_other_index(before, about)
        songs, vectors, counts = embed_collection(config, embedder, about, before)
        vector_index.write_index(place, about, songs, vectors, before)
    changes = ", ".join(f"{count} {what}" for what, count in counts.items())
    log(f"index: {place}: {len(songs)} songs, {len(vectors):,} vectors ({changes})")


def index_folder(config):
    """Return the folder of the index."""
    return pathlib.Path(config.search.index or pathlib.Path(config.workdir) / "index").expanduser()


def load_embedder(config):
    """Return the Embedder of config.search: the run's own embedding or backbone if none is named.

    Raises:
      ValueError: there is no such embedder, or a field has no effect.
    """
    s, sample = config.search, config.sample
    own = embedders.EMBED if head_job.has_best(config.workdir, "embedding") else embedders.BACKBONE
    name = s.embedder or f"{own}:{config.workdir}"
    return embedders.load(name, s.block, s.noise_level, sample.checkpoint_step, sample.ema)


def describe(config, embedder, before):
    """Return the settings of an index; the hop is that of `before` where search.hop is unset."""
    s, rate = config.search, embedder.sample_rate
    if s.hop is not None and not 0.01 <= s.hop <= embedder.seconds:
        raise ValueError(f"search.hop={s.hop} s is not in 0.01 to {embedder.seconds:.2f}, a window")
    hop = embedder.window // 2 if s.hop is None else round(s.hop * rate)
    if s.hop is None and before is not None:
        hop = before.about["hop"]
    about = {"embedder": embedder.name, "block": s.block, "noise_level": s.noise_level, "hop": hop}
    about |= {name: config.data[name] for name in LEVELS}
    names = ("sha256", "width", "sample_rate", "window")
    return about | {name: getattr(embedder, name) for name in names}


def refuse_other_index(index, about):
    """Raise ValueError where an index was built with another model, hop or loudness."""
    old = index.about
    identity = lambda a: (a["embedder"].partition(":")[0], a["sha256"], a["width"])
    if identity(old) != identity(about):
        theirs, ours = (
            f"{a['embedder']} (block {a['block']}, noise level {a['noise_level']}, {a['sha256']})"
            for a in (old, about)
        )
        raise ValueError(
            f"{index.folder} was built by {theirs}, not by {ours}; set search.embedder, block and "
            "noise_level as they were, or search.index to another folder"
        )
    if old["hop"] != about["hop"]:
        seconds = old["hop"] / old["sample_rate"]
        raise ValueError(
            f"search.hop: {index.folder} was built with {seconds:g} s; set it so, or search.index "
            "to another folder"
        )
    for name in LEVELS:  # files that did not change would keep vectors of another level
        if old[name] != about[name]:
            raise ValueError(
                f"data.{name}: {index.folder} was built with {old[name]!r}, not {about[name]!r}; "
                "set it so, or search.index to another folder"
            )


def embed_collection(config, embedder, about, before):
    """Return (songs by name, their vectors [K, d], counts) of a collection.

    counts: how many songs are new, changed, unchanged, skipped and removed.

    Raises:
      ValueError: no song of the collection can be used.
    """
    rows = {song["name"]: row for row, song in enumerate(before.songs)} if before else {}
    number = 1 + max((song["number"] for song in before.songs), default=-1) if before else 0
    entries, more = {}, []
    counts = dict.fromkeys(("new", "changed", "unchanged", "skipped"), 0)
    for item, decoded, reason in read_items(config, embedder, rows, before):
        if isinstance(item, More):
            more.append(item)
            continue
        reason = reason or refuse_short(decoded, embedder)
        if reason:
            counts["skipped"] += 1
            log(f"skipped: {item.name!r}: {reason}")
            continue
        sha256, pcm = decoded
        old, entry = rows.get(item.name), make_entry(item, sha256)
        if pcm is None:
            first, last = before.firsts[old : old + 2]
            entry |= {name: before.songs[old][name] for name in ("number", "samples", "windows")}
            entries[item.name] = entry, before.vectors[first:last]
        else:
            vectors = embed_wave(embedder, pcm_to_float(pcm)[:, 0], about["hop"])
            entry |= {"number": number, "samples": len(pcm), "windows": len(vectors)}
            entries[item.name], number = (entry, vectors), number + 1
        counts["unchanged" if pcm is None else "new" if old is None else "changed"] += 1
    for item in more:
        if item.name in entries:
            entry = entries[item.name][0]
            for kind in ("labels", "captions"):
                entry[kind] += [text for text in getattr(item, kind) if text not in entry[kind]]
    if not entries:
        raise ValueError(f"data.source={config.data.source!r} holds no song that can be indexed")
    counts["removed"] = len(set(rows) - set(entries))
    songs, vectors = zip(*(entries[name] for name in sorted(entries)), strict=True)
    return list(songs), np.concatenate(vectors), counts


def read_items(config, embedder, rows, before):
    """Yield (item, (sha256, pcm or None if unchanged) or None, reason or None) of a collection."""
    d = config.data
    audio_format = AudioFormat(embedder.sample_rate, 1, d.loudness, d.level_db)
    read = functools.partial(decode.decode_if_changed, audio_format=audio_format)
    hash_of = lambda name: before.songs[rows[name]]["sha256"] if name in rows else None
    jobs = ((item, hash_of(item.name)) for item in collection.iterate_items(config))
    total = collection.count_expected(config)
    with tqdm.tqdm(total=total, desc="index", unit=" songs") as bar:
        for (item, _), decoded, reason in worker_pool.in_order(read, jobs, FILE_SECONDS):
            yield item, decoded, reason
            bar.update()


def refuse_short(decoded, embedder):
    """Return why a song (sha256, pcm or None) is too short for the embedder, None if it is not."""
    _, pcm = decoded
    if pcm is None or len(pcm) >= embedder.min_samples:
        return None
    return f"shorter than {embedder.min_samples / embedder.sample_rate:.3f} s"


def make_entry(item, sha256):
    """Return what an index keeps of a song, for `json`."""
    return {
        "name": item.name,
        "artist": item.artist,
        "labels": list(item.labels),
        "captions": list(item.captions),
        "file": item.audio if isinstance(item.audio, str) else None,
        "offset": item.start or 0.0,  # of the song in the file, in seconds
        "sha256": sha256,
    }


def embed_wave(embedder, wave, hop):
    """Return vectors of length one of a wave's windows.  # [N] -> [W, d] float32"""
    wave = np.resize(wave, embedder.window) if len(wave) < embedder.window else wave
    starts, size = window_starts(len(wave), embedder.window, hop), CHUNK * embedder.batch
    parts = []
    for first in range(0, len(starts), size):
        pieces = [wave[start : start + embedder.window] for start in starts[first : first + size]]
        parts.append(embed_windows(embedder, np.stack(pieces)))
    return l2_normalize(np.concatenate(parts)).astype(np.float32)


def window_starts(samples, window, hop):
    """Return where the windows of a wave start; a rest of half a hop or more gets its own.

    # -> [W] int64 samples
    """
    room = max(0, samples - window)
    whole = hop * np.arange(1 + room // hop)
    return np.append(whole, room) if 2 * (room % hop) >= hop else whole
