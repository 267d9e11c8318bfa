"""Text encoders of Hugging Face `transformers`, in PyTorch, from a folder or the Hub.

Code that comes with a model is never run. Safetensors are preferred to pickles.
"""

import functools
import hashlib
import pathlib

import numpy as np
import tqdm

from specdiff_jax.conditioning.text_encoders.encoder import (
    TextEncoder,
    TextFeatures,
    clean_texts,
    find_cut,
    l2_normalize,
)
from specdiff_jax.runtime.files import hash_file
from specdiff_jax.runtime.text import first_line

BATCH = 32  # texts


def load(place, revision):
    """Load the TextEncoder of a folder or a Hub name.

    The pooled vector is CLAP's projection, of other models the mean of the tokens.

    Raises:
      ValueError: a library is missing, or the model cannot be loaded or encodes no text.
    """
    try:
        import tokenizers  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ValueError(
            f"hf:{place} needs {error.name}: pip install torch transformers"
        ) from error
    if not place:
        raise ValueError("text encoder 'hf:' lacks the name of a model or a folder")
    folder, revision = find_folder(place, revision)
    weights = find_weights(folder, place)
    if not any((folder / name).exists() for name in VOCABULARIES):  # the library would make one up
        raise ValueError(f"hf:{place} holds no tokenizer: none of {', '.join(VOCABULARIES)}")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = read_model(transformers, folder, weights[0].suffix == ".safetensors")
    except Exception as error:  # the library raises many kinds; the user needs one line
        raise ValueError(f"hf:{place} cannot be loaded ({first_line(error)})") from error
    if not tokenizer.is_fast or tokenizer.pad_token is None:
        raise ValueError(f"hf:{place}: its tokenizer is not of the fast kind, or cannot pad")
    encode = functools.partial(_encode, model, tokenizer)
    probe = encode(["a"], 3)
    widths = probe.tokens.shape[-1], probe.pooled.shape[-1]
    return TextEncoder(f"hf:{place}", revision, sha256_of_files(weights), *widths, encode)


def read_model(transformers, folder, safe):
    """Load the text half of a model.

    Raises:
      ValueError: it has a decoder, or lacks weights.
    """
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.is_encoder_decoder and config.model_type not in MODELS:
        raise ValueError(f"{config.model_type} has a decoder; supported are {', '.join(MODELS)}")
    kind = getattr(transformers, MODELS.get(config.model_type, "AutoModel"))
    transformers.logging.set_verbosity_error()  # it lists every weight of the other halves
    model, info = kind.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=safe, output_loading_info=True
    )
    # The library initializes missing weights at random. Only a plain encoder's pooler is unused.
    plain = config.model_type not in MODELS
    if missing := sorted(n for n in info["missing_keys"] if not (plain and "pooler" in n)):
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} for one")
    return model.eval()


def find_folder(place, revision):
    """Return (folder of a model, its commit or 'local'), downloaded from the Hub where needed."""
    path = pathlib.Path(place).expanduser()
    if path.is_dir():
        if revision not in (None, "local"):
            raise ValueError(f"hf:{place} is a folder, which has no revision {revision!r}")
        return path, "local"
    import huggingface_hub

    try:
        fetch = functools.partial(
            huggingface_hub.snapshot_download, place, revision=revision, ignore_patterns="*/*"
        )
        folder = pathlib.Path(fetch(allow_patterns=[*READ, "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = pathlib.Path(fetch(allow_patterns=[*READ, "*.bin"]))
    except Exception as error:  # the library raises many kinds; the user needs one line
        raise ValueError(
            f"hf:{place} is no folder, and the Hub has no such model ({first_line(error)})"
        ) from error
    return folder, folder.name  # the Hub's cache calls a folder by its commit


def find_weights(folder, place):
    """Return the files of a model's weights, in order."""
    for pattern in ("*.safetensors", "*.bin"):
        if paths := sorted(folder.glob(pattern)):
            return paths
    raise ValueError(f"hf:{place} holds neither .safetensors nor .bin")


def sha256_of_files(paths):
    """Return the sha256 of the names and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name} {hash_file(path)}\n".encode())
    return total.hexdigest()


def _encode(model, tokenizer, texts, max_tokens):
    """Return the TextFeatures of texts, batch by batch."""
    texts = clean_texts(texts, max_tokens, max_tokens_of(model, tokenizer))
    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    results = [
        _batch(model, tokenizer, batch, max_tokens)
        for batch in tqdm.tqdm(batches, "captions", unit=" batches", disable=len(batches) < 8)
    ]
    tokens, mask, pooled, truncated = zip(*results, strict=True)
    return TextFeatures(
        np.concatenate(tokens), np.concatenate(mask), np.concatenate(pooled), sum(truncated, ())
    )


def max_tokens_of(model, tokenizer):
    """Return the most tokens that a model's positions and its tokenizer allow."""
    places = getattr(model.config, "max_position_embeddings", MAX_TOKENS)
    return min(places, tokenizer.model_max_length, MAX_TOKENS)


def _batch(model, tokenizer, texts, max_tokens):
    """Return the fields of TextFeatures of one batch of texts."""
    import torch

    inputs = tokenizer(
        texts, truncation=True, max_length=max_tokens, padding="max_length", return_tensors="pt"
    )
    with torch.inference_mode():
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    mask = inputs["attention_mask"].numpy().astype(bool)
    tokens = out.last_hidden_state.float().numpy() * mask[..., None]  # [T, L, E]
    if getattr(out, "text_embeds", None) is not None:
        pooled = out.text_embeds.float().numpy()
    else:
        pooled = tokens.sum(1) / mask.sum(1, keepdims=True)
    cuts = tuple(find_cut(encoding) for encoding in inputs.encodings)
    return tokens.astype(np.float16), mask, l2_normalize(pooled), cuts


READ = ("*.json", "*.txt", "*.model")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
MAX_TOKENS = 4096
MODELS = {  # model_type -> the class that loads its text half; others through AutoModel
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clap": "ClapTextModelWithProjection",
    "clap_text_model": "ClapTextModelWithProjection",
}
