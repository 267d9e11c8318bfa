"""Contrastive losses: pairs with a weight attract each other, the other pairs repel each other.

A matrix of weights in [0, 1] says which pairs are positive, a mask which pairs count at all. One
softmax loss is NT-Xent (Chen et al. 2020, arXiv 2002.05709, eq. 1), SupCon (Khosla et al. 2020,
arXiv 2004.11362, eq. 2) and CLIP's (Radford et al. 2021, arXiv 2103.00020, figure 3); one sigmoid
loss is SigLIP's (Zhai et al. 2023, arXiv 2303.15343, algorithm 1).
"""

import jax
import jax.numpy as jnp

MAX_LOG_SCALE = 4.6052  # log 100: CLIP's limit of a trainable scale
# Initial values of the papers. (CLIP: 1 / 0.07; SigLIP: 10 and -10, as most pairs are negative.)
INITIAL_SCALES = {
    "softmax": {"log_scale": 2.6593},
    "sigmoid": {"log_scale": 2.3026, "bias": -10.0},
}


def softmax_loss(scores, weights, mask):
    """Return the mean over rows of -sum_k w_k log(exp(s_k) / sum_c exp(s_c)) / sum_k w_k.

    Args:
      scores: [A, K], cosines over a temperature.
      weights: [A, K] of the positive pairs; a row without any is left out of the mean.
      mask: [A, K] bool, the pairs that both sums run over.
    """
    weights = jnp.where(mask, weights, 0.0)
    masked = jnp.where(mask, scores, -jnp.inf)
    has = weights.sum(axis=1) > 0
    masked = jnp.where(has[:, None], masked, 0.0)  # a row without any: no infinity in its gradient
    logs = scores - jax.nn.logsumexp(masked, axis=1, keepdims=True)
    rows = -(weights * logs).sum(axis=1) / jnp.where(has, weights.sum(axis=1), 1.0)
    return jnp.where(has, rows, 0.0).sum() / jnp.maximum(has.sum(), 1)


def sigmoid_loss(scores, weights, mask):
    """Return -sum of w log sigmoid(s) + (1 - w) log sigmoid(-s) over the mask, per row of it.

    Args: as of `softmax_loss`; the bias is in the scores already.
    """
    each = weights * jax.nn.log_sigmoid(scores) + (1 - weights) * jax.nn.log_sigmoid(-scores)
    rows = mask.any(axis=1).sum()
    return -jnp.where(mask, each, 0.0).sum() / jnp.maximum(rows, 1)


# ---- which pairs are positive


def crop_pairs(song):
    """Return (weights, mask) [B, B] of two crops of each song, the second ones in the second half.

    A crop's pair is positive, crops of other songs are negative; further crops of the same song
    are masked.  # song: [B]
    """
    place = jnp.arange(len(song))
    partner = jnp.roll(place, len(song) // 2)
    positive = partner[:, None] == place[None]
    return positive.astype(jnp.float32), positive | ~equal_pairs(song, song)


def tag_pairs(song, tags):
    """Return (weights, mask) [B, B] of crops: how much their songs' tags overlap.

    The weight is Jaccard's index, tags of both over tags of either: where every song has one tag,
    the positives of SupCon. With any shared tag as positive, nearly all songs of a collection with
    piano in most of them would attract each other. Crops of the same song have weight 1.

    Args:
      song: [B]; tags: [B, V] of 0 and 1.
    """
    both = tags @ tags.T
    count = tags.sum(axis=1)
    either = count[:, None] + count[None] - both
    weights = jnp.where(equal_pairs(song, song), 1.0, both / jnp.maximum(either, 1.0))
    return weights, ~jnp.eye(len(song), dtype=bool)


def text_pairs(song, text, has_text):
    """Return (weights, mask) [B, B] of crops and texts: positive are the same song, equal texts.

    Args:
      song, text: [B], of each crop its song and the text drawn; has_text: [B] whether its song has
        any. Crops and texts of songs without are masked.
    """
    positive = equal_pairs(song, song) | equal_pairs(text, text)
    return positive.astype(jnp.float32), has_text[:, None] & has_text[None]


def equal_pairs(a, b):
    """Return which pairs are equal.  # [A], [B] -> [A, B] bool"""
    return a[:, None] == b[None]


# ---- trainable scales


def init_scales(e):
    """Return the trainable scales and biases of config.embed: {"sound": ..., "text": ...}."""
    initial = {name: jnp.float32(value) for name, value in INITIAL_SCALES[e.loss].items()}
    scales = {"sound": initial} if e.loss == "sigmoid" else {}
    return scales | ({"text": initial} if e.text else {})


def scale_cosines(cosines, scale, temperature=None):
    """Return scores: cosines over a temperature, or with a trainable scale and bias.  # [A, K]"""
    if scale is None:
        return cosines / temperature
    scores = cosines * jnp.exp(jnp.minimum(scale["log_scale"], MAX_LOG_SCALE))
    return scores + scale["bias"] if "bias" in scale else scores


LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}
