"""--mode=index: a collection -> vectors of its windows, to be searched.

song -> mono wave [N] -> windows -> embedder -> vectors [W, d] of length one, with their times

A second build takes in what is new, takes out what is gone, and embeds again only songs whose
content changed. The index that was there stays whole until the new one is.
"""

import functools
import pathlib

import numpy as np
import tqdm

from specdiff_jax.audio.ingest import Intake
from specdiff_jax.data import cache, collection
from specdiff_jax.data.crops import pcm_to_float
from specdiff_jax.data.sources import decode
from specdiff_jax.data.sources.items import More
from specdiff_jax.downstream import embedders, trained_embedding, vector_index
from specdiff_jax.evaluation.embedders.embedder import embed_windows
from specdiff_jax.runtime import worker_pool
from specdiff_jax.runtime.logs import log

FILE_SECONDS = 300.0  # a file that takes longer to decode is left out
UNUSED = (
    "include_labels",
    "exclude_labels",
    "max_songs",
    "trim_db",
)  # of data: the whole of every file is indexed
ASKING = ("query", "seconds", "text", "labels")  # of search, which a build would ignore
AS_IS = {"loudness": "as_is", "level_db": None}  # of data; also where an index does not tell
CHUNK = 7  # batches of windows held at once: hours of sound are not copied


def run(config):
    """Builds the index of config.search, or brings it up to date."""
    for section, names in (("data", UNUSED), ("search", ASKING)):
        for name in names:
            if (value := config[section][name]) is not None:
                raise ValueError(
                    f"{section}.{name}={value!r} is not used by --mode=index; unset it"
                )
    collection.build_audio_format(config)  # refuses wrong options before any work
    vector_index.library()
    embedder, place = embedder_of(config), place_of(config)
    with cache.lock_cache(place):
        before = vector_index.read(place, whole=True)
        about = about_of(config, embedder, before)
        if before is not None:
            refuse_other(before, about)
        songs, vectors, counts = collected(config, embedder, about, before)
        vector_index.write(place, about, songs, vectors, before)
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    log(f"index: {place}: {len(songs)} songs, {len(vectors):,} vectors ({told})")


def place_of(config):
    """The folder of the index."""
    return pathlib.Path(config.search.index or pathlib.Path(config.workdir) / "index").expanduser()


def embedder_of(config):
    """The embedder of config.search: this run's own embedding or trunk where none is named.

    Raises:
      ValueError: there is no such embedder, or a field would be ignored.
    """
    s, sample = config.search, config.sample
    own = trained_embedding.KIND if trained_embedding.there(config.workdir) else embedders.KIND
    name = s.embedder or f"{own}:{config.workdir}"
    kind, _, place = name.partition(":")
    if kind != trained_embedding.KIND:
        told = {"step": sample.checkpoint_step, "ema": sample.ema}
        return embedders.load(name, s.block, s.noise_level, **told)
    unused = {"search.block": s.block, "search.noise_level": s.noise_level}
    unused |= {"sample.checkpoint_step": sample.checkpoint_step}
    for field, value in unused.items():
        if value is not None:
            raise ValueError(f"{field}={value} is for a trunk, not for {name!r}; unset it")
    if not sample.ema:
        raise ValueError(f"sample.ema=False: {name} was chosen by its average; set it to True")
    if not place:
        raise ValueError("embedder 'embed:' names no run: write embed:WORKDIR")
    return trained_embedding.load(place)


def about_of(config, embedder, before):
    """What an index says of its vectors; the hop of the one that is there, where none is told."""
    s, rate = config.search, embedder.sample_rate
    if s.hop is not None and not 0.01 <= s.hop <= embedder.seconds:
        raise ValueError(f"search.hop={s.hop} s is not in 0.01 to {embedder.seconds:.2f}, a window")
    hop = embedder.window // 2 if s.hop is None else round(s.hop * rate)
    if s.hop is None and before is not None:
        hop = before.about["hop"]
    about = {"embedder": embedder.name, "block": s.block, "noise": s.noise_level, "hop": hop}
    about |= {name: config.data[name] for name in AS_IS}
    names = ("sha256", "width", "sample_rate", "window")
    return about | {name: getattr(embedder, name) for name in names}


