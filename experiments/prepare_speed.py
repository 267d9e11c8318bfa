"""How fast songs become training data, beside bare decoding on the same cores.

    python -m experiments.prepare_speed [--files=48]

Two-minute stereo mp3 files at 44.1 kHz are made from the songbook in a temporary folder. Bare is
soundfile.read, the mean of both channels and soxr, nothing checked or kept. Writes
results/prepare_speed.csv.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import pathlib
import tempfile
import time

import numpy as np
import soundfile
import soxr

from configs import base
from experiments.tables import RESULTS, write_csv
from specdiff_jax import data, prepare, workers

SECONDS, RATE = 120, 44_100


def make_files(folder, count):
    """`count` mp3 files, each of four songbook pieces end to end, no two the same."""
    config = base.get_config("tiny")
    prepare.run(config)
    songs = data.load_songs(prepare.cache_of(config), "train", 1)
    rng = np.random.default_rng(0)
    for index in range(count):
        chosen = rng.choice(len(songs.starts), 4, replace=False)
        pcm = np.concatenate([songs.read(songs.starts[k], songs.lengths[k]) for k in chosen])
        wave = soxr.resample(data.to_float(pcm[:, 0]), songs.sample_rate, RATE)[: SECONDS * RATE]
        stereo = np.stack([wave, np.roll(wave, 300)], axis=1)
        soundfile.write(folder / f"{index:04d}.mp3", 0.7 * stereo, RATE, format="MP3")


def bare(path, rate):
    wave, found = soundfile.read(path, dtype="float32", always_2d=True)
    return len(soxr.resample(wave[:, 0] / 2 + wave[:, 1] / 2, found, rate, quality="HQ"))


def bare_seconds(paths, rate):
    """Wall seconds of `bare` on all cores, workers started before."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers.cores(), spawn) as pool:
        one = functools.partial(bare, rate=rate)
        list(pool.map(one, paths[: 2 * workers.cores()]))
        start = time.perf_counter()
        list(pool.map(one, paths))
        return time.perf_counter() - start


def prepared_seconds(folder, cache_dir):
    """Wall seconds of the whole of --mode=prepare, starting its workers and the report included."""
    config = base.get_config("tiny")
    config.data.update(source=str(folder), cache_dir=str(cache_dir))
    start = time.perf_counter()
    prepare.run(config)
    return time.perf_counter() - start


def measure(count):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "songs"
        folder.mkdir()
        make_files(folder, count)
        paths = [str(path) for path in sorted(folder.iterdir())]
        rate = base.get_config("tiny").representation.sample_rate
        few = pathlib.Path(name) / "few"
        few.mkdir()
        for path in paths[: count // 4]:
            (few / pathlib.Path(path).name).hardlink_to(path)
        decoding = bare_seconds(paths, rate)
        start_up = prepared_seconds(few, pathlib.Path(name) / "cache")
        whole = prepared_seconds(folder, pathlib.Path(name) / "cache")
    each = (whole - start_up) / (count - count // 4)  # what one more file costs
    return [
        {
            "files": count,
            "seconds_a_file_bare": round(decoding / count, 4),
            "seconds_a_file_prepared": round(each, 4),
            "bare_over_prepared": round(decoding / count / each, 3),
            "real_time_factor": round(SECONDS / each),
            "seconds_whole_run": round(whole, 2),
            "seconds_for_706_by_the_rate": round(whole + (706 - count) * each, 1),
        }
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=48)
    rows = measure(parser.parse_args().files)
    write_csv(RESULTS / "prepare_speed.csv", rows)
    print(rows[0])
