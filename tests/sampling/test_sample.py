"""A model that is asked, from labelled songs to a WAV that can be made again, in seconds."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import soundfile

from specdiff_jax.conditioning import text_encoders
from specdiff_jax.sampling import replay, sample
from tests.helpers.letters import RATE, letters, load_letters, workdir  # noqa: F401  fixtures

pytestmark = pytest.mark.slow


@pytest.fixture
def config(workdir):  # noqa: F811
    made = workdir.copy_and_resolve_references()
    made.sample.update(num_samples=4, batch_size=4, sampler="dpmpp_2m", time_grid="log_snr", nfe=8)
    return made


def clips(config):
    """{name: wave} of what `sample` writes."""
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000300"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.wav")}
    sample.run(config)
    new = [path for path in folder.glob("*.wav") if before.get(path) != path.stat().st_mtime_ns]
    return {path.stem: soundfile.read(path)[0] for path in sorted(new)}


def brightness(waves):
    """The mean frequency of what sounds, Hz, of each clip."""
    power = np.abs(np.fft.rfft(list(waves.values()))) ** 2
    return power @ np.fft.rfftfreq(next(iter(waves.values())).size, 1 / RATE) / power.sum(axis=1)


LOW, HIGH = ([kind, f"{kind} register", f"{kind} pitch"] for kind in ("low", "high"))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ({"labels": ", ".join(LOW)}, {"labels": ", ".join(HIGH)}),
        ({"prompt": "low notes"}, {"prompt": "high notes"}),
        (
            {"labels": "+low +low register +low pitch -high -high register -high pitch"},
            {"labels": "+high +high register +high pitch -low -low register -low pitch"},
        ),
        ({"prompt": "low notes", "negative": "high notes"}, {"prompt": "high notes"}),
    ],
)
def test_what_is_asked_for_is_heard(config, low, high):
    config.sample.guidance_scale = 3.0
    heard = []
    for wish in (low, high):
        asked = config.copy_and_resolve_references()
        asked.sample.update(wish)
        heard.append(brightness(clips(asked)))
    assert (heard[0] < heard[1]).all() and np.median(heard[0]) < 0.6 * np.median(heard[1])


def test_a_sidecar_is_enough_to_make_its_clip_again_bit_for_bit(config, capsys):
    config.sample.update(
        prompt="high notes", guidance_scale=3.0, guidance_rescale=0.5, num_samples=6
    )
    made = clips(config)
    path = pathlib.Path(config.workdir) / "samples" / "step_00000300" / "high_notes-005.json"
    replay.run(str(path))
    assert "the same, bit for bit" in capsys.readouterr().err
    again, _ = soundfile.read(path.with_suffix(".replay.wav"))
    np.testing.assert_array_equal(again, made["high_notes-005"])
    told = json.loads(path.read_text())
    assert told["wish"] == {"prompt": "high notes", "guidance": 3.0}
    assert sorted(told["labels_read"]["high notes"]) == sorted(HIGH)
    told["checkpoint_sha256"] = "another"
    path.with_name("forged.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="is not the one that it was made from"):
        replay.run(str(path.with_name("forged.json")))
    with pytest.raises(ValueError, match="is not the .json beside a sample"):
        replay.run(str(path.with_suffix(".wav")))


def test_a_prompt_also_asks_for_the_labels_that_it_names(config, capsys):
    config.sample.update(prompt="high notes", guidance_scale=2.0, num_samples=2)
    read = clips(config)
    assert "prompt 'high notes' names high, high pitch, high register" in capsys.readouterr().err
    config.sample.labels = ", ".join(HIGH)
    told = clips(config)
    config.sample.update(labels=None, infer_labels=False)
    deaf = clips(config)
    for name in read:
        np.testing.assert_array_equal(read[name], told[name])
        assert np.abs(read[name] - deaf[name]).max() > 1e-3
    assert "names" not in capsys.readouterr().err
    for field in ("labels", "text"):
        without = config.copy_and_resolve_references()
        without.condition[field] = None if field == "text" else False
        without.sample.prompt = None
        without.sample.guidance_scale = None
        with pytest.raises(ValueError, match="read_labels=False is not used: this model reads"):
            sample.check(without)


def test_guidance_one_is_the_conditional_model_and_zero_asks_for_nothing(config):
    config.sample.update(prompt="high notes", num_samples=2)
    plain = clips(config)
    config.sample.guidance_scale = 1.0
    one = clips(config)
    config.sample.guidance_scale = 0.0
    zero = clips(config)
    config.sample.update(prompt=None, guidance_scale=None)
    nothing = clips(config)
    for a, b in ((plain, one), (zero, nothing)):
        np.testing.assert_array_equal(list(a.values()), list(b.values()))
    assert np.abs(np.subtract(list(one.values()), list(zero.values()))).max() > 1e-3


def test_a_file_of_prompts_makes_clips_of_the_same_noise(config, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "low notes"}\n{"labels": "high"}\n')
    config.sample.update(prompts=str(path), num_samples=2)
    assert set(clips(config)) == {"low_notes-000", "low_notes-001", "high-000", "high-001"}


def test_autoguidance_needs_its_checkpoint_and_at_one_changes_nothing(config):
    config.sample.update(num_samples=1, batch_size=1, prompt="low notes")
    plain = clips(config)
    config.sample.update(autoguidance_scale=1.0, autoguidance_step=300)
    same = list(clips(config).values())
    np.testing.assert_allclose(same, list(plain.values()), atol=2 / 32768)
    config.sample.autoguidance_step = 7
    with pytest.raises(ValueError, match="7 is not among the saved steps"):
        sample.run(config)
    config.sample.autoguidance_step = None
    with pytest.raises(ValueError, match="need each other"):
        sample.run(config)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"labels": "middle"}, "label 'middle' is not one of the 6"),
        ({"guidance": 2.0}, "sample.guidance_scale is not used without"),
        ({"prompt": "low", "guidance_interval": (0.9, 0.1)}, r"guidance_interval=\(0.9, 0.1\)"),
        ({"prompt": "low", "guidance_rescale": 2.0}, "guidance_rescale=2.0 is not between"),
    ],
)
def test_a_wish_that_cannot_be_is_one_line(config, wish, message):
    config.sample.update(wish)
    with pytest.raises(ValueError, match=message):
        sample.run(config)


def test_long_and_odd_prompts_are_read_as_far_as_they_go_and_said(config, capsys):
    config.sample.update(prompt="low\x07 notes " * 1000, num_samples=1)
    clips(config)
    said = capsys.readouterr().err
    assert "control characters are left out" in said
    assert "only 12 tokens are read; cut after 'low notes lo'" in said


def test_another_encoder_than_the_trained_one_is_refused(config):
    other = dataclasses.replace(load_letters("letters"), sha256="other")
    text_encoders.TEXT_ENCODERS["letters"] = lambda *_: other
    try:
        config.sample.prompt = "low"
        with pytest.raises(ValueError, match="has weights other, the checkpoint was trained with"):
            sample.run(config)
    finally:
        text_encoders.TEXT_ENCODERS["letters"] = load_letters


def test_a_model_without_conditions_takes_no_prompt(trained_nano, nano):
    nano.workdir = trained_nano
    nano.sample.prompt = "a flute"
    with pytest.raises(ValueError, match="trained without condition.text; it takes no condition"):
        sample.run(nano)
