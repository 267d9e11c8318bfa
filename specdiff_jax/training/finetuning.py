"""config.finetune: which parameters learn, how fast and from when; pretrained.py says from what."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from specdiff_jax.models import lora

BLOCK = re.compile(r"(?:block|skip)_(\d+)")
ENTRANCE = ("patch_in", "widen", "positions", "registers", "time")
LORA = ("lora_rank", "lora_alpha", "lora_layers")
BY_DEPTH = ("last_blocks", "layer_decay", "unfreeze_every")
FIELDS = ("init_from", "refit_statistics", "trainable", *BY_DEPTH, *LORA)
UNSET = dict.fromkeys(FIELDS) | {"refit_statistics": False}


def check(config):
    """Refuses strengths that make no sense and fields that would be ignored."""
    f = config.finetune
    set_here = [name for name in FIELDS[1:] if f[name] not in (None, False)]
    if f.init_from is None and set_here:
        raise ValueError(f"finetune.{set_here[0]} does nothing without finetune.init_from; set it")
    for name in ("trainable", "lora_layers"):
        check_expression(name, f[name])
    lora_set = [name for name in LORA if f[name] is not None]
    if lora_set and len(lora_set) < len(LORA):
        raise ValueError(f"finetune: {', '.join(LORA)} need each other; set all or none")
    if f.lora_rank is not None and (f.lora_rank < 1 or f.lora_alpha <= 0):
        raise ValueError("finetune.lora_rank must be at least 1, finetune.lora_alpha above 0")
    by_depth = [name for name in BY_DEPTH if f[name] is not None]
    if by_depth and f.lora_rank is not None:
        raise ValueError(f"finetune.{by_depth[0]} is for the trunk, which LoRA holds; set one")
    if config.model.scan and (by_depth or lora_set):
        name = (by_depth + lora_set)[0]
        raise ValueError(f"finetune.{name} tells blocks apart; set model.scan=False")
    if f.layer_decay is not None and not 0 < f.layer_decay <= 1:
        raise ValueError(f"finetune.layer_decay={f.layer_decay} is not above 0 and at most 1")
    if f.last_blocks is not None and not 0 <= f.last_blocks <= config.model.depth:
        raise ValueError(f"finetune.last_blocks={f.last_blocks}: there are {config.model.depth}")
    if f.unfreeze_every is not None and f.unfreeze_every < 1:
        raise ValueError(f"finetune.unfreeze_every={f.unfreeze_every} is not at least 1 step")
    if config.optimizer.kind == "schedule_free" and set(set_here) - {"refit_statistics"}:
        raise ValueError(
            f"finetune.{set_here[0]} cannot hold what optimizer.kind='schedule_free' averages"
        )


def check_expression(name, value):
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"finetune.{name}={value!r} is no regular expression: {error}") from error


# ---- LoRA: what is trained is {"trunk": parameters, "lora": updates}


def add_lora(config, params):
    """The parameters that are trained: those given, with LoRA's updates where there are some."""
    f = config.finetune
    if f.lora_rank is None:
        return params
    key = jax.random.key(config.seed)
    return {"trunk": params, "lora": lora.init(key, params, f.lora_layers, f.lora_rank)}


def merge_lora(config, params, strength=1.0):
    """Plain weights of the network: `params`, LoRA's updates merged at a strength."""
    f = config.finetune
    if f.lora_rank is None:
        return params
    return lora.merge(params["trunk"], params["lora"], strength * f.lora_alpha / f.lora_rank)


# ---- what learns


def path_names(path):
    """The names along a path of a tree of parameters, LoRA's two branches aside."""
    found = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return found[1:] if found[0] in ("trunk", "lora") else found


def distance_from_output(path, depth):
    """How far from the output: 0 for what follows the blocks and for conditions, then a block
    each, the entrance last."""
    first = path_names(path)[0]
    if first in ENTRANCE:
        return depth + 1
    block = BLOCK.fullmatch(first)
    return depth - int(block[1]) if block else 0


def trainable(config, params):
    """Which parameters learn, a tree of bool.

    Raises:
      ValueError: finetune.trainable finds none.
    """
    f, depth = config.finetune, config.model.depth
    found = lambda path: (
        f.trainable is not None and bool(re.search(f.trainable, "/".join(path_names(path))))
    )
    near = lambda path: (
        f.last_blocks is not None and distance_from_output(path, depth) <= f.last_blocks
    )
    if f.lora_rank is not None:
        rule = lambda path, _: path[0].key == "lora" or found(path)
    elif f.trainable is None and f.last_blocks is None:
        rule = lambda path, _: True
    else:
        rule = lambda path, _: near(path) or found(path)
    if f.trainable is not None:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        if not any(map(found, paths)):
            raise ValueError(f"finetune.trainable={f.trainable!r} finds no parameter")
    return jax.tree_util.tree_map_with_path(rule, params)


def stop_frozen(config, params):
    """The parameters, those that do not learn cut off from the gradient."""
    stop = lambda x, learns: x if learns else jax.lax.stop_gradient(x)
    return jax.tree.map(stop, params, trainable(config, params))


def optimizer(config, made):
    """An optax transformation for what learns alone: nothing is kept of the rest."""
    f = config.finetune
    if f.layer_decay is not None or f.unfreeze_every is not None:
        made = optax.chain(made, by_depth(config))
    if f.trainable is None and f.last_blocks is None and f.lora_rank is None:
        return made
    kinds = {True: made, False: optax.set_to_zero()}
    return optax.multi_transform(kinds, lambda params: trainable(config, params))


class Steps(NamedTuple):
    """How many updates there were."""

    count: jax.Array


def by_depth(config):
    """Scales updates by layer_decay ** distance, from step distance * unfreeze_every on.

    (Howard & Ruder 2018, arXiv 1801.06146, sections 3.2 and 3.3.)
    """
    f, depth = config.finetune, config.model.depth
    decay, every = f.layer_decay or 1.0, f.unfreeze_every or 0

    def update(updates, state, params=None):
        def scaled(path, x):
            far = distance_from_output(path, depth)
            return x * (decay**far * (state.count >= far * every))

        moved = jax.tree_util.tree_map_with_path(scaled, updates)
        return moved, Steps(state.count + 1)

    return optax.GradientTransformation(lambda params: Steps(jnp.zeros((), jnp.int32)), update)
