"""A conditional model in seconds: from labeled songs to WAVs that follow their prompts."""

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
    config = workdir.copy_and_resolve_references()
    config.sample.update(
        num_samples=4, batch_size=4, sampler="dpmpp_2m", time_grid="log_snr", nfe=8
    )
    return config


def sample_clips(config):
    """Return {name: wave} of what `sample` writes."""
    folder = pathlib.Path(config.workdir) / "samples" / "step_00000300"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.wav")}
    sample.run(config)
    new = [path for path in folder.glob("*.wav") if before.get(path) != path.stat().st_mtime_ns]
    return {path.stem: soundfile.read(path)[0] for path in sorted(new)}


def spectral_centroids(waves):
    """Return the power-weighted mean frequency of each clip, Hz."""
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
        ({"prompt": "low notes", "negative_prompt": "high notes"}, {"prompt": "high notes"}),
    ],
)
def test_clips_follow_their_condition(config, low, high):
    config.sample.guidance_scale = 3.0
    centroids = []
    for condition in (low, high):
        conditional = config.copy_and_resolve_references()
        conditional.sample.update(condition)
        centroids.append(spectral_centroids(sample_clips(conditional)))
    assert (centroids[0] < centroids[1]).all()
    assert np.median(centroids[0]) < 0.6 * np.median(centroids[1])


def test_replay_generates_the_same_bits_from_a_sidecar(config, capsys):
    config.sample.update(
        prompt="high notes", guidance_scale=3.0, guidance_rescale=0.5, num_samples=6
    )
    sampled = sample_clips(config)
    path = pathlib.Path(config.workdir) / "samples" / "step_00000300" / "high_notes-005.json"
    replay.run(str(path))
    assert "the same, bit for bit" in capsys.readouterr().err
    again, _ = soundfile.read(path.with_suffix(".replay.wav"))
    np.testing.assert_array_equal(again, sampled["high_notes-005"])
    sidecar = json.loads(path.read_text())
    assert sidecar["request"] == {"prompt": "high notes", "guidance_scale": 3.0}
    assert sorted(sidecar["inferred_labels"]["high notes"]) == sorted(HIGH)
    changed = path.with_name("changed.json")
    changed.write_text(json.dumps(sidecar | {"checkpoint_sha256": "another"}))
    with pytest.raises(ValueError, match="is not the one that it was sampled from"):
        replay.run(str(changed))
    changed.write_text(json.dumps(sidecar | {"format": 1}))
    with pytest.raises(ValueError, match="changed.json is a sidecar of format 1, this version"):
        replay.run(str(changed))
    with pytest.raises(ValueError, match="is not the .json beside a sample"):
        replay.run(str(path.with_suffix(".wav")))


def test_labels_are_inferred_from_a_prompt(config, capsys):
    config.sample.update(prompt="high notes", guidance_scale=2.0, num_samples=2)
    inferred = sample_clips(config)
    assert "prompt 'high notes' names high, high pitch, high register" in capsys.readouterr().err
    config.sample.labels = ", ".join(HIGH)
    explicit = sample_clips(config)
    config.sample.update(labels=None, infer_labels=False)
    without_labels = sample_clips(config)
    for name in inferred:
        np.testing.assert_array_equal(inferred[name], explicit[name])
        assert np.abs(inferred[name] - without_labels[name]).max() > 1e-3
    assert "names" not in capsys.readouterr().err
    for field in ("labels", "text"):
        without = config.copy_and_resolve_references()
        without.condition[field] = None if field == "text" else False
        without.sample.prompt = None
        without.sample.guidance_scale = None
        with pytest.raises(ValueError, match="infer_labels=False is not used: this model infers"):
            sample.check(without)


def test_guidance_scale_1_is_conditional_and_0_unconditional(config):
    config.sample.update(prompt="high notes", num_samples=2)
    unset = sample_clips(config)
    config.sample.guidance_scale = 1.0
    one = sample_clips(config)
    config.sample.guidance_scale = 0.0
    zero = sample_clips(config)
    config.sample.update(prompt=None, guidance_scale=None)
    unconditional = sample_clips(config)
    for a, b in ((unset, one), (zero, unconditional)):
        np.testing.assert_array_equal(list(a.values()), list(b.values()))
    assert np.abs(np.subtract(list(one.values()), list(zero.values()))).max() > 1e-3


def test_prompt_file_gives_clips_of_every_line(config, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "low notes"}\n{"labels": "high"}\n')
    config.sample.update(prompts=str(path), num_samples=2)
    expected = {"low_notes-000", "low_notes-001", "high-000", "high-001"}
    assert set(sample_clips(config)) == expected


def test_autoguidance_needs_its_checkpoint_and_is_the_identity_at_scale_1(config):
    config.sample.update(num_samples=1, batch_size=1, prompt="low notes")
    plain = sample_clips(config)
    config.sample.update(autoguidance_scale=1.0, autoguidance_step=300)
    same = list(sample_clips(config).values())
    np.testing.assert_allclose(same, list(plain.values()), atol=2 / 32768)
    config.sample.autoguidance_step = 7
    with pytest.raises(ValueError, match="7 is not among the saved steps"):
        sample.run(config)
    config.sample.autoguidance_step = None
    with pytest.raises(ValueError, match="need each other"):
        sample.run(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"labels": "middle"}, "label 'middle' is not one of the 6"),
        ({"guidance_scale": 2.0}, "sample.guidance_scale is not used without"),
        ({"prompt": "low", "guidance_interval": (0.9, 0.1)}, r"guidance_interval=\(0.9, 0.1\)"),
        ({"prompt": "low", "guidance_rescale": 2.0}, "guidance_rescale=2.0 is not between"),
    ],
)
def test_wrong_prompt_is_refused_in_one_line(config, fields, message):
    config.sample.update(fields)
    with pytest.raises(ValueError, match=message):
        sample.run(config)


def test_truncated_prompt_is_logged(config, capsys):
    config.sample.update(prompt="low\x07 notes " * 1000, num_samples=1)
    sample_clips(config)
    logged = capsys.readouterr().err
    assert "control characters are left out" in logged
    assert "only 12 tokens are read; cut after 'low notes lo'" in logged


def test_text_encoder_with_other_weights_is_refused(config):
    other = dataclasses.replace(load_letters("letters"), sha256="other")
    text_encoders.TEXT_ENCODERS["letters"] = lambda *_: other
    try:
        config.sample.prompt = "low"
        with pytest.raises(ValueError, match="has weights other, the checkpoint was trained with"):
            sample.run(config)
    finally:
        text_encoders.TEXT_ENCODERS["letters"] = load_letters


def test_unconditional_model_refuses_a_prompt(trained_nano, nano):
    nano.workdir = trained_nano
    nano.sample.prompt = "a flute"
    with pytest.raises(ValueError, match="trained without condition.text; it takes no condition"):
        sample.run(nano)
