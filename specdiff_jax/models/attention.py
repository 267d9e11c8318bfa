"""softmax(q k^T / sqrt(d)) v in three forms with equal results. All arrays are [B, L, H, d]."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from specdiff_jax.models.matmul import ATTENTION_OUTPUT
from specdiff_jax.runtime import mesh

BLOCK = 256  # queries (forward) or keys (backward) at a time
dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)


def plain(q, k, v):
    """Compute all pairs at once."""
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def cudnn(q, k, v):
    """Compute flash attention of cuDNN: on an NVIDIA GPU, in bfloat16 or float16 only."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


@mesh.shard_over_batch
def blockwise(q, k, v):
    """Compute a block of queries at a time, and again in the backward pass: never an L x L map.

    This is FlashAttention's algebra (Dao et al. 2022, algorithms 1 and 4) with whole rows. The
    output and the log-sum-exp of each row are saved for the backward pass.
    """
    batch, tokens, heads, size = q.shape
    flat = [x.transpose(0, 2, 1, 3).reshape(-1, tokens, size) for x in (q / math.sqrt(size), k, v)]
    return attend(*flat).reshape(batch, heads, tokens, size).transpose(0, 2, 1, 3)


def auto(q, k, v):
    """Use cuDNN where it can run; else blockwise from 1024 tokens; else plain."""
    if jax.default_backend() == "gpu" and q.dtype == jnp.bfloat16 and q.shape[-1] % 8 == 0:
        return cudnn(q, k, v)
    return blockwise(q, k, v) if q.shape[1] >= 1024 else plain(q, k, v)


def map_heads(function, arrays):
    """Map over the first axis: vmap, or a loop on a CPU, whose batched matmuls are 5x slower."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), arrays)
    return jax.vmap(function)(*arrays)


def split_blocks(x):
    """Split tokens into blocks of at most BLOCK.  # [L, d] -> [L / block, block, d]"""
    return x.reshape(-1, math.gcd(len(x), BLOCK), x.shape[-1])


@jax.custom_vjp
def attend(q, k, v):
    """Return softmax(q k^T) v of flattened heads, q scaled already.  # [B * H, L, d] each"""
    return attend_forward(q, k, v)[0]


def attend_forward(q, k, v):
    """Return the output and the residuals.  # [B * H, L, d]"""
    outputs = map_heads(head_forward, (q, k, v))
    out, log_sum = (checkpoint_name(x, ATTENTION_OUTPUT) for x in outputs)
    return out, (q, k, v, out, log_sum)


def attend_backward(residuals, out_gradient):
    """Return the gradients of q, k and v.  # [B * H, L, d] each"""
    return map_heads(head_backward, (*residuals, out_gradient))


def head_forward(q, k, v):
    """Return one head's output [L, d] and the log-sum-exp of its rows of scores [L]."""

    def rows(q):
        scores = dot(q, k.T)  # [block, L]
        top = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        out = dot(weights.astype(v.dtype), v) / total
        return out.astype(q.dtype), (top + jnp.log(total))[:, 0]

    out, log_sum = jax.lax.map(rows, split_blocks(q))
    return out.reshape(q.shape), log_sum.reshape(-1)


def head_backward(q, k, v, out, log_sum, g):
    """Return the gradients of one head, a block of keys at a time.  # [L, d] each"""
    delta = jnp.sum(out.astype(jnp.float32) * g, axis=-1)  # [L]

    def columns(dq, block):
        k, v = block  # [block, d]
        weights = jnp.exp(dot(k, q.T) - log_sum[None])  # [block, L]
        d_scores = (weights * (dot(v, g.T) - delta[None])).astype(q.dtype)
        dv = dot(weights.astype(q.dtype), g)
        # The barrier keeps XLA from folding the transpose into a slower matmul.
        dq = dq + dot(jax.lax.optimization_barrier(k.T), d_scores)  # [d, L]
        return dq, (dot(d_scores, q).astype(k.dtype), dv.astype(v.dtype))

    start = jnp.zeros(q.shape[::-1], jnp.float32)
    dq, (dk, dv) = jax.lax.scan(columns, start, (split_blocks(k), split_blocks(v)))
    return dq.T.astype(q.dtype), dk.reshape(k.shape), dv.reshape(v.shape)


attend.defvjp(attend_forward, attend_backward)

ATTENTIONS = {"auto": auto, "plain": plain, "blockwise": blockwise, "cudnn": cudnn}
