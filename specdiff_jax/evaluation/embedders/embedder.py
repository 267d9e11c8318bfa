"""An embedder: its fields, and the embedding of clips window by window."""

import dataclasses
from collections.abc import Callable

import numpy as np
import soxr
import tqdm


@dataclasses.dataclass(frozen=True)
class Embedder:
    """Sound -> vectors, the same on every call.

    Attributes:
      name: as `load_embedder` takes it.
      sha256: of its weights; None where it has none.
      width: d, numbers a vector.
      sample_rate: Hz of its input.
      window: samples of one vector.
      batch: windows computed at once, always the same number so that one program is compiled.
      embed: [batch, window] float32 in [-1, 1] -> [batch, d].
      embed_text: texts -> [K, d] of length one in the space of the sounds; None without a text
        encoder.
      min_samples: fewest samples of a sound that has a vector.
    """

    name: str
    sha256: str | None
    width: int
    sample_rate: int
    window: int
    batch: int
    embed: Callable[[np.ndarray], np.ndarray] = dataclasses.field(repr=False)
    embed_text: Callable[[list[str]], np.ndarray] | None = dataclasses.field(
        default=None, repr=False
    )
    min_samples: int = 1

    @property
    def seconds(self):
        """Return the seconds of a window."""
        return self.window / self.sample_rate


def embed_clips(embedder, waves, sample_rate):
    """Return the vectors of clips, window by window (see `split_windows`).

    Args:
      embedder: Embedder.
      waves: [M, N] float in [-1, 1], mono.
      sample_rate: of the waves, Hz; they are resampled where the embedder has another.

    Returns:
      [M, W, d] float32.

    Raises:
      ValueError: there are no clips, or one holds numbers that are not finite.
    """
    waves = np.asarray(waves, np.float32)
    if waves.ndim != 2 or not waves.size:
        raise ValueError(f"an embedder takes clips [M, N], not an array of shape {waves.shape}")
    if bad := np.flatnonzero(~np.isfinite(waves).all(axis=1)).tolist():
        raise ValueError(f"clip {bad[0]} holds numbers that are not finite, {len(bad)} clips do")
    if sample_rate != embedder.sample_rate:
        waves = [soxr.resample(wave, sample_rate, embedder.sample_rate) for wave in waves]
    pieces = [split_windows(wave, embedder.window) for wave in waves]  # of each clip [W, window]
    return embed_windows(embedder, np.concatenate(pieces)).reshape(len(pieces), len(pieces[0]), -1)


def split_windows(wave, size):
    """Return windows side by side from the beginning; a shorter clip is repeated to fill one.

    A remainder shorter than half a window is dropped; a longer one has a window that ends with the
    clip.  # [N, ...] -> [W, size, ...]
    """
    if len(wave) < size:
        return np.resize(wave, (1, size, *wave.shape[1:]))
    whole, left = divmod(len(wave), size)
    starts = [i * size for i in range(whole)] + [len(wave) - size] * (2 * left >= size)
    return np.stack([wave[start : start + size] for start in starts])


def embed_windows(embedder, pieces):
    """Return the vectors of windows, the last batch filled up with silence.  # [K, n] -> [K, d]"""
    starts = range(0, len(pieces), embedder.batch)
    vectors = []
    for start in tqdm.tqdm(starts, embedder.name, unit=" batches", disable=len(starts) < 8):
        batch = pieces[start : start + embedder.batch]
        padding = ((0, embedder.batch - len(batch)), (0, 0))
        vectors.append(np.asarray(embedder.embed(np.pad(batch, padding)))[: len(batch)])
    return np.concatenate(vectors)
