"""Embedders: frozen networks and statistics that map sound to vectors."""

from specdiff_jax.evaluation.embedders import huggingface, logmel, musicnn


def load_embedder(name):
    """Return the embedder of a name.

    Args:
      name: 'musicnn', 'logmel', or 'path:' and a folder with an audio model of `transformers`.

    Returns:
      embedder.Embedder.

    Raises:
      ValueError: the name is unknown, or its library or weights are not available.
    """
    kind, _, place = name.partition(":")
    if kind not in EMBEDDERS or (kind == "path") != bool(place):
        raise ValueError(
            f"embedder {name!r} is unknown: 'musicnn', 'logmel', or 'path:' and a model's folder"
        )
    return EMBEDDERS[kind](place)


EMBEDDERS = {
    "musicnn": musicnn.load_musicnn,
    "logmel": logmel.load_logmel,
    "path": huggingface.load_huggingface,
}
