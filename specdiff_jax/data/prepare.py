"""--mode=prepare: any audio collection -> int16 shards, splits without leaks, a data report.

The cache's name is a hash of its source and settings: a changed setting makes a new cache, an
unchanged one is reused. Every item of the source becomes a song or is skipped with a reason; the
sum is checked.
"""

import collections
import functools
import hashlib
import json
import os
import pathlib

import tqdm

from specdiff_jax.audio import fingerprint
from specdiff_jax.data import audit, cache, caption_features, collection, crops, splits
from specdiff_jax.data.songs import filter_songs, load_songs, parse_labels
from specdiff_jax.data.sources.decode import decode_to_spool
from specdiff_jax.data.sources.items import More
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.runtime import distributed, worker_pool
from specdiff_jax.runtime.logs import log
from specdiff_jax.runtime.text import mark_unprintable

FORMAT = 6  # raise it when the cache's layout or the songbook's sound or words change
# Fields of config.data that do not change the cache: how songs are fed, which of them a run uses.
FEEDING_FIELDS = ("cache_dir", "placement", "device_gigabytes", "max_error_fraction")
SELECTION_FIELDS = ("include_labels", "exclude_labels", "max_songs")
FILE_SECONDS = 300.0  # a file that takes longer to decode is skipped
NUM_SPECTROGRAMS = 6  # in the report
MAX_PRINTED = 300  # characters of a file's name or reason in the log


def run(config):
    """Prepare config.data unless its cache is complete already; one process does it for all."""
    distributed.run_in_first_process(lambda: prepare_collection(config))


def prepare_collection(config):
    """Prepare or verify the cache of config.data, and compute the features of its captions."""
    place, d = locate_cache(config), config.data
    with cache.lock_cache(place):
        if (place / "manifest.json").exists():
            manifest = cache.verify_cache(place)
            check_error_fraction(manifest, place, config)  # the limit may be lower now
        else:
            manifest = write_cache(place, config)
        for text in (d.include_labels, d.exclude_labels):
            parse_labels(manifest["songs"], text)  # an unknown label fails here already
        if name := config.condition.text:
            caption_features.prepare_features(place, name, config.condition.max_tokens)
    log(f"data: {place}")


def locate_cache(config):
    """Return the cache folder of a config, whether it exists or not."""
    unused = FEEDING_FIELDS + SELECTION_FIELDS
    settings = {name: v for name, v in config.data.to_dict().items() if name not in unused}
    settings |= {"format": FORMAT, "sample_rate": config.representation.sample_rate}
    settings["files"] = collection.fingerprint_source(config)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    label = pathlib.Path(config.data.source).name.replace(":", "-") or "songs"
    return pathlib.Path(os.path.expanduser(config.data.cache_dir)) / f"{label}-{digest}"


def load_split(config, split, samples):
    """Return the Songs of a split, selected by data.include_labels and data.exclude_labels.

    data.max_songs limits the training songs.
    """
    d, place = config.data, locate_cache(config)
    songs = load_songs(place, split, samples)
    max_songs = d.max_songs if split == "train" else None
    if not (d.include_labels or d.exclude_labels or max_songs is not None):
        return songs
    entries = cache.read_manifest(place)["songs"]  # a label may have songs in one split alone
    include, exclude = (
        parse_labels(entries, text) for text in (d.include_labels, d.exclude_labels)
    )
    return filter_songs(songs, include, exclude, max_songs)


def write_cache(place, config):
    """Decode every song into `place` and return its manifest.

    A preparation that was killed resumes after its last complete shard.
    """
    audio_format = collection.build_audio_format(config)  # wrong options fail before any work
    items = collection.iterate_items(config)
    writer = cache.Writer(place)
    if writer.seen:
        log(f"data: {writer.seen} items were prepared before; resuming")
    decode = functools.partial(decode_to_spool, audio_format=audio_format, folder=writer.folder)
    total = collection.count_expected(config)
    for item, decoded, reason in decode_items(decode, items, writer.seen, total):
        record_item(writer, item, decoded, reason)
    writer.close_shard()
    if not writer.songs:
        log_skipped("bad", writer.skipped)
    manifest = build_manifest(writer, config)
    audit.write_report(writer.folder, manifest, render_spectrograms(writer.folder, manifest))
    check_error_fraction(manifest, writer.folder, config)
    log_summary(manifest, writer.publish(manifest))
    return manifest


def decode_items(decode, items, seen, total):
    """Yield (item, decode(item) or None, reason or None) of the items after the first `seen`."""
    for _ in zip(range(seen), items):  # noqa: B905, the range is the shorter one
        pass
    with tqdm.tqdm(initial=seen, total=total, desc="prepare", unit=" songs") as bar:
        for result in worker_pool.in_order(decode, items, FILE_SECONDS):
            bar.update()
            yield result


def record_item(writer, item, decoded, reason):
    """Add an item to the cache: a song, more of one, or a skipped piece with its reason."""
    if isinstance(item, More):
        more = {"name": item.name, "labels": list(item.labels), "captions": list(item.captions)}
        writer.more.append(more)
    elif reason:
        writer.skipped.append({"name": item.name, "reason": reason})
    else:
        song, facts, landmarks = decoded
        tags = facts.pop("tags")
        album = item.album or tags["album"]
        entry = {
            "name": item.name,
            "artist": item.artist or tags["artist"] or album or item.name,
            "album": album,
            "labels": list(item.labels),
            "captions": list(item.captions),
            "license": item.license,
            "given_split": item.split,
            "tempo": item.tempo,
            "facts": facts,
        }
        writer.add(entry, song, landmarks)
    writer.count_item()


