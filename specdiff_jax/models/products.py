"""Matrix products in the form and the dtype that suit the backend, keeping little for later.

XLA's CPU backend multiplies [M, K] @ [K, N] at full speed but slows several times where autodiff
hands it a transposed operand, as in every weight gradient. Here that operand is transposed first,
the narrower of the two, behind barriers that keep XLA from folding the transpose back in. A
product's two gradients come out of one loop there: XLA puts those of weights off to the end of the
step, and till then holds all that they are made of.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from specdiff_jax import meshes

PRODUCT, ATTENDED = "product", "attended"  # what a backward pass may keep, see blocks.REMATS
ROWS = 1024  # of a CPU's backward pass at a time
barrier = jax.lax.optimization_barrier


def same(x):
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(function, x, w):
    """function(x) @ w, of which the backward pass keeps x alone.  # [N, D], [E, K] -> [N, K]"""
    return function(x) @ w


def product_forward(function, x, w):
    return function(x) @ w, (x, w)


def product_backward(function, residuals, g):
    x, w = residuals
    rows = math.gcd(len(x), ROWS)
    if jax.default_backend() != "cpu" or meshes.many() or not 128 <= rows < len(x):
        return gradients(function, barrier(x), w, g)

    def add(total, block):
        dx, dw = gradients(function, block[0], w, block[1])
        return total + dw, dx

    in_blocks = lambda y: y.reshape(-1, rows, y.shape[-1])
    dw, dx = jax.lax.scan(add, jnp.zeros_like(w), (in_blocks(x), in_blocks(g)))
    return dx.reshape(x.shape), dw


product.defvjp(product_forward, product_backward)


def gradients(function, x, w, g):
    """Of x and of w, where g is that of function(x) @ w."""
    y, pull = jax.vjp(function, x)
    return *pull(g @ w.T), transposed_product(y, g)


def transposed_product(x, g):
    """x^T g.  # [N, D], [N, K] -> [D, K]"""
    if jax.default_backend() != "cpu":
        return x.T @ g
    if x.shape[1] <= g.shape[1]:
        return barrier(barrier(barrier(x).T) @ g)
    return barrier(barrier(barrier(g).T) @ x).T


def matmul(x, w, function=same):
    """function(x) @ w.  # [..., D], [E, K] -> [..., K]

    Args:
      function: rows [N, D] -> [N, E], cheap enough to be computed again in the backward pass.
    """
    if function is same and jax.default_backend() != "cpu":
        return checkpoint_name(x @ w, PRODUCT)
    y = product(function, x.reshape(-1, x.shape[-1]), w)
    return checkpoint_name(y.reshape(*x.shape[:-1], w.shape[-1]), PRODUCT)


def dense_dot_general(x, w, dimension_numbers, precision=None, **_):
    """`matmul` as the `dot_general` of nn.Dense, which contracts the last axis with the first."""
    return matmul(x, w)


def fast_dtype(name):
    """Of the network's arithmetic; "auto" is what the backend is fast in."""
    fast = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fast if name == "auto" else name
