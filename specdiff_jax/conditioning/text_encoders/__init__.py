"""A name -> a frozen text encoder."""

from specdiff_jax.conditioning.text_encoders import huggingface, minilm


def load(name, revision=None):
    """The frozen encoder of a name.

    Args:
      name: 'minilm'; or 'hf:' and a folder or the name of a model on the Hugging Face Hub.
      revision: what `Encoder.revision` said when it was loaded before; None for the newest.

    Returns:
      features.Encoder.

    Raises:
      ValueError: the name is unknown, or its library, weights or revision are not to be had.
    """
    kind, _, place = name.partition(":")
    if kind not in TEXT_ENCODERS:
        raise ValueError(f"text encoder {name!r} is unknown: 'minilm', or 'hf:' and a model's name")
    return TEXT_ENCODERS[kind](place, revision)


TEXT_ENCODERS = {"minilm": minilm.load, "hf": huggingface.load}
