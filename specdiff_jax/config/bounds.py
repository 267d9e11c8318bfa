"""The allowed range of every number of a config. A field that is None is unset and passes."""

import math

RANGES = {  # in words: the test
    "at least 1": lambda x: x >= 1,
    "at least 0": lambda x: x >= 0,
    "above 0": lambda x: x > 0,
    "below 0": lambda x: x < 0,
    "between 0 and 0.5": lambda x: 0 <= x <= 0.5,
    "between 0 and 1": lambda x: 0 <= x <= 1,
    "between 0 and 12": lambda x: 0 <= x <= 12,
    "at least 0 and below 1": lambda x: 0 <= x < 1,
    "above 0 and below 1": lambda x: 0 < x < 1,
}
FIELDS = {
    "at least 1": (
        "representation.sample_rate",
        "representation.n_fft",
        "representation.hop",
        "representation.frames",
        "representation.n_mels",
        "representation.stats_crops",
        "schedule.steps",
        "model.width",
        "model.depth",
        "model.heads",
        "model.mlp_ratio",
        "model.bottleneck",
        "train.batch_size",
        "train.num_epochs",
        "train.num_steps",
        "train.steps_per_dispatch",
        "train.eval_every",
        "train.checkpoint_every",
        "train.max_to_keep",
        "valid.crops",
        "valid.num_noise_levels",
        "valid.baseline_crops",
        "sample.nfe",
        "sample.num_samples",
        "sample.batch_size",
        "head.pool_queries",
        "head.frozen_steps",
        "head.windows",
        "head.patience",
        "tag.min_songs",
        "embed.min_songs",
        "mesh.data",
        "mesh.fsdp",
        "profile_steps",
    ),
    "at least 0": (
        "representation.griffin_lim_iters",
        "diffusion.stft_loss_weight",
        "model.registers",
        "optimizer.learning_rate",
        "optimizer.warmup_steps",
        "optimizer.weight_decay",
        "sample.churn",
        "edit.offset",
        "edit.second_offset",
    ),
    "above 0": (
        "representation.power",
        "schedule.sigma_min",
        "schedule.rho",
        "diffusion.skip_variance",
        "diffusion.timestep_sampling_std",
        "diffusion.loss_weighting_gamma",
        "diffusion.loss_delta",
        "optimizer.clip_norm",
        "sample.seconds",
        "head.backbone_lr_scale",
    ),
    "below 0": ("representation.floor_db",),
    "between 0 and 0.5": ("augment.mix_up",),
    "between 0 and 1": (
        "augment.time_roll",
        "augment.swap",
        "augment.polarity",
        "condition.dropout",
        "condition.modality_dropout",
        "condition.token_dropout",
        "condition.label_balance",
        "sample.eta",
    ),
    "between 0 and 12": ("augment.speed_semitones",),
    "at least 0 and below 1": (
        "optimizer.b1",
        "optimizer.b2",
        "optimizer.ema_decay",
        "head.noise_level",
    ),
    "above 0 and below 1": ("schedule.beta_min", "schedule.beta_max"),
}


def check(config):
    """Raise ValueError where a number of a config is out of its range."""
    for words, names in FIELDS.items():
        for name in names:
            check_number(name, value_of(config, name), words)


def check_number(name, value, words):
    """Raise ValueError unless `value` is None or finite and what `words`, of RANGES, demand."""
    if value is not None and not (math.isfinite(value) and RANGES[words](value)):
        raise ValueError(f"{name}={value} is not {words}")


def value_of(config, name):
    """Return the value of "section.field" or "field"; None where a config has none."""
    *section, field = name.split(".")
    return (config.get(section[0], {}) if section else config).get(field)
