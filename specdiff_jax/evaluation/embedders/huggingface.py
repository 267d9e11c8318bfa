"""An audio model of Hugging Face `transformers` in a folder of the user's: CLAP, AST, HuBERT, ...

It uses local files only: no network, no code that comes with a model, no weights but safetensors.
"""

import functools
import json
import pathlib

import numpy as np

from specdiff_jax.conditioning.text_encoders import huggingface
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.runtime.text import first_line

SECONDS = 10  # a window, where a model does not declare its window
BATCH = 4
MAX_TOKENS = 32  # of a text; longer ones are cut
SETTINGS = ("config.json", "preprocessor_config.json")


def load_huggingface(place):
    """Return the embedder of a folder.

    CLAP gives its projection beside texts, other models the mean of their last layer over time.

    Raises:
      ValueError: a library or file is missing, weights are missing, or it is no model of sound.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ValueError(
            f"path:{place} needs {error.name}: pip install torch transformers"
        ) from error
    folder = pathlib.Path(place).expanduser()
    weights = sorted(folder.glob("*.safetensors"))
    missing = [name for name in SETTINGS if not (folder / name).exists()]
    if missing or not weights:
        lacks = ", ".join(missing + ["*.safetensors"] * (not weights))
        raise ValueError(f"path:{place} lacks {lacks}: save model and feature extractor there")
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = load_audio_model(transformers, folder)
        window = window_samples(extractor)
        embed = functools.partial(_embed_audio, model, extractor)
        width = embed(np.zeros((1, window), np.float32)).shape[1]
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = first_line(error)
        raise ValueError(f"path:{place} cannot be loaded ({reason})") from error
    sha256 = huggingface.sha256_of_files([*(folder / name for name in SETTINGS), *weights])
    return Embedder(
        f"path:{place}",
        sha256,
        width,
        extractor.sampling_rate,
        window,
        BATCH,
        embed,
        functools.partial(_embed_text, place) if embeds_text(folder) else None,
    )


def embeds_text(folder):
    """Return whether a model puts texts beside sounds, and its tokenizer is there too."""
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    return kind == "clap" and any((folder / name).exists() for name in huggingface.VOCABULARIES)


def _embed_text(place, texts):
    """Return the vectors of texts.  # [K, d]"""
    return huggingface.load(place, None).encode(texts, MAX_TOKENS).pooled


def load_audio_model(transformers, folder):
    """Return the audio half of a model.

    Raises:
      ValueError: it lacks weights, which the library would draw at random.
    """
    options = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    kind = getattr(transformers, MODELS.get(config.model_type, "AutoModel"))
    transformers.logging.set_verbosity_error()  # it would list every weight of the text half
    model, info = kind.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True, **options
    )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} for one")
    return model.eval()


def window_samples(extractor):
    """Return the samples of a window."""
    window = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
    return window or SECONDS * extractor.sampling_rate


def _embed_audio(model, extractor, waves):
    """Return the vectors of windows.  # [B, N] -> [B, d]"""
    import torch

    inputs = extractor(list(waves), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if "is_longer" in inputs:  # CLAP would mark one of equal windows at random
        inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]))
    with torch.inference_mode():
        out = model(**inputs)
    projected = getattr(out, "audio_embeds", None)
    return (out.last_hidden_state.mean(1) if projected is None else projected).float().numpy()


MODELS = {  # model_type -> the class that loads the audio half; others through AutoModel
    "clap": "ClapAudioModelWithProjection",
    "clap_audio_model": "ClapAudioModelWithProjection",
}
