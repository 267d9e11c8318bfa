"""Collect recorded music with labels: the soundtracks of free games, from Debian packages.

    python -m experiments.downstream.game_music FOLDER [--packages ...]

Downloads each package with apt-get, unpacks it under FOLDER and writes FOLDER/songs.jsonl, a source
for --config.data.source: every sound of MIN_SECONDS or longer, labelled game:PACKAGE, with the
artist of its tags. A song without an artist counts as an artist of its own.
"""

import argparse
import collections
import json
import pathlib
import subprocess

from specdiff_jax.audio import files

PACKAGES = (  # whose songs have several artists or no artist tags
    "ardentryst",
    "colobot-common-sounds",
    "fillets-ng-data",
    "flare-game",
    "hedgewars-data",
    "supertux-data",
    "warzone2100-music",
    "wesnoth-1.16-music",
)
MIN_SECONDS = 30.0  # shorter sounds are effects


def fetch(package, folder):
    """Unpack a package under folder/package, unless it is there, and return that folder."""
    place = folder / package
    if place.exists():
        return place
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", archive.name, package], cwd=folder, check=True)
    archive.unlink()
    return place


def list_songs(place, package):
    """Yield a line of the list for each song of a package."""
    for path in files.find_files(place):
        try:
            sound = files.Sound(str(path))
        except ValueError:
            continue  # not sound
        sound.file.close()
        if sound.claimed >= MIN_SECONDS * sound.sample_rate:
            line = {"path": str(path.relative_to(place.parent)), "labels": [f"game:{package}"]}
            yield line | {name: value for name, value in sound.tags.items() if value}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    lines = [line for p in args.packages for line in list_songs(fetch(p, args.folder), p)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (args.folder / "songs.jsonl").write_text(text)
    for game, count in collections.Counter(line["labels"][0] for line in lines).items():
        artists = {line.get("artist") for line in lines if line["labels"][0] == game}
        print(f"{game}: {count} songs, {len(artists - {None})} artists named")


if __name__ == "__main__":
    main()
