"""Measure the detection of copies of training music, and its false positives on new music.

    python -m experiments.generation.memorization [--planted 100] [--held-out 200]

Plants corrupted excerpts of random training songs of configs/base.py:tiny: 3 dB louder with white
noise 30 dB below, and harder corruptions, to find the limits. Calibrates on clips of the validation
songs, and counts false positives in clips of the test songs. Writes
results/generation/memorization.csv, a row for each corruption.
"""

import argparse
import time

import jax
import numpy as np
import soxr
import tqdm

from configs import base
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.audio import representation as representations
from specdiff_jax.config import build
from specdiff_jax.data import crops, prepare
from specdiff_jax.data.crops import read_fixed_waves
from specdiff_jax.data.songs import load_songs
from specdiff_jax.evaluation.metrics import memorization

GAIN = 10 ** (3 / 20)
CUT = 1.25  # excerpt length in clips, before the speed changes


def add_noise(wave, snr_db, rng):
    """Return a wave 3 dB louder, with white noise at a signal-to-noise ratio.  # [N] float32"""
    noise = rng.standard_normal(len(wave)) * np.sqrt(np.mean(wave**2)) * 10 ** (-snr_db / 20)
    return (GAIN * (wave + noise)).astype(np.float32)


def corruptions(rep, other):
    """Return {name: f(wave, rng) -> [samples]} for excerpts of CUT clips.

    Args:
      other: [N] music outside the training split.
    """
    samples, rate = rep.samples, rep.sample_rate
    round_trip = jax.jit(lambda wave: rep.decode(rep.encode(wave)))
    faster = lambda wave, by: soxr.resample(wave, by * rate, rate)[:samples]
    return {
        "3 dB louder, noise at 30 dB": lambda wave, rng: add_noise(wave[:samples], 30, rng),
        "noise at 10 dB": lambda wave, rng: add_noise(wave[:samples], 10, rng),
        "noise at 0 dB": lambda wave, rng: add_noise(wave[:samples], 0, rng),
        "round trip of the representation": lambda wave, rng: np.asarray(
            round_trip(wave[None, :samples])[0]
        ),
        "1 % faster": lambda wave, rng: faster(wave, 1.01),
        "3 % faster": lambda wave, rng: faster(wave, 1.03),
        "first half, then other music": lambda wave, rng: np.concatenate(
            [wave[: samples // 2], other[samples // 2 : samples]]
        ),
        "mixed with other music at equal level": lambda wave, rng: wave[:samples] + other[:samples],
    }


def plant(songs, rep, corrupt, count, seed):
    """Return copies [count, samples], and the song and second that each was cut from."""
    rng = np.random.default_rng(seed)
    length = int(CUT * rep.samples)
    song = rng.integers(0, len(songs.lengths), count)
    start = (rng.random(count) * (songs.lengths[song] - length)).astype(np.int64)
    waves = crops.read_crops(songs, songs.starts[song] + start, length)
    copies = np.stack([corrupt(crops.pcm_to_float(wave).mean(axis=1), rng) for wave in waves])
    return copies, song, start / rep.sample_rate


def read_clips(songs, rep, count):
    """Return clips that are spread evenly over the songs.  # [<= count, samples]"""
    offsets = crops.tile_offsets(songs, rep.samples, count)
    return crops.pcm_to_float(crops.read_crops(songs, offsets, rep.samples)).mean(axis=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planted", type=int, default=100, help="copies of the first kind")
    parser.add_argument("--held-out", type=int, default=200, help="clips to calibrate, and to test")
    args = parser.parse_args()
    config = base.get_config("tiny")
    prepare.run(config)
    rep, place = build.representation(config), prepare.locate_cache(config)
    songs = {name: load_songs(place, name, rep.samples) for name in ("train", "valid", "test")}
    train = songs["train"]
    rep = representations.fit(rep, read_fixed_waves(train, rep.samples, 64))
    valid, test = (read_clips(songs[name], rep, args.held_out) for name in ("valid", "test"))

    changes = corruptions(rep, test[0])
    counts = [args.planted] + [args.planted // 4] * (len(changes) - 1)
    planted = {
        kind: plant(train, rep, change, count, seed)
        for seed, ((kind, change), count) in enumerate(zip(changes.items(), counts, strict=True))
    }
    clips = np.concatenate([copies for copies, _, _ in planted.values()] + [test])
    began, worked = time.perf_counter(), time.process_time()
    spans = zip(train.starts, train.lengths, strict=True)
    waves = (crops.pcm_to_float(train.read(*span)).mean(axis=1) for span in spans)
    waves = tqdm.tqdm(waves, "songs", total=len(train.lengths))
    matches, real, verdict = memorization.find_memorized(clips, valid, waves, rep.sample_rate)
    cost = {"scanned_clips": len(clips) + len(valid), "music_s": train.size / train.sample_rate}
    cost |= {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - worked}

    rows, first = [], 0
    for kind, (copies, song, start) in planted.items():
        part = slice(first, first := first + len(copies))
        hits = matches.song[part] == song
        hits &= abs(matches.offset[part] - start) <= memorization.HOP
        rows.append(row(kind, matches, verdict, part) | {"right_place": hits.mean()})
    rows.append(row("test songs: false positives", matches, verdict, slice(first, None)))
    rows.append({"corruption": "validation songs: calibration", "clips": len(valid)})
    rows[-1] |= quantiles(real.similarity) | {"threshold": verdict.threshold} | cost
    for line in rows:
        print(line, flush=True)
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    write_csv(RESULTS / "generation" / "memorization.csv", rounded)


def row(kind, matches, verdict, part):
    """Return the row of the clips in a slice: share flagged, quantiles of similarity."""
    flagged = verdict.flagged[part]
    share = {"corruption": kind, "clips": len(flagged), "flagged": float(flagged.mean())}
    return share | quantiles(matches.similarity[part])


def quantiles(similarity):
    """Return {name: quantile} of similarities."""
    values = np.quantile(similarity, [0, 0.05, 0.5, 0.99, 1])
    names = ("least", "similarity_5", "median", "similarity_99", "most")
    return dict(zip(names, map(float, values), strict=True))


if __name__ == "__main__":
    main()
