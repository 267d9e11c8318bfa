"""Named changes of the base experiment, one question each; commas combine them.

    --config=configs/ablations.py:v_prediction,cosine        over the base
    --config=configs/ablations.py:v_prediction:tiny          over the same cut for a CPU

`python -m experiments.ablations` trains names x seeds and writes the table.
"""

from configs import base


def control(config):
    """What is the error of the unchanged experiment?"""


def eps_prediction(config):
    """Is the noise easier to predict than the music (Ho et al. 2020)?"""
    config.diffusion.update(prediction="eps", skip_variance=None, loss_weighting="target")


def v_prediction(config):
    """Is v easier to predict than the music (Salimans & Ho 2022)?"""
    config.diffusion.update(prediction="v", skip_variance=None, loss_weighting="target")


def plain_x0(config):
    """How much does the blend with the noisy input reduce the error?"""
    config.diffusion.update(prediction="x0", skip_variance=None)


def v_loss(config):
    """Predict x_0, but weight its error as v-prediction does?"""
    config.diffusion.loss_weighting = "v"


def x0_loss(config):
    """Predict x_0, and weight its error equally at every noise level?"""
    config.diffusion.loss_weighting = "target"


def min_snr(config):
    """Weight the x_0 error by the signal-to-noise ratio, up to five (Hang et al. 2023)?"""
    config.diffusion.loss_weighting = "min_snr"


def sigmoid_weight(config):
    """Weight by a logistic curve in log_snr (Kingma & Gao 2023)?"""
    config.diffusion.loss_weighting = "sigmoid"


def huber(config):
    """Does the Huber loss help, which is linear in large errors?"""
    config.diffusion.loss = "huber"


def cosine(config):
    """Less time near pure noise (Nichol & Dhariwal 2021)?"""
    unset_schedule(config)
    config.schedule.kind = "cosine"


def ddpm_linear(config):
    """More time near pure noise, as in the slides?"""
    unset_schedule(config)
    config.schedule.update(kind="ddpm_linear", steps=1000, beta_min=1e-4, beta_max=0.02)


def sigmoid(config):
    """alpha_bar along a logistic curve (Jabri et al. 2022)?"""
    unset_schedule(config)
    config.schedule.kind = "sigmoid"


def rectified_flow(config):
    """Straight lines between noise and music, their velocity predicted (Liu et al. 2022)?"""
    unset_schedule(config)
    config.schedule.kind = "rectified_flow"
    config.diffusion.update(prediction="velocity", skip_variance=None, loss_weighting="target")


def edm(config):
    """EDM's schedule, preconditioning, weight and times (Karras et al. 2022)?"""
    unset_schedule(config)
    config.schedule.kind = "edm"
    config.diffusion.update(prediction="edm", skip_variance=None, loss_weighting="target")
    config.diffusion.timestep_sampling = "log_normal"


def uniform_times(config):
    """How much do stratified times reduce the error?"""
    config.diffusion.timestep_sampling = "uniform"


def more_noise(config):
    """Shift log_snr by -1: more noise at every t (Hoogeboom et al. 2023)?"""
    config.schedule.log_snr_shift = -1.0


def less_noise(config):
    """Shift log_snr by +1?"""
    config.schedule.log_snr_shift = 1.0