def build_manifest(writer, config):
    """Return the manifest: captions merged, duplicates listed, splits assigned, items counted."""
    songs = {song["name"]: song for song in writer.songs}
    for more in writer.more:
        if song := songs.get(more["name"]):
            for kind in ("labels", "captions"):
                song[kind] += [text for text in more[kind] if text not in song[kind]]
    log("data: comparing fingerprints for duplicates")
    pairs = find_duplicates(writer.songs, writer.landmarks)
    fractions = config.data.valid_fraction, config.data.test_fraction
    warnings = splits.assign_splits(writer.songs, [(i, j) for i, j, *_ in pairs], *fractions)
    name = lambda index: writer.songs[index]["name"]
    duplicates = [
        {"first": name(i), "second": name(j), "kind": kind, "score": float(score)}
        for i, j, kind, score in pairs
    ]
    rate = config.representation.sample_rate
    for song in writer.songs:
        song["seconds"] = song["samples"] / rate
    num_items = writer.seen - len(writer.more)
    if num_items != len(writer.songs) + len(writer.skipped):
        raise AssertionError(
            f"{num_items} items, but {len(writer.songs)} songs + {len(writer.skipped)} skipped"
        )
    return {
        "source": config.data.source,
        "revision": collection.resolve_revision(config),
        "sample_rate": rate,
        "channels": config.data.channels,
        "num_items": num_items,
        "shards": writer.shards,
        "songs": writer.songs,
        "skipped": writer.skipped,
        "duplicates": duplicates,
        "warnings": warnings,
    }


def find_duplicates(songs, landmarks):
    """Return [(i, j, kind, score)] of songs of the same recording; each exact copy once."""
    first_of, exact, others = {}, [], list(landmarks)
    for index, song in enumerate(songs):
        first = first_of.setdefault(song["sha256"], index)
        if first != index:
            exact.append((first, index, "exact", 1.0))
            others[index] = landmarks[index][:0]
    return exact + [(i, j, "near", score) for i, j, score in fingerprint.find_duplicates(others)]


def check_error_fraction(manifest, folder, config):
    """Check that few enough items were skipped; what was decoded stays on disk.

    Raises:
      ValueError: more than data.max_error_fraction of them were; each is logged.
    """
    skipped, num_items = manifest["skipped"], manifest["num_items"]
    limit = config.data.max_error_fraction
    if not collection.find_source(config).limit_errors or len(skipped) <= limit * num_items:
        return
    log_skipped("bad", skipped)
    reasons = collections.Counter(skip["reason"].split(" (")[0] for skip in skipped)
    raise ValueError(
        f"data: {len(skipped)} of {num_items} files are bad (most often: "
        f"{reasons.most_common(1)[0][0]}), more than data.max_error_fraction={limit}; see "
        f"{folder / 'data_report.html'}; fix or remove them, or raise the limit: what was decoded "
        "is kept"
    )


def log_skipped(heading, skipped):
    """Log each skipped item with its reason."""
    for skip in skipped:
        log(f"{heading}: {make_printable(skip['name'])}: {make_printable(skip['reason'])}")


def render_spectrograms(place, manifest):
    """Return [(name, PNG bytes)] of a few songs, evenly spread."""
    shards = cache.open_shards(place, manifest)
    rate, songs = manifest["sample_rate"], manifest["songs"]
    step = max(1, len(songs) // NUM_SPECTROGRAMS)
    images = []
    for song in songs[::step][:NUM_SPECTROGRAMS]:
        first = song["start"]
        pcm = shards[song["shard"]][first : first + min(song["samples"], 10 * rate)]
        png = spectrogram_image.spectrogram_png(crops.pcm_to_wave(pcm), rate)
        images.append((song["name"], png))
    return images


def log_summary(manifest, place):
    """Log the size of each split, warnings and every skipped item."""
    log_skipped("left out", manifest["skipped"])
    for warning in manifest["warnings"]:
        log(f"warning: {make_printable(warning)}")
    if pairs := manifest["duplicates"]:
        split_of = {song["name"]: song["split"] for song in manifest["songs"]}
        divided = sum(split_of[pair["first"]] != split_of[pair["second"]] for pair in pairs)
        where = f"{divided} of them in two splits" if divided else "each pair in one split"
        log(f"duplicates: {len(pairs)} pairs of songs are the same recording, {where}")
    for split in splits.SPLITS:
        songs = [song for song in manifest["songs"] if song["split"] == split]
        minutes = sum(song["seconds"] for song in songs) / 60
        groups = len({song["group"] for song in songs})
        log(f"{split}: {len(songs)} songs, {groups} artists, {minutes:.1f} min")
    log(f"data report: {place / 'data_report.html'}")


def make_printable(text):
    """Return a text of a file on one line that any terminal shows."""
    return mark_unprintable(text)[:MAX_PRINTED]
