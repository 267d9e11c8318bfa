"""Every config builds, and everything wrong with one is said in a line that names the field."""

import jax
import pytest

from configs import base, song_describer
from specdiff_jax.config import bounds, build
from specdiff_jax.data import collection
from specdiff_jax.sampling import check_config
from specdiff_jax.training import checkpoints


@pytest.mark.parametrize("size", ["base", "tiny"])
@pytest.mark.parametrize("shipped", [base, song_describer])
def test_configs_pass_the_check(shipped, size):
    config = shipped.get_config(size)
    check_config.check(config)
    collection.build_audio_format(config)
    assert config.workdir == f"runs/{config.name}"


def test_configs_refuse_an_unknown_size():
    with pytest.raises(ValueError, match="base and tiny"):
        base.get_config("huge")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.heads", 3, "model.heads=3 must divide model.width=256"),
        ("model.patch", (7, 8), r"model.patch=\(7, 8\) does not divide the 512 bins"),
        ("model.patch", (8, 24), "does not divide the 1024 frames"),
        ("model.block", "adaln", "did you mean 'adaln_zero'"),
        ("model.attention", "flash", "model.attention='flash' is not one of"),
        ("model.dtype", "float23", "did you mean 'float32'"),
        ("representation.kind", "log_mell", "did you mean 'log_mel'"),
        ("representation.kind", "log_mel", "representation.power=0.5 is not used by"),
        ("representation.n_mels", 64, "representation.n_mels=64 is not used by"),
        ("representation.hop", 300, "hop=300 must divide"),
        ("schedule.kind", "cosine", "schedule.beta_max=0.02 is not used by"),
        ("schedule.beta_min", None, None),
        ("diffusion.prediction", "x_0", "diffusion.prediction='x_0' is not one of x0"),
        ("diffusion.skip_variance", 0.1, None),
        ("diffusion.prediction", "edm", "prediction='edm' cannot use schedule.kind='ddpm_linear'"),
        (
            "diffusion.timestep_sampling_mean",
            0.5,
            "diffusion.timestep_sampling_mean=0.5 is not used by",
        ),
        ("diffusion.loss_weighting", "min_snrr", "did you mean 'min_snr'"),
        (
            "diffusion.loss_weighting_gamma",
            5.0,
            "diffusion.loss_weighting_gamma=5.0 is not used by",
        ),
        ("diffusion.loss_delta", 1.0, "diffusion.loss_delta=1.0 is not used by"),
        ("diffusion.stft_loss_weight", 0.1, None),
        ("model.mlp", "swiglo", "did you mean 'swiglu'"),
        ("model.norm", "layr", "did you mean 'layer'"),
        ("model.positions", "sincoss", "did you mean 'sincos'"),
        ("model.remat", "dot", "did you mean 'dots'"),
        ("optimizer.ema_rel_std", 0.1, "optimizer.ema_rel_std=0.1 is not used by"),
        ("optimizer.ema_kind", "power", "optimizer.ema_decay=0.999 is not used by"),
        ("optimizer.ema_kind", "schedule_free", "cannot go with optimizer.kind='adam'"),
        ("model.long_skips", True, None),
        ("sample.time_grid", "karas", "did you mean 'karras'"),
        ("sample.churn", 1.0, "sample.churn=1.0 is not used by"),
        ("diffusion.timestep_sampling", "discreet", "did you mean 'discrete'"),
        ("optimizer.kind", "adamm", "did you mean 'adam"),
        ("optimizer.weight_decay", 0.1, "optimizer.weight_decay=0.1 is not used by"),
        ("optimizer.lr_schedule", "cosin", "did you mean 'cosine'"),
        (
            "optimizer.grad_accum_steps",
            3,
            "optimizer.grad_accum_steps=3 must divide train.batch_size=8",
        ),
        ("train.num_steps", 7, "set one of num_steps and num_epochs"),
        ("train.steps_per_dispatch", 7, "must divide train.eval_every=50"),
        ("sample.sampler", "dimm", "did you mean 'ddim'"),
        ("sample.nfe", 0, "sample.nfe=0 is not at least 1"),
        ("train.num_steps", 0, "train.num_steps=0 is not at least 1"),
        ("train.num_epochs", -5, "train.num_epochs=-5 is not at least 1"),
        ("train.batch_size", 0, "train.batch_size=0 is not at least 1"),
        ("sample.seconds", 0.0, "sample.seconds=0.0 is not above 0"),
        ("sample.num_samples", -1, "sample.num_samples=-1 is not at least 1"),
        ("sample.eta", 2.0, "sample.eta=2.0 is not between 0 and 1"),
        ("model.depth", 0, "model.depth=0 is not at least 1"),
        ("model.patch", (0, 8), r"model.patch=\(0, 8\) is not \(bins, frames\)"),
        ("model.patch", (8,), r"model.patch=\(8,\) is not \(bins, frames\)"),
        ("model.attention", "cudnn", "model.attention='cudnn' needs an NVIDIA GPU"),
        ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate=nan is not at least 0"),
        ("optimizer.clip_norm", 0.0, "optimizer.clip_norm=0.0 is not above 0"),
        ("optimizer.ema_decay", 1.0, "optimizer.ema_decay=1.0 is not at least 0 and below 1"),
        ("schedule.beta_max", 2.0, "schedule.beta_max=2.0 is not above 0 and below 1"),
        ("representation.standardize", "bnd", "did you mean 'band'"),
        ("sample.nfe", 1001, "steps=1001 is more than the times of the schedule's T=1000"),
    ],
)
def test_check_names_the_field(field, value, message):
    config = base.get_config()
    section, name = field.split(".")
    with config[section].ignore_type():
        config[section][name] = value
    if message is None:
        check_config.check(config)
        return
    with pytest.raises(ValueError, match=message) as caught:
        check_config.check(config)
    assert "\n" not in str(caught.value)


