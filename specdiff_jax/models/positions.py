"""Positions of tokens: rotary angles for queries and keys, or sinusoids or a table to add."""

import math

import jax
import jax.numpy as jnp
import numpy as np

FASTEST = math.pi / 2  # radians a token
SLOWEST = FASTEST / 200


def patch_grid(shape, patch):
    """Return (rows, columns) of the patches of one example."""
    return shape[0] // patch[0], shape[1] // patch[1]


def axial_angles(grid, size):
    """Return rotary angles over a (bins, frames) grid of patches (Su et al. 2021).

    (arXiv 2104.09864.) The pairs of a head's channels are divided equally among the axes that have
    more than one patch, so that a model over whole frames has all of them for time.

    Args:
      grid: (rows, columns) of patches, tokens in row-major order.
      size: channels of a head, a multiple of 2 for each axis in use.

    Returns:
      [L, size / 2] float32.
    """
    axes = [axis for axis, count in enumerate(grid) if count > 1] or [1]
    if size % (2 * len(axes)):
        raise ValueError(
            f"model.positions: size {size} (model.width / model.heads for 'rotary', "
            f"model.width for 'sincos') must be a multiple of "
            f"{2 * len(axes)}"
        )
    positions = np.indices(grid).reshape(2, -1)  # [2, L]
    speeds = np.geomspace(FASTEST, SLOWEST, size // (2 * len(axes)))
    angles = [positions[axis][:, None] * speeds for axis in axes]
    return np.concatenate(angles, axis=1).astype(np.float32)


def rotate(x, angles):
    """Rotate the pairs (x[i], x[i + d/2]) of each head.  # [B, L, H, d], [L, d / 2] -> as x"""
    cos, sin = (f(angles).astype(x.dtype)[None, :, None] for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def sincos(grid, width):
    """Return fixed sinusoids to add to tokens: sin and cos of `axial_angles` of the whole width.

    (Vaswani et al. 2017, section 3.5, by axis as in Peebles & Xie 2022.)

    Returns:
      [L, width] float32.
    """
    angles = axial_angles(grid, width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def resize_positions(params, model, trained, log):
    """Return `params` of the `trained` model for a `model` of another shape.

    Interpolate the learned table of positions and log that. No other parameter depends on a shape.
    """
    if "positions" not in params or model.shape == trained.shape:
        return params
    grid, new = (patch_grid(m.shape, m.patch) for m in (trained, model))
    log(f"positions: the learned table of {grid} patches is interpolated to {new}")
    return {**params, "positions": resize_table(params["positions"], grid, new)}


def resize_table(table, grid, new_grid):
    """Return a learned table [1, L, D] over `grid`, interpolated to `new_grid`.  # [1, L', D]"""
    width = table.shape[-1]
    on_grid = jnp.asarray(table).reshape(*grid, width)
    return jax.image.resize(on_grid, (*new_grid, width), "linear").reshape(1, -1, width)


POSITIONS = ("learned", "sincos", "rotary")
