"""Losses that bring vectors together which belong together, and push the others apart.

Which do is a matrix of weights in [0, 1], and which count at all a mask: one softmax loss is
NT-Xent (Chen et al. 2020, arXiv 2002.05709, eq. 1), SupCon (Khosla et al. 2020, arXiv 2004.11362,
eq. 2) and CLIP's (Radford et al. 2021, arXiv 2103.00020, figure 3); one sigmoid loss is SigLIP's
(Zhai et al. 2023, arXiv 2303.15343, algorithm 1).
"""

import jax
import jax.numpy as jnp


def softmax_loss(scores, together, counted):
    """Mean over rows of -sum_k w_k log(exp(s_k) / sum_c exp(s_c)) / sum_k w_k.

    Args:
      scores: [A, K], cosines over a temperature.
      together: [A, K] weights w; a row without any is left out of the mean.
      counted: [A, K] bool, the only ones that are summed, both times.
    """
    together = jnp.where(counted, together, 0.0)
    shown = jnp.where(counted, scores, -jnp.inf)
    has = together.sum(axis=1) > 0
    shown = jnp.where(has[:, None], shown, 0.0)  # a row without any: no infinity in its gradient
    logs = scores - jax.nn.logsumexp(shown, axis=1, keepdims=True)
    rows = -(together * logs).sum(axis=1) / jnp.where(has, together.sum(axis=1), 1.0)
    return jnp.where(has, rows, 0.0).sum() / jnp.maximum(has.sum(), 1)


def sigmoid_loss(scores, together, counted):
    """-sum of w log sigmoid(s) + (1 - w) log sigmoid(-s) over what counts, over the rows that do.

    Args: as `softmax_loss`; scores have their bias already.
    """
    each = together * jax.nn.log_sigmoid(scores) + (1 - together) * jax.nn.log_sigmoid(-scores)
    rows = counted.any(axis=1).sum()
    return -jnp.where(counted, each, 0.0).sum() / jnp.maximum(rows, 1)


# ---- which belong together


def partners(song):
    """(together, counted) of two crops of each song, the second half of the batch in the order of
    the first: a crop's partner, against all crops of other songs. More crops of the same song
    count neither way.  # [B] -> [B, B], [B, B]
    """
    place = jnp.arange(len(song))
    partner = jnp.roll(place, len(song) // 2)
    together = partner[:, None] == place[None]
    return together.astype(jnp.float32), together | ~alike(song, song)


def tagged(song, tags):
    """(together, counted) of crops of songs with tags: as much as their songs' tags overlap.

    The weight is Jaccard's, tags that both have over tags that one has: where every song has one,
    SupCon's positives. Sharing any of several would bring together nearly all songs of a
    collection that has a piano in most of them. A song is wholly with itself.

    Args:
      song: [B]; tags: [B, V] of 0 and 1.
    """
    both = tags @ tags.T
    count = tags.sum(axis=1)
    either = count[:, None] + count[None] - both
    together = jnp.where(alike(song, song), 1.0, both / jnp.maximum(either, 1.0))
    return together, ~jnp.eye(len(song), dtype=bool)


def told(song, text, known):
    """(together, counted) of crops and texts: those of the same song, and texts that are equal.

    Args:
      song, text: [B], which song each crop is of and which text it drew; known: [B] whether its
        song has any. Others count neither as crops nor as texts.
    """
    together = alike(song, song) | alike(text, text)
    return together.astype(jnp.float32), known[:, None] & known[None]


def alike(a, b):
    """[A], [B] -> [A, B] bool"""
    return a[:, None] == b[None]


LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}
