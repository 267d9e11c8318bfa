"""BERT's encoder (Devlin et al. 2018, arXiv 1810.04805) as one pure function of its weights.

Several texts share one row of tokens, and a token attends to the tokens of its own text. There is
no padding between texts, few shapes are compiled, and all products are of matrices, which are
fastest on a CPU.
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
    """Return the parameters of `forward`, layers stacked, from tensors by their usual names."""
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer"))

    def stack(part, kind):
        layers = [tensors[f"encoder.layer.{i}.{part}.{kind}"] for i in range(depth)]
        return np.stack([layer.T for layer in layers])  # [depth, in, out] or [depth, out]

    layers = {name: (stack(part, "weight"), stack(part, "bias")) for name, part in PARTS.items()}
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    words, positions, kinds = (tensors[f"embeddings.{name}.weight"] for name in names)
    norm = tuple(tensors[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias"))
    # A prompt is always a first sentence: its token type is a constant.
    tables = {"words": words, "positions": positions + kinds[:1], "norm": norm}
    return jax.device_put({"tables": tables, "layers": layers})


@functools.partial(jax.jit, static_argnames="heads")
def forward(params, ids, places, owners, heads):
    """Return the last hidden state of every token of a row.

    Args:
      params: from `convert_params`.
      ids: [N] int32, tokens of several texts in one row.
      places: [N] int32, position of each in its own text.
      owners: [N] int32, the text of each.
      heads: of its attention.

    Returns:
      [N, E] float32.
    """
    tables = params["tables"]
    same = owners[:, None] == owners[None, :]  # [N, N]
    with jax.default_matmul_precision("float32"):  # not a GPU's tf32: machines agree
        x = norm(tables["words"][ids] + tables["positions"][places], tables["norm"])  # [N, E]
        x, _ = jax.lax.scan(lambda x, w: (layer(x, w, same, heads), None), x, params["layers"])
    return x


def layer(x, weights, same, heads):
    """Attention, then two dense layers, each added to x and normalized.  # [N, E] -> [N, E]"""
    attended = dense(attention(x, weights, same, heads), weights["attended"])
    x = norm(x + attended, weights["attended_norm"])
    hidden = jax.nn.gelu(dense(x, weights["up"]), approximate=False)  # [N, 4E]
    return norm(x + dense(hidden, weights["down"]), weights["down_norm"])


def attention(x, weights, same, heads):
    """Self-attention among the tokens of each text.  # [N, E], [N, N] -> [N, E]"""
    q, k, v = (
        jnp.swapaxes(dense(x, weights[name]).reshape(len(x), heads, -1), 0, 1)
        for name in ("query", "key", "value")
    )  # [H, N, d]
    scores = jnp.einsum("hnd,hmd->hnm", q, k) / np.sqrt(q.shape[-1])
    probabilities = jax.nn.softmax(jnp.where(same[None], scores, -jnp.inf))  # [H, N, N]
    return jnp.einsum("hnm,hmd->nhd", probabilities, v).reshape(x.shape)


def dense(x, weights):
    """Dense layer.  # [N, in] -> [N, out]"""
    kernel, bias = weights
    return x @ kernel + bias[None]


def norm(x, weights):
    """LayerNorm of each token.  # [N, E] -> [N, E]"""
    scale, shift = (w[None] for w in weights)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON) * scale + shift
