"""Do clips have what was asked for? An independent judge listens; see judge.py."""

import dataclasses

import numpy as np

from specdiff_jax.conditioning.prompts import UNCONDITIONAL, Prompt
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import crops
from specdiff_jax.evaluation import label_classifier
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

CROPS_PER_SONG = 4  # of each training song that the judge learns from
PROMPTS = {  # how a clip is asked for what a song is
    "unconditional": lambda entry: UNCONDITIONAL,
    "labels": lambda entry: Prompt(labels=", ".join(entry["labels"])),
    "captions": lambda entry: Prompt(prompt=entry["captions"][0]),
}


def list_kinds(labels):
    """The kinds of labels "kind:value", in order of appearance."""
    return tuple(dict.fromkeys(label.split(":", 1)[0] for label in labels if ":" in label))


def fit_classifier(songs, samples, labels):
    """A Judge of the kinds of a vocabulary's labels, from evenly spread real training music."""
    waves, offsets = crops.read_tiled_waves(songs, samples, CROPS_PER_SONG * len(songs.entries))
    entries = [songs.entries[k] for k in songs.song_at(offsets)]
    return label_classifier.LabelClassifier(
        label_classifier.extract_features(waves, songs.sample_rate), entries, list_kinds(labels)
    )


def score_clips(listener, clips, heard, asked, real=None, seed=0):
    """A row for each kind of label: how often the judge hears what was asked for.

    Args:
      clips: a controls.Clips; heard: its `judge.statistics`.
      asked: [M] entries of the songs that the clips were asked to be like.
      real: `judge.statistics` of an excerpt of each of those songs, for the divergences.

    Returns:
      [{set, kind, accuracy, low, high, chance, clips}] with, where real is given, the mean
      divergence (nats) of what the judge thinks of real and generated, in both directions, and of
      real and another clip's.
    """
    thought, found = listener.likely(heard), []
    of_real = None if real is None else listener.likely(real)
    for kind, values in listener.most(thought).items():
        wanted = [label_classifier.get_values(entry, kind) for entry in asked]
        if not any(wanted):
            continue
        row = {"set": clips.name, "kind": kind} | label_classifier.score_accuracy(
            values, wanted, seed
        )
        if real is not None and np.allclose(thought[kind].sum(axis=1), 1):
            row |= measure_divergences(thought[kind], of_real[kind], seed)
        found.append(row)
    return found


def text_similarity(vectors, texts, seed=0):
    """How like their texts clips are, by a model that puts both in one space.

    Args:
      vectors: [M, W, d] of the windows of each clip; texts: [M, d] of what each was asked for.

    Returns:
      {"similarity", "shuffled"}: mean cosine over windows with its 95 % interval over clips, and
      the same with each text dealt to another clip.
    """
    alike = (l2_normalize(vectors) @ l2_normalize(texts).T).mean(axis=1)  # [M clips, M texts]
    order = np.random.default_rng(seed).permutation(len(texts))  # one cycle: none keeps its own
    pairs = {"similarity": np.diagonal(alike), "shuffled": alike[order, np.roll(order, 1)]}
    return {
        key: dataclasses.asdict(bootstrap_interval(values, seed=seed))
        for key, values in pairs.items()
    }


def measure_divergences(generated, real, seed):
    """KL both ways between what is thought of each pair, and of pairs at random."""
    dealt = np.random.default_rng(seed).permutation(len(real))
    pairs = {
        "kl_real_to_generated": (real, generated),
        "kl_generated_to_real": (generated, real),
        "kl_real_to_shuffled": (real, generated[dealt]),
    }
    found = {}
    for name, pair in pairs.items():
        estimate = bootstrap_interval(label_classifier.kl_divergence(*pair), seed=seed)
        found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return found
