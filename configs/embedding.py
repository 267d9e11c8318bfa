"""Vectors for search: a head on a trained diffusion backbone, or on a fresh one ("scratch").

    --config=configs/embedding.py:tiny --mode=embed --config.finetune.init_from=runs/tiny
    --config=configs/embedding.py:tiny,probe         the backbone frozen, only the head trained
    --config=configs/embedding.py:tiny,text          captions in the same space: search by words
    --config=configs/embedding.py:tiny,tags          songs of the same instruments near each other
    --config=configs/embedding.py:tiny,sigmoid       SigLIP's loss, not NT-Xent
    --config=configs/embedding.py:tiny,scratch       random initial weights
    --config=configs/embedding.py:tiny,probe,text    or several at once

then the same --config with --mode=index and --mode=search. A crop has the other songs of its
batch as negatives: make it as large as memory allows.
"""

from configs import base

WAYS = {  # way: (fields of embed, fields of head)
    "full": ({}, {}),
    "probe": ({}, {"trainable": "head", "backbone_lr_scale": None}),
    "text": ({"text": "minilm", "max_tokens": 32}, {}),
    "tags": ({"kinds": ("instrument",), "min_songs": 3}, {}),
    "sigmoid": ({"loss": "sigmoid", "temperature": None}, {}),
    "scratch": ({}, {"backbone_lr_scale": None}),
}


def get_config(chosen="base"):
    """Return the config for `--config=configs/embedding.py:SIZE` or `...:SIZE,WAY,...`."""
    size, *ways = chosen.split(",")
    config = base.get_config(size)
    config.name = "_".join(["embedding", size, *ways])
    config.workdir = f"runs/{config.name}"
    config.finetune.init_from = None if "scratch" in ways else f"runs/{size}"
    config.head.update(backbone_lr_scale=0.3, patience=10)
    for way in ways:
        if way not in WAYS:
            raise ValueError(f"configs/embedding.py: {way!r} is not one of {', '.join(WAYS)}")
        embed, head = WAYS[way]
        config.embed.update(embed)
        config.head.update(head)
    config.augment.update(gain_db=6.0, noise_db=(20.0, 60.0), low_pass_hz=(3000.0, 11_025.0))
    config.optimizer.update(learning_rate=1e-3, warmup_steps=20)
    config.optimizer.update(lr_schedule="constant", ema_decay=0.99)
    config.train.update(batch_size=32 if size == "tiny" else 16)
    config.train.update(num_epochs=None, num_steps=1000, eval_every=40, checkpoint_every=40)
    return config
