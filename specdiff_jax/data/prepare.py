"""--mode=prepare: any audio collection -> int16 shards, splits that cannot leak, a data report.

The cache's name is a hash of its source and settings, so a changed setting makes a new cache, and
an unchanged one is found again at once. Every item of the source ends as a song or is left out
with a named reason; the sum is checked.
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
from specdiff_jax.data.sources.songbook import songbook
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.runtime import distributed, worker_pool
from specdiff_jax.runtime.logs import log

FORMAT = 5  # raise it when the cache's layout or the songbook's sound or words change
FEEDING_FIELDS = (
    "cache_dir",
    "placement",
    "device_gigabytes",
    "max_error_fraction",
)  # not what songs are
SELECTION_FIELDS = ("include_labels", "exclude_labels", "max_songs")  # which of them a run uses
FILE_SECONDS = 300.0  # a file that takes longer to decode is left out
NUM_SPECTROGRAMS = 6  # spectrograms in the report


def run(config):
    """Prepares config.data unless its cache is there already and whole; one process alone does."""
    distributed.first_alone(lambda: prepare_collection(config))


def prepare_collection(config):
    place = locate_cache(config)
    with cache.lock_cache(place):
        if (place / "manifest.json").exists():
            manifest = cache.verify_cache(place)
            check_error_fraction(manifest, place, config)  # the limit may be lower now
        else:
            manifest = write_cache(place, config)
        for chosen in (config.data.include_labels, config.data.exclude_labels):
            parse_labels(manifest["songs"], chosen)
        if config.condition.text:
            caption_features.prepare_features(
                place, config.condition.text, config.condition.max_tokens
            )
    log(f"data: {place}")


def locate_cache(config):
    """The cache folder that belongs to a config, whether it exists or not."""
    fields = config.data.to_dict()
    settings = {
        name: value
        for name, value in fields.items()
        if name not in FEEDING_FIELDS + SELECTION_FIELDS
    }
    settings |= {"format": FORMAT, "sample_rate": config.representation.sample_rate}
    settings["files"] = collection.fingerprint_source(config)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    label = pathlib.Path(config.data.source).name.replace(":", "-") or "songs"
    return pathlib.Path(os.path.expanduser(config.data.cache_dir)) / f"{label}-{digest}"


def load_split(config, split, samples):
    """The Songs of a split that a run uses, selected by data.include_labels and exclude_labels."""
    d, place = config.data, locate_cache(config)
    songs = load_songs(place, split, samples)
    most = d.max_songs if split == "train" else None
    if not (d.include_labels or d.exclude_labels or most is not None):
        return songs
    everything = cache.read_manifest(place)["songs"]  # a label may have songs in one split alone
    only, without = (
        parse_labels(everything, text) for text in (d.include_labels, d.exclude_labels)
    )
    return filter_songs(songs, only, without, most)


def write_cache(place, config):
    """Decodes every song into `place`, and returns its manifest.

    A preparation that was killed goes on where it stood.
    """
    intake, items = (
        collection.build_audio_format(config),
        collection.iterate_items(config),
    )  # refuse wrong options
    writer = cache.Writer(place)
    if writer.seen:
        log(f"data: {writer.seen} items were prepared before; going on")
    one = functools.partial(decode_to_spool, intake=intake, folder=writer.folder)
    for item, made, reason in decode_items(
        one, items, writer.seen, collection.count_expected(config)
    ):
        record_outcome(writer, item, made, reason)
    writer.close_shard()
    if not writer.songs:
        log_skipped(writer.skipped)
    manifest = build_manifest(writer, config)
    audit.write_report(writer.folder, manifest, render_spectrograms(writer.folder, manifest))
    check_error_fraction(manifest, writer.folder, config)
    log_summary(manifest, writer.publish(manifest))
    return manifest


def decode_items(one, items, seen, total):
    """Yields (item, what `one` made of it or None, reason or None) of items not yet seen."""
    for _ in zip(range(seen), items):  # noqa: B905, the range is the shorter one
        pass
    with tqdm.tqdm(initial=seen, total=total, desc="prepare", unit=" songs") as bar:
        for outcome in worker_pool.in_order(one, items, FILE_SECONDS):
            bar.update()
            yield outcome


def record_outcome(writer, item, made, reason):
    """Writes down what became of an item."""
    if isinstance(item, More):
        more = {"name": item.name, "labels": list(item.labels), "captions": list(item.captions)}
        writer.more.append(more)
    elif reason:
        writer.skipped.append({"name": item.name, "reason": reason})
    else:
        song, facts, landmarks = made
        tags = facts.pop("tags")
        album = item.album or tags["album"]
        entry = {
            "name": item.name,
            "artist": item.artist or tags["artist"] or album or item.name,
            "album": album,
            "labels": list(item.labels),
            "captions": list(item.captions),
            "licence": item.licence,
            "given_split": item.split,
            "tempo": item.tempo,
            "facts": facts,
        }
        writer.add(entry, song, landmarks)
    writer.count_item()


def build_manifest(writer, config):
    """The manifest: captions merged, duplicates found, splits assigned, everything counted."""
    songs = {song["name"]: song for song in writer.songs}
    for more in writer.more:
        if song := songs.get(more["name"]):
            for kind in ("labels", "captions"):
                song[kind] += [text for text in more[kind] if text not in song[kind]]
    log("data: looking for copies")
    copies = find_duplicates(writer.songs, writer.landmarks)
    fractions = config.data.valid_fraction, config.data.test_fraction
    warnings = splits.assign_splits(writer.songs, [(i, j) for i, j, *_ in copies], *fractions)
    name = lambda index: writer.songs[index]["name"]
    named = [
        {"first": name(i), "second": name(j), "kind": kind, "score": float(score)}
        for i, j, kind, score in copies
    ]
    rate = config.representation.sample_rate
    for song in writer.songs:
        song["seconds"] = song["samples"] / rate
    found = writer.seen - len(writer.more)
    if found != len(writer.songs) + len(writer.skipped):
        raise AssertionError(
            f"{found} items found, but {len(writer.songs)} + {len(writer.skipped)}"
        )
    return {
        "source": config.data.source,
        "revision": collection.resolve_revision(config),
        "sample_rate": rate,
        "channels": config.data.channels,
        "found": found,
        "shards": writer.shards,
        "songs": writer.songs,
        "skipped": writer.skipped,
        "duplicates": named,
        "warnings": warnings,
    }


def find_duplicates(songs, landmarks):
    """[(i, j, kind, score)] of songs that hold the same recording; each exact copy once."""
    first, exact, others = {}, [], list(landmarks)
    for index, song in enumerate(songs):
        same = first.setdefault(song["sha256"], index)
        if same != index:
            exact.append((same, index, "exact", 1.0))
            others[index] = landmarks[index][:0]
    return exact + [(i, j, "near", score) for i, j, score in fingerprint.duplicates(others)]


def check_error_fraction(manifest, folder, config):
    """Raises ValueError that lists what is bad where too much is; what is done stays on disk."""
    bad, found = manifest["skipped"], manifest["found"]
    limit = config.data.max_error_fraction
    if songbook.parse_num_pieces(config.data.source) or len(bad) <= limit * found:
        return
    log_skipped(bad)
    kinds = collections.Counter(skip["reason"].split(" (")[0] for skip in bad).most_common(1)
    raise ValueError(
        f"data: {len(bad)} of {found} files are bad (most often: {kinds[0][0]}), more than "
        f"data.max_error_fraction={limit}; see {folder / 'data_report.html'}; mend or remove them, "
        "or raise the limit: what was decoded is kept"
    )


def log_skipped(skipped):
    """Says what is bad, a line each."""
    for skip in skipped:
        log(f"bad: {make_printable(skip['name'])}: {make_printable(skip['reason'])}")


def render_spectrograms(place, manifest):
    """[(name, PNG bytes)] of a few songs, evenly spread."""
    shards = cache.open_shards(place, manifest)
    rate, songs = manifest["sample_rate"], manifest["songs"]
    step = max(1, len(songs) // NUM_SPECTROGRAMS)
    made = []
    for song in songs[::step][:NUM_SPECTROGRAMS]:
        first = song["start"]
        pcm = shards[song["shard"]][first : first + min(song["samples"], 10 * rate)]
        made.append((song["name"], spectrogram_image.spectrogram_png(crops.pcm_to_wave(pcm), rate)))
    return made


def log_summary(manifest, place):
    """Logs the size of each split, warnings and every song left out."""
    for skip in manifest["skipped"]:
        log(f"left out: {make_printable(skip['name'])}: {make_printable(skip['reason'])}")
    for warning in manifest["warnings"]:
        log(f"warning: {make_printable(warning)}")
    if pairs := manifest["duplicates"]:
        split_of = {song["name"]: song["split"] for song in manifest["songs"]}
        torn = sum(split_of[pair["first"]] != split_of[pair["second"]] for pair in pairs)
        sides = f"{torn} of them divided by the given split" if torn else "kept on one side each"
        log(f"copies: {len(pairs)} pairs of songs are the same recording, {sides}")
    for split in splits.SPLITS:
        songs = [song for song in manifest["songs"] if song["split"] == split]
        minutes = sum(song["seconds"] for song in songs) / 60
        groups = len({song["group"] for song in songs})
        log(f"{split}: {len(songs)} songs, {groups} artists, {minutes:.1f} min")
    log(f"data report: {place / 'data_report.html'}")


def make_printable(text):
    """Text of a file on one line that any terminal takes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:300]
