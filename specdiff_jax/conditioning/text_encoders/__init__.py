"""Frozen text encoders by name."""

from specdiff_jax.conditioning.text_encoders import huggingface, minilm


def load(name, revision=None):
    """Load the frozen encoder of a name.

    Args:
      name: 'minilm'; or 'hf:' and a folder or the name of a model on the Hugging Face Hub.
      revision: the `TextEncoder.revision` of an earlier load; None for the newest.

    Returns:
      encoder.TextEncoder.

    Raises:
      ValueError: the name is unknown, or its library, weights or revision cannot be loaded.
    """
    kind, _, place = name.partition(":")
    if kind not in TEXT_ENCODERS:
        raise ValueError(f"text encoder {name!r} is unknown: 'minilm', or 'hf:' and a model's name")
    return TEXT_ENCODERS[kind](place, revision)


TEXT_ENCODERS = {"minilm": minilm.load, "hf": huggingface.load}
