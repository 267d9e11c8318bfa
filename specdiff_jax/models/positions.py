"""Where a token lies: angles that turn queries and keys, or sinusoids or a table that are added."""

import math

import jax
import jax.numpy as jnp
import numpy as np

FASTEST = math.pi / 2  # radians a token
SLOWEST = FASTEST / 200


def patch_grid(shape, patch):
    """(rows, columns) of the patches of one example."""
    return shape[0] // patch[0], shape[1] // patch[1]


def axial_angles(grid, size):
    """Rotary angles over a (bins, frames) grid of patches (Su et al. 2021, arXiv 2104.09864).

    The pairs of a head's numbers are dealt out equally to the axes that have more than one patch;
    a model over whole frames thus spends all of them on time.

    Args:
      grid: (rows, columns) of patches, tokens in row-major order.
      size: numbers a head, divisible by 2 for each axis in use.

    Returns:
      [L, size / 2] float32.
    """
    axes = [axis for axis, count in enumerate(grid) if count > 1] or [1]
    if size % (2 * len(axes)):
        raise ValueError(
            f"model.positions: the {size} numbers that say where a token lies (model.width / "
            f"model.heads for 'rotary', model.width for 'sincos') must be a multiple of "
            f"{2 * len(axes)}"
        )
    places = np.indices(grid).reshape(2, -1)  # [2, L]
    speeds = np.geomspace(FASTEST, SLOWEST, size // (2 * len(axes)))
    angles = [places[axis][:, None] * speeds for axis in axes]
    return np.concatenate(angles, axis=1).astype(np.float32)


def rotate(x, angles):
    """Turns the pairs (x[i], x[i + d/2]) of each head.  # [B, L, H, d], [L, d / 2] -> as x"""
    cos, sin = (f(angles).astype(x.dtype)[None, :, None] for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def sincos(grid, width):
    """Fixed sinusoids to add to tokens: what `axial_angles` of the whole width turns by.

    (Vaswani et al. 2017, section 3.5, by axis as in Peebles & Xie 2022.)

    Returns:
      [L, width] float32.
    """
    angles = axial_angles(grid, width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def resize_positions(params, model, trained, say):
    """`params` of the `trained` model for one of another shape: the table of places is stretched.

    `say` is told; nothing else of a model depends on its shape.
    """
    if "positions" not in params or model.shape == trained.shape:
        return params
    grid, new = (patch_grid(m.shape, m.patch) for m in (trained, model))
    say(f"positions: the learned table of {grid} patches is interpolated to {new}")
    return {**params, "positions": resize_table(params["positions"], grid, new)}


def resize_table(table, grid, new_grid):
    """A learned table [1, L, D] over `grid`, interpolated to `new_grid`.  # [1, L', D]"""
    width = table.shape[-1]
    placed = jnp.asarray(table).reshape(*grid, width)
    return jax.image.resize(placed, (*new_grid, width), "linear").reshape(1, -1, width)


POSITIONS = ("learned", "sincos", "rotary")
