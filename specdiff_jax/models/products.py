"""Matrix products in the form and the dtype that suit the backend.

XLA's CPU backend multiplies [M, K] @ [K, N] at full speed but slows several times where autodiff
hands it a transposed operand, as in every weight gradient. Here that operand is transposed first,
the narrower of the two, behind barriers that keep XLA from folding the transpose back in.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

PRODUCT, ATTENDED = "product", "attended"  # what a backward pass may keep, see blocks.REMATS
barrier = jax.lax.optimization_barrier


@jax.custom_vjp
def matmul_cpu(x, w):
    """x @ w.  # [N, D] @ [D, K] -> [N, K]"""
    return x @ w


def matmul_forward(x, w):
    return x @ w, (x, w)


def matmul_backward(residuals, g):
    x, w = residuals
    if x.shape[1] <= g.shape[1]:
        return g @ w.T, barrier(barrier(barrier(x).T) @ g)
    return g @ w.T, barrier(barrier(barrier(g).T) @ x).T


matmul_cpu.defvjp(matmul_forward, matmul_backward)


def matmul(x, w):
    """[..., D] @ [D, K] -> [..., K], in the form that suits the backend."""
    if jax.default_backend() != "cpu":
        return checkpoint_name(x @ w, PRODUCT)
    y = matmul_cpu(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])
    return checkpoint_name(y, PRODUCT)


def dense_dot_general(x, w, dimension_numbers, precision=None, **_):
    """`matmul` as the `dot_general` of nn.Dense, which contracts the last axis with the first."""
    return matmul(x, w)


def fast_dtype(name):
    """Of the network's arithmetic; "auto" is what the backend is fast in."""
    fast = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fast if name == "auto" else name
