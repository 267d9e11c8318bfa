"""The base experiment with conditions: labels, captions, scalars. `:tiny` is the size for a CPU.

    --mode=sample --prompt "a slow organ chorale in a minor" --config.sample.guidance_scale=3
    --mode=sample --labels "flute, ensemble:solo" --scalars "tempo=120"

Switch off what a collection lacks:
    --config.condition.labels=False --config.condition.min_songs=None
    --config.condition.text=None --config.condition.max_tokens=None
"""

from configs import base


def get_config(size="base"):
    """Return the config for `--config=configs/conditional.py` or `...:tiny`."""
    config = base.get_config(size)
    config.name = "conditional" if size == "base" else f"conditional_{size}"
    config.workdir = f"runs/{config.name}"
    config.condition.update(
        labels=True,
        min_songs=3,
        text="minilm",
        max_tokens=32,
        cross_heads=1,
        scalars=("tempo", "start"),
        dropout=0.1,
        modality_dropout=0.4,
        token_dropout=0.7,
    )
    if size == "tiny":
        config.train.num_steps = 10500  # conditions need more steps than the music alone
    return config
