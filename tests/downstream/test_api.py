"""The Python API gives what the command line gives."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import specdiff_jax
from specdiff_jax.downstream import embedders
from specdiff_jax.evaluation.embedders.embedder import embed_windows
from specdiff_jax.sampling import sample
from specdiff_jax.training import export, trained_model


@pytest.fixture(scope="module")
def model(trained_nano):
    return specdiff_jax.load(trained_nano)


def test_sample_equals_the_files_of_mode_sample(model, nano, trained_nano):
    nano.workdir = trained_nano
    nano.sample.update(seed=3, num_samples=2)
    sample.run(nano)
    waves = model.sample(num_samples=2, seed=3)
    assert waves.shape == (2, 1, model.trained.rep.samples) and waves.dtype == np.float32
    for k, wave in enumerate(waves):
        path = pathlib.Path(trained_nano) / "samples" / "step_00000006" / f"{k:03d}.wav"
        np.testing.assert_allclose(soundfile.read(path)[0], wave[0], atol=1 / 32768)


def test_sample_k_is_the_same_for_any_number_and_compiles_once(model):
    four, one = model.sample(num_samples=4, nfe=3), model.sample(num_samples=1, nfe=3)
    np.testing.assert_allclose(four[:1], one, atol=1e-5)
    programs = len(model.programs.programs)
    model.sample(num_samples=1, nfe=3, seed=9)
    assert len(model.programs.programs) == programs


def test_sample_has_the_requested_length(model):
    seconds = 1.5 * model.seconds
    waves = model.sample(num_samples=1, seconds=seconds, nfe=2)
    assert waves.shape[-1] == round(seconds * model.sample_rate)


def test_denoise_equals_the_denoiser_and_keeps_x_t(model):
    x_t = np.random.default_rng(0).standard_normal((2, *model.trained.rep.shape), np.float32)
    x_0, eps = model.denoise(x_t, 0.4)
    alpha, sigma = (
        float(f(0.4)) for f in (model.trained.schedule.alpha, model.trained.schedule.sigma)
    )
    np.testing.assert_allclose(alpha * x_0 + sigma * eps, x_t, atol=1e-4)
    expected, _ = jax.jit(model.trained.denoiser().denoise)(x_t, jnp.full(2, 0.4))
    np.testing.assert_allclose(x_0, expected, atol=1e-5)


def test_encode_takes_waves_of_any_form_and_decode_gives_channels(model):
    rep = model.trained.rep
    wave = np.random.default_rng(0).standard_normal(rep.samples).astype(np.float32) / 4
    expected = rep.encode(wave[None])
    for form in (wave, wave[None], wave[None, None]):
        np.testing.assert_array_equal(model.encode(form), expected)
    np.testing.assert_array_equal(model.decode(expected)[:, 0], rep.decode(expected))


def test_embed_equals_the_embedder_of_the_backbone(model, trained_nano):
    embedder = embedders.load(f"backbone:{trained_nano}")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, embedder.window)).astype(np.float32)
    vectors = model.embed(wave)
    np.testing.assert_allclose(vectors, embed_windows(embedder, wave), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_tag_refuses_a_model_without_tags(model):
    with pytest.raises(ValueError, match="has no tags; load a run of --mode=tag"):
        model.tag(np.zeros(100))


def test_load_takes_a_step_and_an_export(nano, trained_nano, model):
    nano.workdir = trained_nano
    export.run(nano)
    folder = pathlib.Path(trained_nano) / "export" / "step_00000006"
    for place in (f"{trained_nano}@6", folder):
        other = specdiff_jax.load(place)
        jax.tree.map(np.testing.assert_array_equal, other.trained.params, model.trained.params)
    plain = trained_model.load(trained_nano, ema=False)
    other = specdiff_jax.load(trained_nano, ema=False)
    jax.tree.map(np.testing.assert_array_equal, other.trained.params, plain.params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": "a flute"}, "trained without condition.text"),
        ({"guidance_scale": 3.0}, "guidance_scale=3.0 is not used without prompts"),
        ({"steps": 3}, "sample has no field 'steps'"),
        ({"sampler": "hein"}, "did you mean 'heun'"),
    ],
)
def test_sample_names_what_it_cannot_do(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.sample(**options)


def test_import_of_the_package_is_light():
    code = "import sys, specdiff_jax; assert 'jax' not in sys.modules and 'flax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
