"""config.finetune: which parameters are trainable, how fast and from when; LoRA."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from specdiff_jax.models import lora

BLOCK = re.compile(r"(?:block|skip)_(\d+)")
INPUT_LAYERS = ("patch_in", "widen", "positions", "registers", "time")
LORA = ("lora_rank", "lora_alpha", "lora_layers")
BY_DEPTH = ("last_blocks", "layer_decay", "unfreeze_every")
FIELDS = ("init_from", "refit_statistics", "trainable", *BY_DEPTH, *LORA)
UNSET = dict.fromkeys(FIELDS) | {"refit_statistics": False}


def check(config):
    """Refuse strengths that make no sense and fields that would be ignored."""
    f = config.finetune
    set_fields = [name for name in FIELDS[1:] if f[name] not in (None, False)]
    if f.init_from is None and set_fields:
        raise ValueError(
            f"finetune.{set_fields[0]} does nothing without finetune.init_from; set it"
        )
    for name in ("trainable", "lora_layers"):
        check_expression(name, f[name])
    lora_set = [name for name in LORA if f[name] is not None]
    if lora_set and len(lora_set) < len(LORA):
        raise ValueError(f"finetune: {', '.join(LORA)} need each other; set all or none")
    if f.lora_rank is not None and (f.lora_rank < 1 or f.lora_alpha <= 0):
        raise ValueError("finetune.lora_rank must be at least 1, finetune.lora_alpha above 0")
    by_depth = [name for name in BY_DEPTH if f[name] is not None]
    if by_depth and f.lora_rank is not None:
        raise ValueError(f"finetune.{by_depth[0]} is for the backbone, which LoRA freezes; set one")
    if config.model.scan and (by_depth or lora_set):
        name = (by_depth + lora_set)[0]
        raise ValueError(f"finetune.{name} needs blocks by name; set model.scan=False")
    if f.layer_decay is not None and not 0 < f.layer_decay <= 1:
        raise ValueError(f"finetune.layer_decay={f.layer_decay} is not above 0 and at most 1")
    if f.last_blocks is not None and not 0 <= f.last_blocks <= config.model.depth:
        raise ValueError(f"finetune.last_blocks={f.last_blocks}: there are {config.model.depth}")
    if f.unfreeze_every is not None and f.unfreeze_every < 1:
        raise ValueError(f"finetune.unfreeze_every={f.unfreeze_every} is not at least 1 step")
    if config.optimizer.kind == "schedule_free" and set(set_fields) - {"refit_statistics"}:
        raise ValueError(
            f"finetune.{set_fields[0]} cannot freeze what optimizer.kind='schedule_free' averages"
        )


def check_expression(name, value):
    """Raise ValueError unless a field is a regular expression or unset."""
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"finetune.{name}={value!r} is no regular expression: {error}") from error


# ---- LoRA: the train state holds {"backbone": parameters, "lora": updates}


def add_lora(config, params):
    """Return the parameters of the train state: those given, and LoRA's updates if any."""
    f = config.finetune
    if f.lora_rank is None:
        return params
    key = jax.random.key(config.seed)
    return {"backbone": params, "lora": lora.init(key, params, f.lora_layers, f.lora_rank)}


def merge_lora(config, params, scale=1.0):
    """Return plain weights of the network: `params` with LoRA's updates times `scale` added."""
    f = config.finetune
    if f.lora_rank is None:
        return params
    return lora.merge(params["backbone"], params["lora"], scale * f.lora_alpha / f.lora_rank)


# ---- which parameters are trainable


def path_names(path):
    """Return the names along a path of parameters, LoRA's two branches left out."""
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return names[1:] if names[0] in ("backbone", "lora") else names


def distance_from_output(path, depth):
    """Return 0 for conditions and what follows the blocks, then one more a block; inputs last."""
    first = path_names(path)[0]
    if first in INPUT_LAYERS:
        return depth + 1
    block = BLOCK.fullmatch(first)
    return depth - int(block[1]) if block else 0


def trainable(config, params):
    """Return which parameters are trainable, a tree of bool.

    Raises:
      ValueError: finetune.trainable matches none.
    """
    f, depth = config.finetune, config.model.depth
    matches = lambda path: (
        f.trainable is not None and bool(re.search(f.trainable, "/".join(path_names(path))))
    )
    near = lambda path: (
        f.last_blocks is not None and distance_from_output(path, depth) <= f.last_blocks
    )
    if f.lora_rank is not None:
        rule = lambda path, _: path[0].key == "lora" or matches(path)
    elif f.trainable is None and f.last_blocks is None:
        rule = lambda path, _: True
    else:
        rule = lambda path, _: near(path) or matches(path)
    if f.trainable is not None:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        if not any(map(matches, paths)):
            raise ValueError(f"finetune.trainable={f.trainable!r} matches no parameter")
    return jax.tree_util.tree_map_with_path(rule, params)


def stop_frozen(params, trainable):
    """Return the parameters, the frozen ones cut off from the gradient.

    Args:
      trainable: a tree of bool.
    """
    stop = lambda x, trained: x if trained else jax.lax.stop_gradient(x)
    return jax.tree.map(stop, params, trainable)


def only_trainable(tx, trainable):
    """Return an optax transformation of the trainable parameters; it keeps no state of the rest.

    Args:
      trainable: params -> a tree of bool.
    """
    return optax.multi_transform({True: tx, False: optax.set_to_zero()}, trainable)


def optimizer(config, tx):
    """Return an optax transformation for what config.finetune makes trainable."""
    f = config.finetune
    if f.layer_decay is not None or f.unfreeze_every is not None:
        tx = optax.chain(tx, scale_by_depth(config))
    if f.trainable is None and f.last_blocks is None and f.lora_rank is None:
        return tx
    return only_trainable(tx, lambda params: trainable(config, params))


class UpdateCount(NamedTuple):
    """How many updates there were."""

    count: jax.Array


def scale_updates(scale):
    """Return an optax transformation that multiplies each update by scale(path, count).

    Args:
      scale: (path of a parameter, updates so far) -> a number.
    """

    def update(updates, state, params=None):
        scaled = lambda path, x: x * scale(path, state.count)
        updates = jax.tree_util.tree_map_with_path(scaled, updates)
        return updates, UpdateCount(state.count + 1)

    init = lambda params: UpdateCount(jnp.zeros((), jnp.int32))
    return optax.GradientTransformation(init, update)


def scale_by_depth(config):
    """Scale updates by layer_decay ** distance, from step distance * unfreeze_every on.

    (Howard & Ruder 2018, arXiv 1801.06146, sections 3.2 and 3.3.)
    """
    f, depth = config.finetune, config.model.depth
    decay, every = f.layer_decay or 1.0, f.unfreeze_every or 0

    def scale(path, count):
        distance = distance_from_output(path, depth)
        return decay**distance * (count >= distance * every)

    return scale_updates(scale)
