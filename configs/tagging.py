"""A tagger: a head on a trained diffusion backbone, or on a fresh one ("scratch").

    --config=configs/tagging.py:tiny --mode=tag --config.finetune.init_from=runs/tiny
    --config=configs/tagging.py:tiny,probe           the backbone frozen, only the head trained
    --config=configs/tagging.py:tiny,gradual         the backbone frozen at first
    --config=configs/tagging.py:tiny,scratch         random initial weights

Everything else must be as in the run it begins from; a difference is refused or logged.
"""

from configs import base

WAYS = {
    "full": {"backbone_lr_scale": 0.3},
    "probe": {"trainable": "head"},
    "gradual": {"trainable": "head_first", "frozen_steps": 100, "backbone_lr_scale": 0.3},
    "scratch": {},
}


def get_config(chosen="base"):
    """Return the config for `--config=configs/tagging.py:SIZE` or `...:SIZE,WAY`."""
    size, _, way = chosen.partition(",")
    if (way or "full") not in WAYS:
        raise ValueError(f"configs/tagging.py: {way!r} is not one of {', '.join(WAYS)}")
    config = base.get_config(size)
    config.name = f"tagging_{size}" + (f"_{way}" if way else "")
    config.workdir = f"runs/{config.name}"
    config.finetune.init_from = None if way == "scratch" else f"runs/{size}"
    config.tag.update(kinds=("instrument",), class_balance=0.5)
    config.head.update(patience=10)
    config.head.update(WAYS[way or "full"])
    config.optimizer.update(learning_rate=1e-3, warmup_steps=20)
    config.optimizer.update(lr_schedule="constant", ema_decay=0.99)
    config.train.update(num_epochs=None, num_steps=1000, eval_every=40, checkpoint_every=40)
    return config
