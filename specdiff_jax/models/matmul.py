"""Matmuls in the form and the dtype that suit the backend, which keep little for the gradient.

XLA's CPU backend multiplies [M, K] @ [K, N] at full speed but slows several times where autodiff
gives it a transposed operand, as in every weight gradient. Here that operand is transposed first,
the narrower of the two, behind barriers that keep XLA from folding the transpose back in. There the
gradients of a large matmul come out of one branch: else XLA delays those of weights to the end of
the step, keeps all their inputs until then, and keeps what the backward pass should compute again.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from specdiff_jax.runtime import mesh

MATMUL_OUTPUT, ATTENTION_OUTPUT = "matmul_output", "attention_output"  # see blocks.REMATS
BRANCH_ROWS = 1024  # of more rows the gradients come out of one branch, which saves memory
barrier = jax.lax.optimization_barrier


def identity(x):
    """Return x."""
    return x


def flatten_rows(x):
    """Return x with one axis of rows.  # [..., D] -> [N, D]"""
    return x.reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute_matmul(function, x, args, w):
    """Return function(x, *args) @ w; the backward pass computes the function again from x."""
    y = function(x, *args)
    return (flatten_rows(y) @ w).reshape(*y.shape[:-1], w.shape[-1])


def recompute_matmul_forward(function, x, args, w):
    """Return the result and the residuals (x, args, w)."""
    return recompute_matmul(function, x, args, w), (x, args, w)


def recompute_matmul_backward(function, residuals, g):
    """Return the gradients of x, args and w, on a CPU out of one branch for many rows."""
    x, args, w = residuals
    compute = functools.partial(gradients, function)
    if jax.default_backend() != "cpu" or len(flatten_rows(x)) <= BRANCH_ROWS or mesh.is_sharded():
        return compute(barrier(x), args, w, g)
    operands = (x, args, w, g)
    not_finite = lambda *inputs: jax.tree.map(lambda y: jnp.full_like(y, jnp.nan), inputs[:3])
    # A finite g always takes the first branch; XLA cannot prove it.
    return jax.lax.cond(g.reshape(-1)[0] < jnp.inf, compute, not_finite, *operands)


recompute_matmul.defvjp(recompute_matmul_forward, recompute_matmul_backward)


def gradients(function, x, args, w, g):
    """Return the gradients of x, args and w from g, that of function(x, *args) @ w."""
    y, pull = jax.vjp(function, x, *args)
    dx, *d_args = pull((flatten_rows(g) @ w.T).reshape(y.shape))
    return dx, tuple(d_args), transposed_matmul(flatten_rows(y), flatten_rows(g))


def transposed_matmul(x, g):
    """Return x^T g.  # [N, D], [N, K] -> [D, K]"""
    if jax.default_backend() != "cpu":
        return x.T @ g
    if x.shape[1] <= g.shape[1]:
        return barrier(barrier(barrier(x).T) @ g)
    return barrier(barrier(barrier(g).T) @ x).T


def matmul(x, w, function=identity, args=()):
    """Return function(x, *args) @ w.  # [..., L, D], [E, K] -> [..., L, K]

    Args:
      function: [B, L, D], args -> [B, L, E]. It acts on each token alone and is cheap enough to be
        computed again in the backward pass, for which x is kept and not function(x, *args).
      args: arrays [B or 1, 1, ...], for all tokens of an example.
    """
    if function is identity and jax.default_backend() != "cpu":
        return checkpoint_name(x @ w, MATMUL_OUTPUT)
    y = recompute_matmul(function, x.reshape(-1, *x.shape[-2:]), tuple(args), w)
    return checkpoint_name(y.reshape(*x.shape[:-1], w.shape[-1]), MATMUL_OUTPUT)


def dense_dot_general(x, w, dimension_numbers, precision=None, **_):
    """Compute `matmul` as the `dot_general` of nn.Dense: the last axis with the first."""
    return matmul(x, w)


def resolve_dtype(name):
    """Return the name of the dtype to compute in; "auto" is what the backend is fast in."""
    fast = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fast if name == "auto" else name
