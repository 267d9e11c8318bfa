"""BERT's encoder (Devlin et al. 2018, arXiv 1810.04805) as one pure function of its weights.

Several texts share one row of tokens, one after the other, and a token attends to those of its
own text: no padding between texts, few shapes to compile, and nothing but 2-D products, which a
CPU does best.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-12  # of its layer norms
PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "down_norm": "output.LayerNorm",
}


def convert_params(tensors):
    """Weights by their usual names, layer by layer -> what `forward` takes, layers stacked."""
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer"))

    def stacked(part, kind):
        layers = [tensors[f"encoder.layer.{i}.{part}.{kind}"] for i in range(depth)]
        return np.stack([layer.T for layer in layers])  # [depth, in, out] or [depth, out]

    layers = {
        name: (stacked(part, "weight"), stacked(part, "bias")) for name, part in PARTS.items()
    }
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    words, positions, kinds = (tensors[f"embeddings.{name}.weight"] for name in names)
    norm = tuple(tensors[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias"))
    # A prompt is always a first sentence, so its kind is part of its place.
    tables = {"words": words, "positions": positions + kinds[:1], "norm": norm}
    return jax.device_put({"tables": tables, "layers": layers})


@functools.partial(jax.jit, static_argnames="heads")
def forward(params, ids, places, owners, heads):
    """What every token of a row has come to mean in its text.

    Args:
      params: from `parameters`.
      ids: [N] int32, tokens of several texts in one row.
      places: [N] int32, where each lies in its own text.
      owners: [N] int32, which text it belongs to.
      heads: of its attention.

    Returns:
      [N, E] float32.
    """
    tables = params["tables"]
    mine = owners[:, None] == owners[None, :]  # [N, N]
    with jax.default_matmul_precision("float32"):  # a GPU's tf32 would tell machines apart
        x = norm(tables["words"][ids] + tables["positions"][places], tables["norm"])  # [N, E]
        x, _ = jax.lax.scan(lambda x, w: (layer(x, w, mine, heads), None), x, params["layers"])
    return x


def layer(x, weights, mine, heads):
    """Attention, then two dense layers, each added to x and normalised.  # [N, E] -> [N, E]"""
    heard = dense(attention(x, weights, mine, heads), weights["attended"])
    x = norm(x + heard, weights["attended_norm"])
    hidden = jax.nn.gelu(dense(x, weights["up"]), approximate=False)  # [N, 4E]
    return norm(x + dense(hidden, weights["down"]), weights["down_norm"])


def attention(x, weights, mine, heads):
    """Each token takes from the tokens of its own text.  # [N, E], [N, N] -> [N, E]"""
    q, k, v = (
        jnp.swapaxes(dense(x, weights[name]).reshape(len(x), heads, -1), 0, 1)
        for name in ("query", "key", "value")
    )  # [H, N, d]
    scores = jnp.einsum("hnd,hmd->hnm", q, k) / np.sqrt(q.shape[-1])
    shares = jax.nn.softmax(jnp.where(mine[None], scores, -jnp.inf))  # [H, N, N]
    return jnp.einsum("hnm,hmd->nhd", shares, v).reshape(x.shape)


def dense(x, weights):
    kernel, bias = weights
    return x @ kernel + bias[None]


def norm(x, weights):
    """LayerNorm over a token's numbers.  # [N, E] -> [N, E]"""
    scale, shift = (w[None] for w in weights)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON) * scale + shift
