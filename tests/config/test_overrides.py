"""Overrides that a mode ignores are errors; those equal to the checkpoint are allowed."""

import pytest

from specdiff_jax.config import overrides
from specdiff_jax.evaluation import inputs
from specdiff_jax.sampling import sample
from specdiff_jax.training import trained_model


def check(config, mode, names):
    saved = lambda: trained_model.read_saved(config.workdir)["config"]
    overrides.check(config, mode, names, saved)


@pytest.fixture
def trained(nano, trained_nano):
    nano.workdir = trained_nano
    return nano


@pytest.mark.parametrize(
    ("field", "value", "there"),
    [
        ("model.depth", 3, "2"),
        ("model.patch", (32, 8), r"\[32, 4\]"),
        ("schedule.kind", "sigmoid", "'cosine'"),
        ("diffusion.skip_variance", None, "0.08"),
    ],
)
def test_override_of_a_model_field_is_refused(trained, field, value, there):
    section, name = field.split(".")
    trained[section][name] = value
    for mode in overrides.CHECKPOINT_MODES:
        with pytest.raises(ValueError, match=f"{field}=.* by --mode={mode}: .* with {there}"):
            check(trained, mode, [field])
    check(trained, "sample", [])  # of a config file, which may be of another run
    check(trained, "train", [field])


def test_config_file_of_another_model_is_logged(trained, capsys):
    sample.load_for_sampling(trained)
    assert "was trained with" not in capsys.readouterr().err
    trained.model.update(depth=7, attention="plain")
    trained.diffusion.skip_variance = 0.5
    sample.load_for_sampling(trained)
    assert "another diffusion.skip_variance, model.depth than" in capsys.readouterr().err
    trained.model.update(width=1, heads=1, mlp="gelu")
    sample.load_for_sampling(trained)
    assert " and 2 more than the config: the checkpoint" in capsys.readouterr().err


def test_override_equal_to_the_checkpoint_is_allowed(trained):
    trained.model.attention = "plain"
    check(trained, "sample", ["model.depth", "model.patch", "model.attention", "seed"])
    result, _ = sample.load_for_sampling(trained)
    assert result.config.model.attention == "plain"


def test_edit_fields_are_refused_by_modes_that_ignore_them(nano):
    nano.edit.kind = "variation"
    for mode in ("evaluate", "prepare", "report", "sweep", "tag"):
        with pytest.raises(ValueError, match=f"edit.kind='variation' is not used by --mode={mode}"):
            check(nano, mode, [])


def test_window_overlap_without_windows_is_refused(nano):
    nano.sample.window_overlap = 0.75
    for fields in ({}, {"seconds": 0.5, "long_form": "positions"}):
        nano.sample.update(fields)
        with pytest.raises(
            ValueError, match="sample.window_overlap=0.75 is of the windows of longer"
        ):
            check(nano, "train", ["sample.window_overlap"])
    nano.sample.long_form = "windows"
    check(nano, "train", ["sample.window_overlap"])


def test_evaluate_refuses_clips_of_another_length(trained):
    trained.sample.seconds = 0.1
    with pytest.raises(ValueError, match="leave sample.seconds unset"):
        inputs.load_models(trained)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"long_form": "positions"},
            "sample.long_form='positions' is not used by clips of the trained",
        ),
        ({"guidance_scale": 3.0}, "sample.guidance_scale is not used without a prompt"),
        ({"prompt": "a flute"}, "sample.prompt is not used: this model"),
        ({"labels": "flute"}, "sample.labels is not used: this model"),
        ({"prompts": "/nowhere.jsonl"}, "there is no such file"),
    ],
)
def test_sample_fields_are_checked_before_training(nano, fields, message):
    sample.check(nano)
    nano.sample.update(fields)
    with pytest.raises(ValueError, match=message):
        sample.check(nano)


def test_edit_is_checked_against_its_file_before_training(nano, music):
    song = str(next(music.rglob("*.wav")))
    nano.edit.update(kind="inpaint", file=song, seconds=(0.1, 0.2))
    sample.check(nano)
    nano.edit.seconds = (0.1, 0.3)
    with pytest.raises(ValueError, match="not a range within 0 to 0.25"):
        sample.check(nano)
    nano.sample.update(seconds=0.5, long_form="positions")
    sample.check(nano)
