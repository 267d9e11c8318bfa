"""The size of base with a 28th of its FLOPs: 5.4 million parameters, patches of 64 x 8.

    --config=configs/modern.py        as many parameters as configs/base.py, within 2 %
    --config=configs/modern.py:S      sizes of DiT; million parameters in blocks: S 31.9, B 127.6,
                                      L 453.8, XL 669.4

Songs, spectrogram and prediction of x_0 are those of base. The differences were chosen by
measurement (`python -m experiments.ablations.modern`, experiments/LOG.md): larger patches, so that
attention no longer costs five times all the rest; a time embedding that gates; rotary positions;
the loss weighting of v-prediction; x_t and the network weighted by their precisions
(skip_variance), since a token of width 256 cannot carry the 1024 numbers of its patch. The
bottleneck keeps the number of parameters of base; its effect was not measured.
"""

from configs import base

SIZES = {  # width, depth, heads; S to XL as in Peebles & Xie 2022, table 1
    "XS": (256, 4, 4),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}


def get_config(size="XS"):
    """Return the config for `--config=configs/modern.py[:SIZE]`."""
    if size not in SIZES:
        raise ValueError(f"configs/modern.py has {', '.join(SIZES)}, not {size!r}")
    config = base.get_config()
    config.name = "modern" if size == "XS" else f"modern_{size}"
    config.workdir = f"runs/{config.name}"
    width, depth, heads = SIZES[size]
    config.schedule.update(kind="cosine", steps=None, beta_min=None, beta_max=None)
    config.diffusion.update(timestep_sampling="stratified", loss_weighting="v", skip_variance=0.08)
    config.model.update(
        patch=(64, 8),
        width=width,
        depth=depth,
        heads=heads,
        block="adaln_zero",
        positions="rotary",
        time_embedding="fourier",
        mlp="swiglu",
        qk_norm=True,
        bottleneck=160 if size == "XS" else None,
    )
    config.optimizer.update(
        kind="adamw",
        learning_rate=1e-3,
        warmup_steps=100,
        lr_schedule="cosine",
        b2=0.95,
        weight_decay=0.01,
        clip_norm=1.0,
    )
    config.sample.update(sampler="dpmpp_2m", time_grid="karras", nfe=20)
    return config