def wide_patches(config):
    """Patches of half the bins and twice the frames?"""
    bins, frames = config.model.patch
    config.model.patch = (bins // 2, frames * 2)


def longer_patches(config):
    """Half as many tokens, each of twice the frames, at equal compute?"""
    bins, frames = config.model.patch
    config.model.patch = (bins, frames * 2)


def shorter_patches(config):
    """Twice as many tokens, each of half the frames, at equal compute?"""
    bins, frames = config.model.patch
    config.model.patch = (bins, frames // 2)


def log_magnitude(config):
    """Linear frequencies instead of mel bands?"""
    config.representation.update(
        kind="log_magnitude", n_mels=None, power=None, floor_db=-80.0, griffin_lim_iters=60
    )
    config.model.patch = (config.representation.n_fft // 2, config.model.patch[1])


def pre_ln(config):
    """Time embedding added to the tokens instead of gating each branch?"""
    config.model.block = "pre_ln"


def adaln_zero(config):
    """Time embedding that gates each branch (Peebles & Xie 2022)?"""
    config.model.block = "adaln_zero"


def learned_positions(config):
    """A learned table of positions?"""
    config.model.positions = "learned"


def sincos_positions(config):
    """Fixed sinusoids added to the tokens?"""
    config.model.positions = "sincos"


def gelu(config):
    """A plain MLP of the same size?"""
    config.model.mlp = "gelu"


def swiglu(config):
    """A gated MLP of the same size (Shazeer 2020)?"""
    config.model.mlp = "swiglu"


def rms_norm(config):
    """Norms without a mean?"""
    config.model.norm = "rms"


def free_scores(config):
    """Queries and keys without norms?"""
    config.model.qk_norm = False


def qk_norm(config):
    """Normalized queries and keys?"""
    config.model.qk_norm = True


def registers(config):
    """Eight register tokens (Darcet et al. 2023)?"""
    config.model.registers = 8


def bottleneck(config):
    """Patches through 128 numbers first (Li & He 2025)?"""
    config.model.bottleneck = 128


def long_skips(config):
    """Skips from the first half of the blocks to the second (Bao et al. 2022)?"""
    config.model.update(long_skips=True, depth=max(3, config.model.depth))


def bfloat16(config):
    """Does the precision of a GPU cost quality?"""
    config.model.dtype = "bfloat16"


def adam(config):
    """No weight decay?"""
    config.optimizer.update(kind="adam", weight_decay=None)


def muon(config):
    """Orthogonal updates of matrices (Jordan et al. 2024), as large as AdamW's?"""
    config.optimizer.update(kind="muon", weight_decay=0.01)


def half_rate(config):
    """Half the learning rate?"""
    config.optimizer.learning_rate /= 2


def double_rate(config):
    """Twice the learning rate?"""
    config.optimizer.learning_rate *= 2


def schedule_free(config):
    """No schedule, but the average of the optimizer (Defazio et al. 2024)?"""
    config.optimizer.update(kind="schedule_free", lr_schedule="constant", weight_decay=0.01)
    config.optimizer.update(ema_kind="schedule_free", ema_decay=None)


def no_ema(config):
    """How much does the EMA reduce the error?"""
    config.optimizer.ema_decay = 0.0


def short_ema(config):
    """An EMA over ten times fewer steps?"""
    config.optimizer.ema_decay = 0.99


def power_ema(config):
    """An EMA over a twentieth of the run (Karras et al. 2023)?"""
    config.optimizer.update(ema_kind="power", ema_decay=None, ema_rel_std=0.05)


def unset_schedule(config):
    """Unset the fields that only the previous schedule uses."""
    fields = [name for name in config.schedule if name not in ("kind", "log_snr_shift")]
    config.schedule.update(dict.fromkeys(fields))
    if config.diffusion.timestep_sampling == "discrete":
        config.diffusion.timestep_sampling = "stratified"


HELPERS = ("get_config", "unset_schedule", "names")


def names():
    """Return {name: the function that makes the change}."""
    own = {k: v for k, v in globals().items() if callable(v) and v.__module__ == __name__}
    return {name: function for name, function in own.items() if name not in HELPERS}


def get_config(spec="control"):
    """Return the config of `NAME[,NAME...][:SIZE]`, SIZE base or tiny."""
    chosen, _, size = spec.partition(":")
    config, changes = base.get_config(size or "base"), names()
    for name in chosen.split(","):
        if name not in changes:
            raise ValueError(f"configs/ablations.py has no {name!r}; it has {', '.join(changes)}")
        changes[name](config)
    config.name = "_".join([*chosen.split(","), size or "base"])
    config.workdir = f"runs/ablations/{config.name}"
    return config
