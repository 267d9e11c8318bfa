"""Sets of clips: generated ones, real music, and controls that give the scores a scale."""

import dataclasses

import numpy as np
import tqdm

from specdiff_jax.audio import files
from specdiff_jax.data import crops
from specdiff_jax.data.songs import take_songs
from specdiff_jax.evaluation.ceiling import encode_decode
from specdiff_jax.runtime.worker_pool import run_on_devices
from specdiff_jax.sampling import generator
from specdiff_jax.training import train_state

REFERENCE = "real music, the reference"
OTHER_ARTISTS = "real music, other artists"
ROUND_TRIP = "real music, encoded and decoded"
TRAINING = "excerpts of training music"
UNTRAINED = "the network, untrained"


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """A set of clips to score.

    Attributes:
      waves: [M, N] or [M, A, N] float32; groups: [M], equal for clips of one artist.
      kind: "generated", "real" or "control".
      songs: [M] the place of each among the songs that it was cut from.
    """

    name: str
    kind: str
    waves: np.ndarray
    groups: np.ndarray
    songs: np.ndarray | None = None


def split_by_artist(songs, samples, count):
    """Return two Clips of held-out music by different artists: the reference, and a control.

    Artists are assigned at random: matched halves would be closer to each other than two
    independent sets of music are.

    Raises:
      ValueError: all songs are by one artist.
    """
    artists = number_artists(songs)
    side = np.random.default_rng(0).permutation(1 + artists.max()) % 2
    half = side[artists]
    if not half.any():
        raise ValueError(
            f"evaluate: all {len(half)} held-out songs are by one artist, and two halves are needed"
        )
    return [
        cut_clips(name, "real", take_songs(songs, half == index), samples, count)
        for index, name in enumerate((REFERENCE, OTHER_ARTISTS))
    ]


def cut_clips(name, kind, songs, samples, count):
    """Return Clips spread evenly over songs."""
    waves, offsets = crops.read_tiled_waves(songs, samples, count)
    places = songs.song_at(offsets)
    return Clips(name, kind, waves, number_artists(songs)[places], places)


def number_artists(songs):
    """Return the number of each song's artist.  # [songs]"""
    return np.unique([entry["artist"] for entry in songs.entries], return_inverse=True)[1]


def build_controls(rep, reference, other_artists, songs, count):
    """Return the controls that need no network: nearly real music, training music, and noise.

    Args:
      reference, other_artists: Clips of held-out music; songs: the training songs.
    """
    decoded = encode_decode(rep, other_artists.waves[:count])
    training = cut_clips(TRAINING, "control", songs, rep.samples, count)
    shape, rng = other_artists.waves[:count].shape, np.random.default_rng(0)
    level = np.sqrt(np.mean(np.square(reference.waves), dtype=np.float64))
    noise = rng.standard_normal(shape).astype(np.float32)
    colored = shape_noise(noise, reference.waves)
    groups = np.arange(len(noise))
    return [
        Clips(ROUND_TRIP, "real", decoded, other_artists.groups[:count]),
        training,
        Clips("silence", "control", np.zeros_like(noise), groups),
        Clips("white noise", "control", np.float32(level) * noise, groups),
        Clips("noise of the mean spectrum", "control", colored, groups),
    ]


def shape_noise(noise, waves):
    """Return white noise filtered to the mean power spectrum of waves.  # [M, ..., N] both"""
    power = np.mean([np.abs(np.fft.rfft(wave)) ** 2 for wave in waves], axis=0) / noise.shape[-1]
    return np.fft.irfft(np.fft.rfft(noise) * np.sqrt(power), noise.shape[-1]).astype(np.float32)


def generate_clips(model, rep_out, requests, name="generated", kind="generated"):
    """Return Clips that a TrainedModel generates, one for each (Prompt, k)."""
    batches = generator.split_batches(requests, model.config.sample.batch_size)
    prompts, jobs = [prompt for prompt, _ in requests], [(batch,) for batch in batches]
    generators = generator.make_generators(model, rep_out, prompts, len(jobs))
    bar = tqdm.tqdm(run_on_devices(generators, jobs), name, len(jobs), unit=" batches", leave=False)
    parts = [waves for _, waves in bar]
    # As they would be read from their files: 16 bits, clipped at full scale.
    waves = crops.pcm_to_float(files.to_int16(np.concatenate(parts)))
    return Clips(name, kind, waves, np.arange(len(requests)))


def reinitialize(model):
    """Return the TrainedModel with the parameters of its first step."""
    params = train_state.init_params(model.model, model.config.seed)
    return dataclasses.replace(model, params=params)
