"""An independent judge of what is heard: logistic regression on statistics of log-mel and chroma.

It never sees the network, its spectrograms or its conditions: only waves and the songs' labels.
"""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from specdiff_jax.audio.mel import filterbank
from specdiff_jax.audio.stft import stft
from specdiff_jax.evaluation.metrics.bootstrap import percentile_interval

N_FFT, HOP, BANDS = 2048, 512, 80
MAGNITUDE_FLOOR = 1e-5  # of a full-scale sinusoid
INVERSE_PENALTY = 0.05  # of the regressions, one over their penalty
PROBABILITY_FLOOR = 1e-3  # of a probability
# How well the degrees of a scale fit a key (Krumhansl & Kessler 1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def extract_features(waves, sample_rate):
    """What the judge hears: of each band mean, spread and movement; of each key how well it fits.

    Args:
      waves: [M, N] float32.

    Returns:
      [M, features] float64.
    """
    mel = jnp.asarray(filterbank(sample_rate, N_FFT, BANDS))
    chroma = jnp.asarray(librosa.filters.chroma(sr=sample_rate, n_fft=N_FFT))

    @jax.jit
    def of_one(wave):
        magnitude = jnp.abs(stft(wave[None], N_FFT, HOP)[0]) / (N_FFT / 4)  # [F, T]
        level = jnp.log(mel[:, : len(magnitude)] @ magnitude + MAGNITUDE_FLOOR)  # [BANDS, T]
        level -= jnp.mean(level)  # loudness tells nothing
        move = jnp.abs(jnp.diff(level, axis=1))
        pitch = jnp.log1p(100 * chroma[:, : len(magnitude)] @ magnitude).mean(axis=1)  # [12]
        bands = [level.mean(axis=1), level.std(axis=1), move.mean(axis=1), move.std(axis=1)]
        return jnp.concatenate(bands), pitch

    bands, pitch = (np.stack(part) for part in zip(*map(of_one, waves), strict=True))
    return np.concatenate([bands, fit_keys(pitch)], axis=1).astype(np.float64)


def fit_keys(pitch):
    """The fit of the best major and minor key, their difference, and the scale from its tonic.

    [M, 12] -> [M, 15], the same for any transposition.
    """
    rolled = np.stack([np.roll(pitch, -tonic, axis=1) for tonic in range(12)])  # [12, M, 12]
    centred = rolled - rolled.mean(axis=2, keepdims=True)
    centred /= np.linalg.norm(centred, axis=2, keepdims=True) + 1e-9
    fits = []
    for profile in (MAJOR, MINOR):
        degrees = np.array(profile) - np.mean(profile)
        fits.append(centred @ (degrees / np.linalg.norm(degrees)))  # [12, M]
    best = np.max(fits, axis=0).argmax(axis=0)
    scale = centred[best, np.arange(len(pitch))]
    major, minor = (fit.max(axis=0) for fit in fits)
    return np.concatenate([np.stack([major, minor, major - minor], axis=1), scale], axis=1)


def get_values(entry, name):
    """The values of a label: "instrument" of ["instrument:flute"] -> ["flute"]."""
    labels = (label.split(":", 1) for label in entry["labels"])
    return [value for kind, value in labels if kind == name]


class LabelClassifier:
    """A logistic regression for each kind of label: of one value each, or of any number.

    Args:
      features: [M, D] `statistics` of real training music; entries: what is said of each.
      kinds: of labels "kind:value"; those that no song has, or all in the same way, are left out.
    """

    def __init__(self, features, entries, kinds):
        self.of, self.values = {}, {}
        for kind in kinds:
            there = [get_values(entry, kind) for entry in entries]
            names = sorted({value for one in there for value in one})
            if len(names) < 2:
                continue
            self.values[kind] = np.array(names)
            model = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
            if all(len(one) == 1 for one in there):
                wanted = [one[0] for one in there]
            else:
                model = OneVsRestClassifier(model)
                wanted = np.array([[name in one for name in names] for one in there], int)
            self.of[kind] = make_pipeline(StandardScaler(), model).fit(features, wanted)

    def likely(self, features):
        """{kind: [M, values]}: how likely each value is thought."""
        return {kind: model.predict_proba(features) for kind, model in self.of.items()}

    def __call__(self, features):
        """{kind: [M]}: what is heard most of each."""
        return self.most(self.likely(features))

    def most(self, thought):
        """{kind: [M]}: the likeliest value of what `likely` returned."""
        return {kind: self.values[kind][likely.argmax(axis=1)] for kind, likely in thought.items()}


def kl_divergence(p, q):
    """Mean Kullback-Leibler divergence of distributions, p of the first kind.  # [M, K] x 2, nats

    Each is floored at FAINT of the whole, so that what is thought impossible costs finitely.
    """
    p, q = (
        (x + PROBABILITY_FLOOR) / (x + PROBABILITY_FLOOR).sum(axis=1, keepdims=True) for x in (p, q)
    )
    return np.sum(p * np.log(p / q), axis=1)


def mark_correct(heard, wanted):
    """Whether each of M clips has what was asked, NaN where nothing was.  # [M]

    Args:
      heard: [M] values. wanted: for each clip the values that are right; [] asks for nothing.
    """
    pairs = zip(heard, wanted, strict=True)
    return np.array([float(value in want) if want else np.nan for value, want in pairs])


def score_accuracy(heard, wanted, seed=0, resamples=1000):
    """{accuracy, low, high, chance, clips}: with a 95 % bootstrap interval over clips.

    Chance is the mean accuracy with the wishes dealt out to other clips, so that always hearing
    the most frequent thing gains nothing.
    """
    rng, found = np.random.default_rng(seed), mark_correct(heard, wanted)
    found = found[np.isfinite(found)]
    means = rng.choice(found, (resamples, len(found))).mean(axis=1)
    dealt = [
        mark_correct(heard, [wanted[k] for k in rng.permutation(len(wanted))]) for _ in range(200)
    ]
    accuracy = percentile_interval(found.mean(), means)
    return {
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "chance": float(np.nanmean(dealt)),
        "clips": len(found),
    }
