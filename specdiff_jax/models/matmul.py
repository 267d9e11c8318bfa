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

PRODUCT, ATTENDED = "product", "attended"  # what a backward pass may keep, see blocks.REMATS
LARGE = 1024  # rows; of more, memory is worth asking after
barrier = jax.lax.optimization_barrier


def identity(x):
    return x


def flat(x):
    return x.reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(function, x, others, w):
    """function(x, *others) @ w, which keeps x and not what it becomes; see `matmul`."""
    y = function(x, *others)
    return (flat(y) @ w).reshape(*y.shape[:-1], w.shape[-1])


def product_forward(function, x, others, w):
    return product(function, x, others, w), (x, others, w)


def product_backward(function, kept, g):
    x, others, w = kept
    both = functools.partial(gradients, function)
    if jax.default_backend() != "cpu" or len(flat(x)) <= LARGE or mesh.is_sharded():
        return both(barrier(x), others, w, g)
    given = (x, others, w, g)
    broken = lambda *given: jax.tree.map(lambda y: jnp.full_like(y, jnp.nan), given[:3])
    # Of a finite g always the first; XLA cannot know.
    return jax.lax.cond(g.reshape(-1)[0] < jnp.inf, both, broken, *given)


product.defvjp(product_forward, product_backward)


def gradients(function, x, others, w, g):
    """Of x, of others and of w, where g is that of function(x, *others) @ w."""
    y, pull = jax.vjp(function, x, *others)
    dx, *d_others = pull((flat(g) @ w.T).reshape(y.shape))
    return dx, tuple(d_others), transposed_product(flat(y), flat(g))


def transposed_product(x, g):
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
        return checkpoint_name(x @ w, PRODUCT)
    y = product(function, x.reshape(-1, *x.shape[-2:]), tuple(others), w)
    return checkpoint_name(y.reshape(*x.shape[:-1], w.shape[-1]), PRODUCT)


def dense_dot_general(x, w, dimension_numbers, precision=None, **_):
    """`matmul` as the `dot_general` of nn.Dense, which contracts the last axis with the first."""
    return matmul(x, w)


def fast_dtype(name):
    """Of the network's arithmetic; "auto" is what the backend is fast in."""
    fast = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fast if name == "auto" else name
