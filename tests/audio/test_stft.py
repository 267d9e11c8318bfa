"""The STFT: librosa's, and exactly undone."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from specdiff_jax.audio.stft import istft, num_frames, num_samples, stft
from tests.helpers import synth


@pytest.mark.parametrize("samples", [1, 255, 256, 4000, 16 * 256, 16 * 256 + 17])
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (512, 256), (512, 64)])
def test_stft_equals_librosa(samples, n_fft, hop):
    wave = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    ours = np.asarray(stft(wave[None], n_fft, hop)[0])
    padded = librosa.stft(wave, n_fft=n_fft, hop_length=hop, center=True, pad_mode="constant")
    assert ours.shape == (n_fft // 2 + 1, num_frames(samples, hop))
    np.testing.assert_allclose(ours, padded, atol=2e-4)


@pytest.mark.parametrize("samples", [100, 4000, 16 * 256, 16 * 256 + 17])
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (512, 256), (512, 64)])
def test_istft_undoes_stft_on_every_sample(samples, n_fft, hop):
    wave = np.random.default_rng(1).normal(size=(2, samples)).astype(np.float32)
    back = istft(stft(wave, n_fft, hop), n_fft, hop, samples)
    np.testing.assert_allclose(back, wave, atol=2e-5)


def test_base_crop_fills_its_frames_exactly():
    assert num_samples(1024, 256) == 261_888
    assert num_frames(261_888, 256) == 1024 and num_frames(261_887, 256) == 1023


def test_a_tone_peaks_in_its_bin():
    rate, n_fft = 8000, 1024
    spec = np.abs(stft(synth.harmonics(1000.0, 1.0, rate, partials=1)[None], n_fft, 256)[0])
    assert (spec[:, 4:-4].argmax(axis=0) == round(1000 * n_fft / rate)).all()


def test_a_chirp_climbs_at_its_rate():
    spec = np.abs(stft(synth.chirp(500.0, 3000.0, 2.0, 8000)[None], 512, 128)[0])
    peaks = spec[:, 4:-4].argmax(axis=0) * 8000 / 512
    times = np.arange(4, spec.shape[1] - 4) * 128 / 8000
    np.testing.assert_allclose(peaks, 500 + 1250 * times, atol=16)


def test_gradients_flow_through_the_round_trip():
    wave = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2048)), jnp.float32)
    loss = lambda w: jnp.sum(istft(stft(w, 512, 128), 512, 128, 2048) ** 2) / 2
    np.testing.assert_allclose(jax.grad(loss)(wave), wave, atol=1e-4)  # the identity's gradient


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 300), (512, 512), (511, 73)])
def test_framings_with_holes_are_refused(n_fft, hop):
    with pytest.raises(ValueError, match="must divide"):
        stft(np.zeros((1, 4096), np.float32), n_fft, hop)


def test_samples_outside_the_frames_are_refused():
    spec = stft(np.zeros((1, 1024), np.float32), 512, 128)
    with pytest.raises(ValueError, match="length"):
        istft(spec, 512, 128, 9 * 128)
