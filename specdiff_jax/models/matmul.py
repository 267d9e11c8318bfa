"""Matrix products in the form and the dtype that suit the backend, keeping little for later.

XLA's CPU backend multiplies [M, K] @ [K, N] at full speed but slows several times where autodiff
hands it a transposed operand, as in every weight gradient. Here that operand is transposed first,
the narrower of the two, behind barriers that keep XLA from folding the transpose back in. A large
product's gradients come out of one branch there: else XLA puts those of weights off to the end of
the step, holding all that they are made of till then, and keeps what was to be computed again.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from specdiff_jax.runtime import mesh

MATMUL_OUTPUT, ATTENTION_OUTPUT = (
    "product",
    "attended",
)  # what a backward pass may keep, see blocks.REMATS
BRANCH_ROWS = 1024  # rows; of more, memory is worth asking after
barrier = jax.lax.optimization_barrier


def identity(x):
    return x


def flatten_rows(x):
    return x.reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute_matmul(function, x, others, w):
    """function(x, *others) @ w, which keeps x and not what it becomes; see `matmul`."""
    y = function(x, *others)
    return (flatten_rows(y) @ w).reshape(*y.shape[:-1], w.shape[-1])


def recompute_matmul_forward(function, x, others, w):
    return recompute_matmul(function, x, others, w), (x, others, w)


def recompute_matmul_backward(function, kept, g):
    x, others, w = kept
    both = functools.partial(gradients, function)
    if jax.default_backend() != "cpu" or len(flatten_rows(x)) <= BRANCH_ROWS or mesh.is_sharded():
        return both(barrier(x), others, w, g)
    given = (x, others, w, g)
    broken = lambda *given: jax.tree.map(lambda y: jnp.full_like(y, jnp.nan), given[:3])
    # Of a finite g always the first; XLA cannot know.
    return jax.lax.cond(g.reshape(-1)[0] < jnp.inf, both, broken, *given)


recompute_matmul.defvjp(recompute_matmul_forward, recompute_matmul_backward)


def gradients(function, x, others, w, g):
    """Of x, of others and of w, where g is that of function(x, *others) @ w."""
    y, pull = jax.vjp(function, x, *others)
    dx, *d_others = pull((flatten_rows(g) @ w.T).reshape(y.shape))
    return dx, tuple(d_others), transposed_matmul(flatten_rows(y), flatten_rows(g))


def transposed_matmul(x, g):
    """x^T g.  # [N, D], [N, K] -> [D, K]"""
    if jax.default_backend() != "cpu":
        return x.T @ g
    if x.shape[1] <= g.shape[1]:
        return barrier(barrier(barrier(x).T) @ g)
    return barrier(barrier(barrier(g).T) @ x).T


def matmul(x, w, function=identity, others=()):
    """function(x, *others) @ w.  # [..., L, D], [E, K] -> [..., L, K]

    Args:
      function: [B, L, D], others -> [B, L, E], a token at a time and cheap enough to be computed
        again in the backward pass, which is given x and not what function made of it.
      others: arrays [B or 1, 1, ...], for all tokens of an example.
    """
    if function is identity and jax.default_backend() != "cpu":
        return checkpoint_name(x @ w, MATMUL_OUTPUT)
    y = recompute_matmul(function, x.reshape(-1, *x.shape[-2:]), tuple(others), w)
    return checkpoint_name(y.reshape(*x.shape[:-1], w.shape[-1]), MATMUL_OUTPUT)


def dense_dot_general(x, w, dimension_numbers, precision=None, **_):
    """`matmul` as the `dot_general` of nn.Dense, which contracts the last axis with the first."""
    return matmul(x, w)


def resolve_dtype(name):
    """Of the network's arithmetic; "auto" is what the backend is fast in."""
    fast = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fast if name == "auto" else name
