"""Sets of clips that say what a score means: real music in several dresses, and no music."""

import dataclasses

import numpy as np
import tqdm

from specdiff_jax.audio import files
from specdiff_jax.data import crops as crops_module
from specdiff_jax.data.songs import take_songs
from specdiff_jax.evaluation.ceiling import encode_decode
from specdiff_jax.runtime.worker_pool import run_on_devices
from specdiff_jax.sampling import generator
from specdiff_jax.training import train_state

ROUND_TRIP = "real music, encoded and decoded"
UNTRAINED = "the network, untrained"


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """A set of clips to score.

    Attributes:
      waves: [M, N] or [M, A, N] float32; groups: [M], clips that hang together: of one artist.
      kind: "generated", "real" or "control".
      songs: [M] the place of each among the songs that it was cut from.
    """

    name: str
    kind: str
    waves: np.ndarray
    groups: np.ndarray
    songs: np.ndarray | None = None


def split_by_artist(songs, samples, count):
    """Crops of held-out music by different artists: the reference of all scores, and a control.

    Artists are dealt out at random: halves that were matched would lie nearer to each other than
    two sets of music do.
    """
    artists = number_artists(songs)
    side = np.random.default_rng(0).permutation(1 + artists.max()) % 2
    half = side[artists]
    if not half.any():
        raise ValueError(
            f"evaluate: all {len(half)} held-out songs are by one artist, and two halves are needed"
        )
    names = "real music, the reference", "real music, other artists"
    return [
        cut_clips(name, "real", take_songs(songs, half == index), samples, count)
        for index, name in enumerate(names)
    ]


def cut_clips(name, kind, songs, samples, count):
    """Clips spread evenly over songs."""
    waves, offsets = crops_module.read_tiled_waves(songs, samples, count)
    places = songs.song_at(offsets)
    return Clips(name, kind, waves, number_artists(songs)[places], places)


def number_artists(songs):
    """The artist of each song, a number.  # [songs]"""
    return np.unique([entry["artist"] for entry in songs.entries], return_inverse=True)[1]


def build_controls(rep, reference, other, songs, count):
    """Controls that need no network: what is nearly real, and what is nothing like it.

    Args:
      reference, other: Clips of held-out music; songs: the training songs.
    """
    back = encode_decode(rep, other.waves[:count])
    training = cut_clips("copies of training music", "control", songs, rep.samples, count)
    shape, rng = other.waves[:count].shape, np.random.default_rng(0)
    level = np.sqrt(np.mean(np.square(reference.waves), dtype=np.float64))
    noise = rng.standard_normal(shape).astype(np.float32)
    alone = np.arange(len(noise))
    quiet = np.zeros_like(noise)
    return [
        Clips(ROUND_TRIP, "real", back, other.groups[:count]),
        training,
        Clips("silence", "control", quiet, alone),
        Clips("white noise", "control", np.float32(level) * noise, alone),
        Clips("noise of the mean spectrum", "control", shape_noise(noise, reference.waves), alone),
    ]


def shape_noise(noise, waves):
    """White noise with the mean power spectrum of waves.  # [M, ..., N] both"""
    power = np.mean([np.abs(np.fft.rfft(wave)) ** 2 for wave in waves], axis=0) / noise.shape[-1]
    return np.fft.irfft(np.fft.rfft(noise) * np.sqrt(power), noise.shape[-1]).astype(np.float32)


def generate_clips(trained, rep_out, clips, name="generated", kind="generated"):
    """Clips of the checkpoint's own, one for each (Wish, k)."""
    jobs = [(batch,) for batch in generator.split_batches(clips, trained.config.sample.batch_size)]
    makers = generator.make_generators(trained, rep_out, [wish for wish, _ in clips], len(jobs))
    bar = tqdm.tqdm(run_on_devices(makers, jobs), name, len(jobs), unit=" batches", leave=False)
    parts = [waves for _, waves in bar]
    # As they would be read from their files: 16 bits, clipped at full scale.
    waves = crops_module.pcm_to_float(files.to_int16(np.concatenate(parts)))
    return Clips(name, kind, waves, np.arange(len(clips)))


def reinitialize(trained):
    """The same network before its first step."""
    params = train_state.init_params(trained.model, trained.config.seed)
    return dataclasses.replace(trained, params=params)