def test_bounds_are_of_existing_fields():
    config = base.get_config()
    names = [name for names in bounds.FIELDS.values() for name in names]
    assert len(set(names)) == len(names) and set(bounds.FIELDS) <= set(bounds.RANGES)
    for name in names:
        section, _, field = name.rpartition(".")
        assert field in (config[section] if section else config), name


def test_check_refuses_conflicting_options():
    config = base.get_config()
    config.diffusion.update(prediction="eps", loss_weighting="v")
    with pytest.raises(ValueError, match="diffusion.loss_weighting='v' grows without bound"):
        check_config.check(config)
    config = base.get_config("tiny")
    config.model.long_skips = True
    with pytest.raises(ValueError, match="model.long_skips needs model.depth of 3 or more, not 2"):
        check_config.check(config)
    config = base.get_config("tiny")
    config.model.scan, config.optimizer.kind = True, "muon"
    with pytest.raises(ValueError, match="model.scan stacks matrices"):
        check_config.check(config)


def test_check_refuses_eta_without_ddim():
    config = base.get_config()
    config.sample.update(sampler="ddpm", eta=0.5)
    with pytest.raises(ValueError, match=r"sample.eta=0.5 is not used by sample.sampler='ddpm'"):
        check_config.check(config)


def test_config_is_locked_and_suggests():
    config = base.get_config().lock()
    with pytest.raises(AttributeError, match='Did you mean "learning_rate"'):
        config.optimizer.learning_rat = 1.0


def test_dtype_auto_is_what_the_backend_is_fast_in(monkeypatch):
    config = base.get_config()
    shape = build.representation(config).shape
    assert build.model(config, shape).dtype == "float32"  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert build.model(config, shape).dtype == "bfloat16"
    config.model.dtype = "float32"
    assert build.model(config, shape).dtype == "float32"


def test_resume_may_change_how_not_what_is_computed():
    saved = base.get_config().to_dict()
    wanted = base.get_config()
    wanted.model.update(attention="plain", remat="block", dtype="bfloat16")
    checkpoints.refuse_changed(saved, wanted)
    wanted.model.qk_norm = True
    with pytest.raises(ValueError, match="was trained with model.qk_norm=False, the config says"):
        checkpoints.refuse_changed(saved, wanted)
