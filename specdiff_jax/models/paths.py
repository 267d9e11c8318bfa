"""Trees of parameters as {("block_0", "cross", "q", "kernel"): array}, and back."""

from flax.traverse_util import flatten_dict as by_path
from flax.traverse_util import unflatten_dict as tree_of

__all__ = ["by_path", "tree_of"]
