"""An independent label classifier: logistic regression on statistics of log-mel and chroma.

It uses waves and the labels of songs, never the network, its spectrograms or its conditions.
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
INVERSE_PENALTY = 0.05  # C of the logistic regressions
PROBABILITY_FLOOR = 1e-3
# Profiles of the twelve pitch classes in a key (Krumhansl & Kessler 1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def extract_features(waves, sample_rate):
    """Return mean, spread and change of each mel band, and how well keys fit.

    Args:
      waves: [M, N] float32.

    Returns:
      [M, features] float64.
    """
    mel = jnp.asarray(filterbank(sample_rate, N_FFT, BANDS))
    chroma = jnp.asarray(librosa.filters.chroma(sr=sample_rate, n_fft=N_FFT))

    @jax.jit
    def extract_one(wave):
        magnitude = jnp.abs(stft(wave[None], N_FFT, HOP)[0]) / (N_FFT / 4)  # [F, T]
        level = jnp.log(mel[:, : len(magnitude)] @ magnitude + MAGNITUDE_FLOOR)  # [BANDS, T]
        level -= jnp.mean(level)  # loudness carries no label
        change = jnp.abs(jnp.diff(level, axis=1))
        pitch = jnp.log1p(100 * chroma[:, : len(magnitude)] @ magnitude).mean(axis=1)  # [12]
        bands = [level.mean(axis=1), level.std(axis=1), change.mean(axis=1), change.std(axis=1)]
        return jnp.concatenate(bands), pitch

    bands, pitch = (np.stack(part) for part in zip(*map(extract_one, waves), strict=True))
    return np.concatenate([bands, fit_keys(pitch)], axis=1).astype(np.float64)


def fit_keys(pitch):
    """Return the fit of the best major and minor key, their difference, and the scale.

    Args:
      pitch: [M, 12] energies of the pitch classes.

    Returns:
      [M, 15], the same for any transposition; the scale starts at the tonic of the best key.
    """
    rolled = np.stack([np.roll(pitch, -tonic, axis=1) for tonic in range(12)])  # [12, M, 12]
    centered = rolled - rolled.mean(axis=2, keepdims=True)
    centered /= np.linalg.norm(centered, axis=2, keepdims=True) + 1e-9
    fits = []
    for profile in (MAJOR, MINOR):
        degrees = np.array(profile) - np.mean(profile)
        fits.append(centered @ (degrees / np.linalg.norm(degrees)))  # [12, M]
    best = np.max(fits, axis=0).argmax(axis=0)
    scale = centered[best, np.arange(len(pitch))]
    major, minor = (fit.max(axis=0) for fit in fits)
    return np.concatenate([np.stack([major, minor, major - minor], axis=1), scale], axis=1)


def get_values(entry, kind):
    """Return a song's values of a kind: "instrument" of ["instrument:flute"] -> ["flute"]."""
    labels = (label.split(":", 1) for label in entry["labels"])
    return [value for name, value in labels if name == kind]


class LabelClassifier:
    """A logistic regression for each kind of label: multiclass or multilabel.

    Args:
      features: [M, D] `extract_features` of real training music; entries: of their songs.
      kinds: of labels "kind:value"; a kind with fewer than two values gets no regression.
    """

    def __init__(self, features, entries, kinds):
        self.regressions, self.values = {}, {}
        for kind in kinds:
            labels = [get_values(entry, kind) for entry in entries]
            names = sorted({value for song in labels for value in song})
            if len(names) < 2:
                continue
            self.values[kind] = np.array(names)
            regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
            if all(len(song) == 1 for song in labels):
                targets = [song[0] for song in labels]
            else:
                regression = OneVsRestClassifier(regression)
                targets = np.array([[name in song for name in names] for song in labels], int)
            pipeline = make_pipeline(StandardScaler(), regression)
            self.regressions[kind] = pipeline.fit(features, targets)

    def predict_probabilities(self, features):
        """Return {kind: [M, values] probabilities}."""
        return {kind: model.predict_proba(features) for kind, model in self.regressions.items()}

    def predict(self, features):
        """Return {kind: [M] most probable values}."""
        return self.most_probable(self.predict_probabilities(features))

    def most_probable(self, probabilities):
        """Return {kind: [M] values} of what `predict_probabilities` returned."""
        return {kind: self.values[kind][p.argmax(axis=1)] for kind, p in probabilities.items()}


def kl_divergence(p, q):
    """Return KL(p, q) of each row in nats, probabilities floored so that it is finite.  # [M]

    Args:
      p, q: [M, K] distributions.
    """
    p, q = (x + PROBABILITY_FLOOR for x in (p, q))
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    return np.sum(p * np.log(p / q), axis=1)


def mark_correct(predictions, targets):
    """Return 1 where a clip's prediction is a target, 0 where not, NaN without targets.  # [M]

    Args:
      predictions: [M] values; targets: M lists of correct values.
    """
    pairs = zip(predictions, targets, strict=True)
    return np.array([float(value in correct) if correct else np.nan for value, correct in pairs])


def score_accuracy(predictions, targets, seed=0, resamples=1000):
    """Return {accuracy, low, high, chance, clips} with a 95 % bootstrap interval over clips.

    Chance is the mean accuracy with the targets permuted over clips: always predicting the most
    frequent value gains nothing over it.
    """
    rng, correct = np.random.default_rng(seed), mark_correct(predictions, targets)
    correct = correct[np.isfinite(correct)]
    means = rng.choice(correct, (resamples, len(correct))).mean(axis=1)
    permuted = ([targets[k] for k in rng.permutation(len(targets))] for _ in range(200))
    chance = [mark_correct(predictions, each) for each in permuted]
    interval = percentile_interval(correct.mean(), means)
    return {
        "accuracy": interval.value,
        "low": interval.low,
        "high": interval.high,
        "chance": float(np.nanmean(chance)),
        "clips": len(correct),
    }
