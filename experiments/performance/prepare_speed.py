"""Compare the speed of preparing songs with decoding alone on the same cores.

    python -m experiments.performance.prepare_speed [--files=48] [--folders FOLDER ...]

Renders two-minute stereo mp3 files at 44.1 kHz from the songbook to a temporary folder. Decoding
alone is soundfile.read, the mean of both channels and soxr, without checks or output. Writes
results/performance/prepare_speed.csv.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import pathlib
import shutil
import tempfile
import time

import numpy as np
import soundfile
import soxr

from configs import base
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.audio import files
from specdiff_jax.data import crops, prepare
from specdiff_jax.data.songs import load_songs
from specdiff_jax.runtime import worker_pool

SECONDS, RATE = 120, 44_100
ROUNDS = 3  # of each measurement, the fastest counts


def make_files(folder, count):
    """Write `count` mp3 files, each of four songbook pieces in sequence."""
    config = base.get_config("tiny")
    prepare.run(config)
    songs = load_songs(prepare.locate_cache(config), "train", 1)
    rng = np.random.default_rng(0)
    for index in range(count):
        chosen = rng.choice(len(songs.starts), 4, replace=False)
        pcm = np.concatenate([songs.read(songs.starts[k], songs.lengths[k]) for k in chosen])
        wave = soxr.resample(crops.pcm_to_float(pcm[:, 0]), songs.sample_rate, RATE)[
            : SECONDS * RATE
        ]
        stereo = np.stack([wave, np.roll(wave, 300)], axis=1)
        soundfile.write(folder / f"{index:04d}.mp3", 0.7 * stereo, RATE, format="MP3")


def decode(path, rate):
    """Return the number of samples of a file, decoded, mixed to mono and resampled."""
    wave, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return len(soxr.resample(wave[:, 0] / 2 + wave[:, 1] / 2, file_rate, rate, quality="HQ"))


def time_decoding(paths, rate):
    """Return the wall seconds of `decode` on all cores, without starting the workers."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(worker_pool.count_cores(), spawn) as pool:
        one = functools.partial(decode, rate=rate)
        list(pool.map(one, paths[: 2 * worker_pool.count_cores()]))
        start = time.perf_counter()
        list(pool.map(one, paths))
        return time.perf_counter() - start


def time_preparation(folder, cache_dir):
    """Return the wall seconds of --mode=prepare, with start of its workers and report."""
    config = base.get_config("tiny")
    config.data.update(source=str(folder), cache_dir=str(cache_dir), max_error_fraction=1.0)
    start = time.perf_counter()
    prepare.run(config)
    return time.perf_counter() - start


def measure(source, name):
    """Return a row with the cost of one more file, so that start and end count once."""
    paths = [str(path) for path in files.find_files(source)]
    rate, count = base.get_config("tiny").representation.sample_rate, len(paths)
    seconds = sum(soundfile.info(path).duration for path in paths) / count
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for path in paths[::4]:
            copy = folder / "few" / pathlib.Path(path).relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        decoding = min(time_decoding(paths, rate) for _ in range(ROUNDS))
        time_preparation(folder / "few", folder / "imports")  # imports, cold caches
        caches = [folder / f"cache-{number}" for number in range(ROUNDS)]
        start_up = min(time_preparation(folder / "few", cache) for cache in caches)
        whole = min(time_preparation(source, cache) for cache in caches)
    each = (whole - start_up) / (count - len(paths[::4]))
    return {
        "songs": name,
        "files": count,
        "audio_seconds_per_file": round(seconds, 1),
        "decode_seconds_per_file": round(decoding / count, 4),
        "prepare_seconds_per_file": round(each, 4),
        "decode_over_prepare": round(decoding / count / each, 3),
        "real_time_factor": round(seconds / each),
        "total_seconds": round(whole, 2),
        "seconds_for_706_of_two_minutes": round(706 * each * 120 / seconds, 1),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--folders", nargs="*", default=(), help="also measure these songs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(pathlib.Path(folder), arguments.files)
        rows = [measure(folder, "songbook as mp3")]
    rows += [measure(folder, pathlib.Path(folder).name) for folder in arguments.folders]
    write_csv(RESULTS / "performance" / "prepare_speed.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
