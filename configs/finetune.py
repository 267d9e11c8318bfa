"""Fine-tune a trained model on your songs: all parameters, the last blocks, or low-rank updates.

    --config=configs/finetune.py:tiny --config.finetune.init_from=runs/tiny
    --config=configs/finetune.py:tiny,lora                   updates of rank 8, the backbone frozen
    --config=configs/finetune.py:tiny,last_blocks            the last block and the exit

Everything else must be as in the run it begins from; a difference is refused or logged.
"""

from configs import base

WAYS = {
    "full": {},
    "last_blocks": {"last_blocks": 1},
    "gradual": {"unfreeze_every": 100, "layer_decay": 0.8},
    "lora": {"lora_rank": 8, "lora_alpha": 16.0, "lora_layers": "qkv|out/kernel|Dense"},
}


def get_config(chosen="base"):
    """Return the config for `--config=configs/finetune.py:SIZE` or `...:SIZE,WAY`."""
    size, _, way = chosen.partition(",")
    if (way or "full") not in WAYS:
        raise ValueError(f"configs/finetune.py: {way!r} is not one of {', '.join(WAYS)}")
    config = base.get_config(size)
    config.name = f"finetune_{size}" + (f"_{way}" if way else "")
    config.workdir = f"runs/{config.name}"
    config.finetune.init_from = f"runs/{size}"
    config.finetune.update(WAYS[way or "full"])
    config.optimizer.learning_rate = base.get_config(size).optimizer.learning_rate / 3
    config.optimizer.warmup_steps = 100
    config.train.update(num_epochs=None, num_steps=1000)
    return config
