"""Prompt adherence: do clips match their condition, by a classifier and by a joint embedding?"""

import dataclasses

import numpy as np

from specdiff_jax.conditioning.prompts import UNCONDITIONAL, Prompt
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import crops
from specdiff_jax.evaluation import label_classifier
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

CROPS_PER_SONG = 4  # of training songs, to fit the classifier
PROMPTS = {  # evaluate.conditioning: entry of a song -> Prompt
    "unconditional": lambda entry: UNCONDITIONAL,
    "labels": lambda entry: Prompt(labels=", ".join(entry["labels"])),
    "captions": lambda entry: Prompt(prompt=entry["captions"][0]),
}


def list_kinds(labels):
    """Return the kinds of labels "kind:value", in order of appearance."""
    return tuple(dict.fromkeys(label.split(":", 1)[0] for label in labels if ":" in label))


def fit_classifier(songs, samples, labels):
    """Return a LabelClassifier of the kinds of labels, fitted to evenly spread training crops."""
    waves, offsets = crops.read_tiled_waves(songs, samples, CROPS_PER_SONG * len(songs.entries))
    entries = [songs.entries[k] for k in songs.song_at(offsets)]
    features = label_classifier.extract_features(waves, songs.sample_rate)
    return label_classifier.LabelClassifier(features, entries, list_kinds(labels))


def score_clips(classifier, clips, features, entries, real=None, seed=0):
    """Return a row for each kind of label: how often the classifier predicts the condition.

    Args:
      clips: a controls.Clips; features: its `label_classifier.extract_features`.
      entries: [M] of the songs whose labels or captions the clips were conditioned on.
      real: features of an excerpt of each of those songs, for the divergences.

    Returns:
      [{set, kind, accuracy, low, high, chance, clips}] with, where real is given, the mean KL
      divergence (nats) between the predictions for real and generated clips, in both directions,
      and for real clips and permuted generated ones.
    """
    predicted, rows = classifier.predict_probabilities(features), []
    predicted_real = None if real is None else classifier.predict_probabilities(real)
    for kind, values in classifier.most_probable(predicted).items():
        targets = [label_classifier.get_values(entry, kind) for entry in entries]
        if not any(targets):
            continue
        accuracy = label_classifier.score_accuracy(values, targets, seed)
        row = {"set": clips.name, "kind": kind} | accuracy
        if real is not None and np.allclose(predicted[kind].sum(axis=1), 1):
            row |= measure_divergences(predicted[kind], predicted_real[kind], seed)
        rows.append(row)
    return rows


def measure_divergences(generated, real, seed):
    """Return {name, name_low, name_high} of the mean KL both ways, and with permuted clips.

    Args:
      generated, real: [M, K] predicted probabilities of the clips of each pair.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    pairs = {
        "kl_real_to_generated": (real, generated),
        "kl_generated_to_real": (generated, real),
        "kl_real_to_shuffled": (real, generated[order]),
    }
    fields = {}
    for name, pair in pairs.items():
        estimate = bootstrap_interval(label_classifier.kl_divergence(*pair), seed=seed)
        fields |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return fields


def text_similarity(vectors, texts, seed=0):
    """Return the cosine similarity of clips and their texts in a joint embedding.

    Args:
      vectors: [M, W, d] of the windows of each clip; texts: [M, d] of the text of each clip.

    Returns:
      {"similarity", "shuffled"}: mean cosine over windows with its 95 % interval over clips, and
      the same with the texts permuted so that no clip keeps its own.
    """
    cosine = (l2_normalize(vectors) @ l2_normalize(texts).T).mean(axis=1)  # [M clips, M texts]
    order = np.random.default_rng(seed).permutation(len(texts))  # one cycle: none keeps its own
    pairs = {"similarity": np.diagonal(cosine), "shuffled": cosine[order, np.roll(order, 1)]}
    intervals = {name: bootstrap_interval(values, seed=seed) for name, values in pairs.items()}
    return {name: dataclasses.asdict(interval) for name, interval in intervals.items()}
