"""Low-rank updates of chosen weights (Hu et al. 2021, arXiv 2106.09685, section 4.1).

A weight W [in, out] becomes W + strength * a b with a [in, r] and b [r, out]. b is zero at first,
so that nothing changes. A weight of more axes counts as [all axes but the last, last axis].
"""

import math
import re

import jax
import jax.numpy as jnp

from specdiff_jax.models.weights import flatten_dict, unflatten_dict


def select_paths(params, layers):
    """Return the paths of the weight matrices whose name "block_0/.../kernel" a regex matches.

    Raises:
      ValueError: no name matches.
    """
    flat = flatten_dict(params)
    paths = [p for p, w in flat.items() if w.ndim >= 2 and re.search(layers, "/".join(p))]
    if not paths:
        raise ValueError(f"finetune.lora_layers={layers!r} matches no weight matrix")
    return paths


def init(key, params, layers, rank):
    """Return the initial updates, a tree with {"a": [in, r], "b": [r, out]} for each weight."""
    flat, updates = flatten_dict(params), {}
    for index, path in enumerate(select_paths(params, layers)):
        *inner, out = flat[path].shape
        size = math.prod(inner)
        if rank >= min(size, out):
            raise ValueError(
                f"finetune.lora_rank={rank} saves nothing for {'/'.join(path)} [{size}, {out}]"
            )
        draw = jax.random.normal(jax.random.fold_in(key, index), (size, rank))
        updates[*path, "a"] = draw / math.sqrt(size)
        updates[*path, "b"] = jnp.zeros((rank, out))
    return unflatten_dict(updates)


def merge(params, updates, strength):
    """Return `params` with the updates added: a plain tree again."""
    flat, low = dict(flatten_dict(params)), flatten_dict(updates)
    for path in {key[:-1] for key in low}:
        weight = flat[path]
        flat[path] = weight + strength * (low[*path, "a"] @ low[*path, "b"]).reshape(weight.shape)
    return unflatten_dict(flat)