def refuse_other(index, about):
    """Raises ValueError where an index holds vectors of another model, hop or loudness."""
    old = index.about
    told = lambda a: f"{a['embedder']} (block {a['block']}, noise {a['noise']}, {a['sha256']})"
    kind = lambda a: (a["embedder"].partition(":")[0], a["sha256"], a["width"])
    if kind(old) != kind(about):
        raise ValueError(
            f"{index.folder} was built by {told(old)}, not by {told(about)}; set search.embedder, "
            "block and noise as they were, or search.index to another folder"
        )
    if old["hop"] != about["hop"]:
        was = old["hop"] / old["sample_rate"]
        raise ValueError(
            f"search.hop: {index.folder} was built with {was:g} s; set it so, or search.index to "
            "another folder"
        )
    for name, unset in AS_IS.items():  # a file that is as before would keep its old vectors
        if (was := old.get(name, unset)) != about[name]:
            raise ValueError(
                f"data.{name}: {index.folder} was built with {was!r}, not {about[name]!r}; set it "
                "so, or search.index to another folder"
            )


def collected(config, embedder, about, before):
    """(songs by name, their vectors [K, d], how many are new, changed, as before, gone).

    Raises:
      ValueError: no song of the collection can be used.
    """
    known = {song["name"]: row for row, song in enumerate(before.songs)} if before else {}
    number = 1 + max((song["number"] for song in before.songs), default=-1) if before else 0
    found, more, counts = {}, [], dict.fromkeys(("new", "changed", "as before", "left out"), 0)
    for item, made, reason in listened(config, embedder, known, before):
        if isinstance(item, More):
            more.append(item)
            continue
        made, reason = usable(made, reason, embedder)
        if reason:
            counts["left out"] += 1
            log(f"left out: {item.name!r}: {reason}")
            continue
        sha256, pcm = made
        old = known.get(item.name)
        entry = entry_of(item, sha256)
        if pcm is None:
            first, last = before.firsts[old : old + 2]
            entry |= {name: before.songs[old][name] for name in ("number", "samples", "windows")}
            found[item.name] = entry, before.vectors[first:last]
        else:
            vectors = embedded(embedder, pcm_to_float(pcm)[:, 0], about["hop"])
            entry |= {"number": number, "samples": len(pcm), "windows": len(vectors)}
            found[item.name], number = (entry, vectors), number + 1
        counts["as before" if pcm is None else "new" if old is None else "changed"] += 1
    for item in more:
        if item.name in found:
            entry = found[item.name][0]
            for kind in ("labels", "captions"):
                entry[kind] += [text for text in getattr(item, kind) if text not in entry[kind]]
    if not found:
        raise ValueError(f"data.source={config.data.source!r} holds no song that can be indexed")
    counts["gone"] = len(set(known) - set(found))
    songs, vectors = zip(*(found[name] for name in sorted(found)), strict=True)
    return list(songs), np.concatenate(vectors), counts


def listened(config, embedder, known, before):
    """Yields (item, (sha256, pcm or None) or None, reason or None) of the collection."""
    d = config.data
    one = functools.partial(
        decode.decode_if_changed,
        audio_format=Intake(embedder.sample_rate, 1, d.loudness, d.level_db),
    )
    hash_of = lambda name: before.songs[known[name]]["sha256"] if name in known else None
    jobs = ((item, hash_of(item.name)) for item in collection.iterate_items(config))
    total = collection.count_expected(config)
    with tqdm.tqdm(total=total, desc="index", unit=" songs") as bar:
        for (item, _), made, reason in worker_pool.in_order(one, jobs, FILE_SECONDS):
            yield item, made, reason
            bar.update()


def usable(made, reason, embedder):
    """(made, reason), the reason set where a song is too short for the embedder."""
    if not reason and made[1] is not None and len(made[1]) < embedder.min_samples:
        reason = f"shorter than {embedder.min_samples / embedder.sample_rate:.3f} s"
    return made, reason


def entry_of(item, sha256):
    """What an index keeps of a song."""
    return {
        "name": item.name,
        "artist": item.artist,
        "labels": list(item.labels),
        "captions": list(item.captions),
        "file": item.audio if isinstance(item.audio, str) else None,
        "offset": item.start or 0.0,  # seconds into the file where the song begins
        "sha256": sha256,
    }


def embedded(embedder, wave, hop):
    """Vectors of length one of a wave's windows.  # [N] -> [W, d] float32"""
    wave = np.resize(wave, embedder.window) if len(wave) < embedder.window else wave
    at, size = starts(len(wave), embedder.window, hop), CHUNK * embedder.batch
    parts = []
    for first in range(0, len(at), size):
        pieces = [wave[start : start + embedder.window] for start in at[first : first + size]]
        parts.append(embed_windows(embedder, np.stack(pieces)))
    return unit(np.concatenate(parts))


def starts(samples, window, hop):
    """Where the windows of a sound begin; what is left at its end has its own from half a hop on.

    # -> [W] int64 samples
    """
    room = max(0, samples - window)
    whole = hop * np.arange(1 + room // hop)
    return np.append(whole, room) if 2 * (room % hop) >= hop else whole


def unit(vectors):
    """Each of length one; silence may have none.  # [..., d] float32"""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
