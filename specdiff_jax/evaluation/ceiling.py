"""Real held-out music and its round trip through the representation: the quality ceiling."""

import pathlib

import jax
import numpy as np

from specdiff_jax.audio import distances, files
from specdiff_jax.audio import representation as representations
from specdiff_jax.data import crops, prepare
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training import checkpoints

NUM_SAVED = 4  # clips to listen to
NUM_MEASURED = 16  # clips that the means are over


def run(config):
    """Write reference/: WAV and PNG of real clips and of their round trips, reference.json."""
    workdir = pathlib.Path(config.workdir)
    step = checkpoints.require_step(workdir)
    saved = checkpoints.read_run(workdir, step)
    rep = representations.from_dict(saved["representation"])
    songs = prepare.load_split(config, "valid", rep.samples)
    clips, waves = read_held_out_clips(songs, rep.samples, NUM_MEASURED)
    decoded, snr, distance = measure_round_trip(rep, waves)
    folder = workdir / "reference"
    for index, clip in enumerate(clips[:NUM_SAVED]):
        clip |= {"real": f"{index:03d}_real", "roundtrip": f"{index:03d}_roundtrip"}
        clip |= {"snr_db": snr[index], "log_spectral_distance_db": distance[index]}
        for name, wave in ((clip["real"], waves[index]), (clip["roundtrip"], decoded[index])):
            files.write(folder / f"{name}.wav", wave, rep.sample_rate)
            spectrogram_image.save_spectrogram(folder / f"{name}.png", wave, rep.sample_rate)
    ceiling = {
        "representation": rep.kind,
        "snr_db": float(np.mean(snr)),
        "log_spectral_distance_db": float(np.mean(distance)),
        "measured_clips": len(waves),
    }
    write_json(folder / "reference.json", ceiling | {"clips": clips[:NUM_SAVED]})
    log(
        f"ceiling: {rep.kind} round trip of {len(waves)} held-out clips: "
        f"SNR {ceiling['snr_db']:.1f} dB, "
        f"log-spectral distance {ceiling['log_spectral_distance_db']:.2f} dB"
    )


def read_held_out_clips(songs, samples, count):
    """Return (descriptions, waves [M, ..., N]): the first crop of up to `count` spread songs."""
    chosen = np.unique(np.linspace(0, len(songs.starts) - 1, count).astype(int))
    keys = ("name", "artist", "labels", "captions")
    clips = [{key: songs.entries[index][key] for key in keys} for index in chosen]
    return clips, crops.pcm_to_wave(crops.read_crops(songs, songs.starts[chosen], samples))


def encode_decode(rep, waves):
    """Return decode(encode(wave)) of each clip.  # as waves"""
    decode = jax.jit(lambda wave: rep.decode(rep.encode(wave)))
    return np.concatenate([np.asarray(decode(wave[None])) for wave in waves])


def measure_round_trip(rep, waves):
    """Return decode(encode(wave)) as `waves`, and lists of SNR and log-spectral distance in dB."""
    decoded = encode_decode(rep, waves)
    pairs = list(zip(waves, decoded, strict=True))
    snr = [distances.signal_to_noise_db(*pair) for pair in pairs]
    return decoded, snr, [distances.log_spectral_distance_db(*pair) for pair in pairs]
