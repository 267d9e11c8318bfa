"""config.embed: what is refused, and what is learned beside trunk and head."""

import jax.numpy as jnp

from specdiff_jax.config.fields import choose
from specdiff_jax.downstream import backbone
from specdiff_jax.downstream.contrastive import LOSSES

LOG_SCALE_MOST = 4.6052  # log 100: CLIP's limit of a learned scale
# As their papers begin. (CLIP: 1 / 0.07; SigLIP: 10 and -10, most pairs being no pairs.)
BEGINNINGS = {"softmax": {"log_scale": 2.6593}, "sigmoid": {"log_scale": 2.3026, "bias": -10.0}}


def check(config):
    """Refuses fields of `embed` that make no sense and whatever would be ignored."""
    e, size = config.embed, config.train.batch_size
    backbone.check(config, "embed")
    choose(LOSSES, "embed.loss", e.loss)
    if (e.temperature is None) == (e.loss == "softmax"):
        raise ValueError(
            f"embed.temperature={e.temperature} does not go with embed.loss={e.loss!r}: set it for "
            "softmax, leave it None for sigmoid, which learns it"
        )
    if e.temperature is not None and e.temperature <= 0:
        raise ValueError(f"embed.temperature={e.temperature} is not above 0")
    if e.dim < 2:
        raise ValueError(f"embed.dim={e.dim} is less than 2 numbers a vector")
    if config.head.windows < 2:
        raise ValueError(
            f"head.windows={config.head.windows}: a window finds another of its song; set 2"
        )
    if size < 4 or size % 2:
        raise ValueError(
            f"train.batch_size={size} is not even and at least 4: two crops of each song, and "
            "other songs to tell them from"
        )
    if config.optimizer.grad_accum_steps != 1:
        raise ValueError(
            f"optimizer.grad_accum_steps={config.optimizer.grad_accum_steps} would leave each "
            "crop fewer others to be told from; set it to 1"
        )
    if config.augment.mix_up is not None:
        raise ValueError("augment.mix_up would mix songs that are to be told apart; set it to None")
    if e.min_songs is not None and not e.kinds:
        raise ValueError(f"embed.min_songs={e.min_songs} is not used without embed.kinds; unset it")
    check_text(e)


def check_text(e):
    for name in ("max_tokens", "text_weight"):
        if e[name] is not None and e.text is None:
            raise ValueError(f"embed.{name}={e[name]} is not used without embed.text; unset it")
    if e.text is not None and e.max_tokens is None:
        raise ValueError(f"embed.max_tokens must be set for embed.text={e.text!r}; 32 is usual")
    if e.text_weight is not None and e.text_weight <= 0:
        raise ValueError(f"embed.text_weight={e.text_weight} is not above 0; unset embed.text")


def scales(e):
    """The scales and biases that learn, at their beginning: {"sound": ..., "text": ...}."""
    begin = {name: jnp.float32(value) for name, value in BEGINNINGS[e.loss].items()}
    found = {"sound": begin} if e.loss == "sigmoid" else {}
    return found | ({"text": begin} if e.text else {})


def scaled(cosines, learned, temperature=None):
    """Cosines made scores: over a temperature, or as a learned scale and bias say.  # [A, K]"""
    if learned is None:
        return cosines / temperature
    scores = cosines * jnp.exp(jnp.minimum(learned["log_scale"], LOG_SCALE_MOST))
    return scores + learned["bias"] if "bias" in learned else scores
