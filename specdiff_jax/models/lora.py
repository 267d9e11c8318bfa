"""Low-rank updates of chosen weights (Hu et al. 2021, arXiv 2106.09685, section 4.1).

A weight W [in, out] becomes W + strength * a b with a [in, r] and b [r, out]. b begins at zero, so
that at first nothing changes. Weights of more axes are taken as [everything but the last, last].
"""

import math
import re

import jax
import jax.numpy as jnp

from specdiff_jax.models.weights import flatten_dict, unflatten_dict


def select_paths(params, layers):
    """Paths of the weight matrices whose name "block_0/.../kernel" the expression finds.

    Raises:
      ValueError: there is none.
    """
    flat = flatten_dict(params)
    paths = [p for p, w in flat.items() if w.ndim >= 2 and re.search(layers, "/".join(p))]
    if not paths:
        raise ValueError(f"finetune.lora_layers={layers!r} finds no weight matrix")
    return paths


def init(key, params, layers, rank):
    """The updates of the chosen weights, a tree of {"a": [in, r], "b": [r, out]}."""
    flat, found = flatten_dict(params), {}
    for index, path in enumerate(select_paths(params, layers)):
        *inner, out = flat[path].shape
        size = math.prod(inner)
        if rank >= min(size, out):
            raise ValueError(
                f"finetune.lora_rank={rank} saves nothing for {'/'.join(path)} [{size}, {out}]"
            )
        draw = jax.random.normal(jax.random.fold_in(key, index), (size, rank))
        found[*path, "a"] = draw / math.sqrt(size)
        found[*path, "b"] = jnp.zeros((rank, out))
    return unflatten_dict(found)


def merge(params, updates, strength):
    """The weights with their updates: a plain tree again, as `params`."""
    flat, low = dict(flatten_dict(params)), flatten_dict(updates)
    for path in {key[:-1] for key in low}:
        weight = flat[path]
        flat[path] = weight + strength * (low[*path, "a"] @ low[*path, "b"]).reshape(weight.shape)
    return unflatten_dict(flat)
