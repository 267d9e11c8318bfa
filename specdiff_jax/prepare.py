"""--mode=prepare: any audio collection -> one flat int16 cache with a manifest and splits.

The cache's name is a hash of its source and settings, so a changed setting makes a new cache, and
an unchanged one is found again at once. It is written beside its place and renamed when whole.
"""

import hashlib
import json
import os
import pathlib
import shutil

import tqdm

from specdiff_jax import build
from specdiff_jax.audio import files
from specdiff_jax.logs import say
from specdiff_jax.sources import folder, songbook
from specdiff_jax.sources.song import Skipped

FORMAT = 1  # raise it when the cache's layout or the songbook's sound changes
FEEDING = ("cache_dir", "feed", "device_gigabytes")  # how songs are read, not what they are


def run(config):
    """Prepares config.data unless its cache is there already."""
    cache = cache_of(config)
    if (cache / "manifest.json").exists():
        say(f"data: {cache}")
        return
    build.source(config)  # refuses wrong options before anything is written
    write_cache(cache, config)


def cache_of(config):
    """The cache folder that belongs to a config, whether it exists or not."""
    fields = config.data.to_dict()
    settings = {name: value for name, value in fields.items() if name not in FEEDING}
    settings |= {"format": FORMAT, "sample_rate": config.representation.sample_rate}
    if songbook.pieces_of(config.data.source):
        settings["packages"] = songbook.versions()
    elif pathlib.Path(config.data.source).is_dir():
        settings["files"] = folder.fingerprint(config.data.source)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    label = pathlib.Path(config.data.source).name.replace(":", "-") or "songs"
    return pathlib.Path(os.path.expanduser(config.data.cache_dir)) / f"{label}-{digest}"


def write_cache(cache, config):
    """Decodes every song, mono and resampled, into `cache`; names what is left out and why."""
    rate = config.representation.sample_rate
    partial = cache.with_name(cache.name + f".partial-{os.getpid()}")
    partial.mkdir(parents=True)
    entries, skipped, start = [], [], 0
    digest = hashlib.sha256()
    try:
        with open(partial / "pcm.int16", "wb") as pcm:
            songs = accepted(build.source(config), skipped)
            for song in tqdm.tqdm(songs, desc="prepare", unit=" songs", total=expected(config)):
                samples = files.to_int16(files.mono(song.wave, song.sample_rate, rate))
                pcm.write(samples.tobytes())
                digest.update(samples.tobytes())
                entries.append(entry_of(song, start, len(samples)))
                start += len(samples)
        assign_splits(entries, config.data.valid_fraction, config.data.test_fraction)
        manifest = {
            "source": config.data.source,
            "sample_rate": rate,
            "sha256": digest.hexdigest(),
            "songs": entries,
            "skipped": skipped,
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
        partial.rename(cache)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report(manifest, cache)


def accepted(songs, skipped):
    """The Songs alone; what was left out is appended to `skipped` with its reason."""
    for song in songs:
        if isinstance(song, Skipped):
            skipped.append({"name": song.name, "reason": song.reason})
        else:
            yield song


def expected(config):
    """How many songs the progress bar counts to; None where nobody knows."""
    if pieces := songbook.pieces_of(config.data.source):
        return pieces
    root = pathlib.Path(config.data.source)
    return (len(files.find(root)) or None) if root.is_dir() else None


def entry_of(song, start, samples):
    """One song's line of the manifest."""
    return {
        "name": song.name,
        "artist": song.artist,
        "labels": list(song.labels),
        "captions": list(song.captions),
        "start": start,
        "samples": samples,
    }


def split_number(artist):
    """A number in [0, 1) that depends on the artist's name alone."""
    return int.from_bytes(hashlib.sha256(artist.encode()).digest()[:8], "big") / 2**64


def assign_splits(entries, valid_fraction, test_fraction):
    """Sets entry["split"], by artist, so that no artist is on two sides.

    The hash decides, so a new song never moves an old one; where that leaves valid or train
    empty, the artists with the lowest and highest number fill them.
    """
    if not entries:
        raise ValueError("data.source: no song could be read; see the reasons above")
    artists = sorted({entry["artist"] for entry in entries}, key=split_number)
    if len(artists) < 2:
        raise ValueError("data.source: one artist only; a held-out split needs at least two")
    split_of = {}
    for artist in artists:
        number = split_number(artist)
        in_test = number >= 1 - test_fraction
        split_of[artist] = "valid" if number < valid_fraction else "test" if in_test else "train"
    if "valid" not in split_of.values():
        split_of[artists[0]] = "valid"
    if "train" not in split_of.values():
        split_of[artists[-1]] = "train"
    for entry in entries:
        entry["split"] = split_of[entry["artist"]]


def report(manifest, cache):
    """Logs the size of each split and every song left out."""
    for skip in manifest["skipped"]:
        say(f"left out: {skip['name']}: {skip['reason']}")
    for split in ("train", "valid", "test"):
        songs = [entry for entry in manifest["songs"] if entry["split"] == split]
        minutes = sum(entry["samples"] for entry in songs) / manifest["sample_rate"] / 60
        artists = len({entry["artist"] for entry in songs})
        say(f"{split}: {len(songs)} songs, {artists} artists, {minutes:.1f} min")
    say(f"data: {cache}")
