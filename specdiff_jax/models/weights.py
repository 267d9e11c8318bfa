"""Write and read weights: a safetensors file beside a JSON that describes it, no pickle."""

import json
import pathlib

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from specdiff_jax.runtime.files import hash_file, write_bytes

WEIGHTS, ABOUT = "model.safetensors", "config.json"
SEPARATOR = "/"


def save_weights(folder, params, about):
    """Write WEIGHTS and, last, ABOUT with their sha256 and `about`, a JSON-able dict."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {SEPARATOR.join(path): np.asarray(x) for path, x in flatten_dict(params).items()}
    save_file(flat, folder / WEIGHTS, {"format": "flax"})
    about = {"sha256": hash_file(folder / WEIGHTS), **about}
    write_bytes(folder / ABOUT, json.dumps(about, indent=1))


def load_weights(folder):
    """Return (parameters, about, sha256) as `save_weights` wrote them.

    Raises:
      ValueError: a file is missing or differs from what was written.
    """
    folder = pathlib.Path(folder)
    if not (folder / ABOUT).exists():
        raise ValueError(f"{folder / ABOUT} is missing: it describes the weights; export again")
    about = json.loads((folder / ABOUT).read_text())
    sha256 = hash_file(folder / WEIGHTS)
    if sha256 != about.get("sha256"):
        raise ValueError(f"{folder / WEIGHTS} is not the file that {ABOUT} describes; export again")
    flat = load_file(folder / WEIGHTS)
    return unflatten_dict({tuple(n.split(SEPARATOR)): x for n, x in flat.items()}), about, sha256
