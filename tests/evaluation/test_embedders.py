"""Embedders against TensorFlow, librosa and written-out layers; laws of windows and batches."""

import dataclasses
import io
import pathlib
import zipfile

import jax
import numpy as np
import pytest

from specdiff_jax.evaluation import embedders
from specdiff_jax.evaluation.embedders import embedder, logmel, musicnn, tf_checkpoint
from specdiff_jax.runtime import wheels
from tests.helpers import synth

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "musicnn.npz"


@pytest.fixture(scope="session")
def weights():
    """Return the weights of musicnn; its wheel is fetched once into the user's cache."""
    try:
        return musicnn.load_weights()
    except ValueError as error:
        if "could not be fetched" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(params=["musicnn", "logmel"])
def model(request):
    if request.param == "musicnn":
        request.getfixturevalue("weights")
    return embedders.load_embedder(request.param)


@pytest.fixture(scope="module")
def clips():
    """Return six clips of chords, 2.5 s at 16 kHz.  # [6, N]"""
    roots = 110 * 2 ** (2 * np.random.default_rng(0).random((6, 5)))
    return np.stack([synth.chords(row, 0.5, 16000) for row in roots])


def varint(number):
    low = [number & 127] if number < 128 else [number & 127 | 128, *varint(number >> 7)]
    return bytes(low)


def field(number, value):
    """Return one field of a protocol buffer, of an int or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def bundle(tensors, compression=0):
    """Return (index, data) as TensorFlow's tensor_bundle writes them, two entries a block."""
    data = b"".join(x.tobytes() for x in tensors.values())
    entries, at = [(b"", field(1, 1))], 0
    for name, x in tensors.items():
        shape = b"".join(field(2, field(1, size)) for size in x.shape)
        kind = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}[str(x.dtype)]
        place = field(4, at) + field(5, x.nbytes) + varint(6 << 3 | 5) + b"\0\0\0\0"
        entries.append((name.encode(), field(1, kind) + field(2, shape) + place))
        at += x.nbytes
    index, places = b"", []

    def add(pairs):
        nonlocal index
        content, before = b"", b""
        for key, value in pairs:
            shared = len(pathlib.os.path.commonprefix([before, key]))
            content += varint(shared) + varint(len(key) - shared) + varint(len(value))
            content += key[shared:] + value
            before = key
        content += (0).to_bytes(4, "little") + (1).to_bytes(4, "little")  # one restart
        place = varint(len(index)) + varint(len(content))
        index += content + bytes([compression]) + b"\0\0\0\0"
        return place

    for i in range(0, len(entries), 2):
        places.append((entries[min(i + 1, len(entries) - 1)][0], add(entries[i : i + 2])))
    footer = add([]) + add(places)
    return index + footer.ljust(40, b"\0") + tf_checkpoint.MAGIC.to_bytes(8, "little"), data


TENSORS = {
    "dense/bias": np.arange(3, dtype=np.float32),
    "dense/kernel": np.arange(600, dtype=np.float64).reshape(2, 300),
    "dense_1/kernel": np.arange(-4, 4, dtype=np.int32).reshape(2, 2, 2),
    "step": np.array(1 << 40, np.int64),
}


def test_read_tensors_returns_the_written_tensors():
    read = tf_checkpoint.read_tensors(*bundle(TENSORS))
    assert list(read) == list(TENSORS)
    for name, x in TENSORS.items():
        assert read[name].dtype == x.dtype and read[name].shape == x.shape
        np.testing.assert_array_equal(read[name], x)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda index, data: (index, data[:-1]), "does not fit its data"),
        (lambda index, data: (index[:-1], data), "no index"),
        (lambda index, data: (b"", data), "no index"),
        (lambda index, data: bundle(TENSORS, compression=1), "compressed"),
    ],
)
def test_damaged_bundle_is_refused(damage, message):
    with pytest.raises(ValueError, match=message):
        tf_checkpoint.read_tensors(*damage(*bundle(TENSORS)))


def test_musicnn_equals_the_original(weights):
    """GOLDEN holds the output of the original for these four patches.

    Computed with tensorflow-cpu 2.21.0 and tf_keras, on a CPU: `models.define_model(x, False,
    'MTT_musicnn', 50)` of the musicnn 0.1.0 wheel, its checkpoint restored, float32.
    """
    k, t, f = np.ogrid[1:5, :187, :96]
    patches = 1.5 + np.sin(0.07 * k * t) + np.cos(0.13 * k * f + 0.01 * t * (k - 1))
    ours = jax.jit(musicnn.network)(weights, patches.clip(0).astype(np.float32))
    theirs = np.load(GOLDEN)
    np.testing.assert_allclose(ours[0], theirs["penultimate"], atol=2e-5)
    np.testing.assert_allclose(ours[1], theirs["tags"], atol=2e-6)


def test_musicnn_spectrogram_equals_librosa():
    import librosa

    wave = np.random.default_rng(1).normal(size=musicnn.WINDOW).astype(np.float32) / 10
    power = librosa.feature.melspectrogram(y=wave, sr=16000, n_fft=512, hop_length=256, n_mels=96)
    ours = musicnn.log_mel_spectrogram(wave[None])[0]
    np.testing.assert_allclose(ours, np.log10(10000 * power + 1).T[:187], atol=2e-5)


@pytest.mark.parametrize("frames", [4, 7])
def test_conv_layer_equals_the_written_out_convolution(frames):
    rng = np.random.default_rng(2)
    kernel, x = rng.normal(size=(frames, 3, 1, 5)), rng.normal(size=(2, 10, 8))
    kinds = ("gamma", "beta", "moving_mean", "moving_variance")
    norm = {kind: rng.random(5) + 0.5 for kind in kinds}
    bias = rng.normal(size=5)
    weights = {f"batch_normalization_3/{kind}": v for kind, v in norm.items()}
    weights |= {"conv2d_2/kernel": kernel, "conv2d_2/bias": bias}
    ours = musicnn.conv_layer({n: v.astype(np.float32) for n, v in weights.items()}, 2, x)
    before = (frames - 1) // 2  # TensorFlow's "same": the odd frame of padding comes last
    padded = np.pad(x, ((0, 0), (before, frames - 1 - before), (0, 0)))
    for t, f in np.ndindex(10, 6):
        piece = padded[:, t : t + frames, f : f + 3].reshape(2, -1)
        hidden = np.maximum(piece @ kernel.reshape(-1, 5) + bias[None], 0)
        hidden = (hidden - norm["moving_mean"][None]) / np.sqrt(norm["moving_variance"] + 1e-3)[
            None
        ]
        expected = hidden * norm["gamma"][None] + norm["beta"][None]
        np.testing.assert_allclose(ours[:, t, f], expected, atol=2e-5)


def test_embedding_of_a_window_depends_on_no_other_window(model, clips):
    rate = model.sample_rate
    together = embedder.embed_clips(model, clips, rate)
    assert together.shape == (6, 1, model.width)
    many = embedder.embed_clips(model, np.concatenate([clips[::-1]] * 2), rate)  # two batches
    np.testing.assert_allclose(many[-6:], together[::-1], atol=2e-5)
    assert np.ptp(together, axis=0).max() > 0.1


def test_embedding_of_a_long_clip_has_a_vector_for_each_window(model):
    wave = np.random.default_rng(3).normal(size=2 * model.window).astype(np.float32) / 10
    wave[model.window :] *= np.sin(np.arange(model.window) / 900)
    long = embedder.embed_clips(model, wave[None], model.sample_rate)
    alone = embedder.embed_clips(model, wave.reshape(2, -1), model.sample_rate)
    np.testing.assert_allclose(long[0], alone[:, 0], atol=2e-5)
    assert np.abs(long[0, 0] - long[0, 1]).max() > 0.1


@pytest.mark.parametrize(
    "length, starts", [(10, [0]), (14, [0]), (15, [0, 5]), (20, [0, 10]), (27, [0, 10, 17])]
)
def test_split_windows_are_adjacent_and_the_last_ends_with_the_clip(length, starts):
    wave = np.arange(length)
    np.testing.assert_array_equal(embedder.split_windows(wave, 10)[:, 0], starts)


def test_split_windows_repeats_a_short_clip():
    (window,) = embedder.split_windows(np.arange(4), 10)
    np.testing.assert_array_equal(window, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])


def test_embedder_distance_grows_with_noise(model, clips):
    rng = np.random.default_rng(4)
    clean = embedder.embed_clips(model, clips, 16000).mean(axis=(0, 1))
    noise = rng.normal(size=clips.shape).astype(np.float32) * clips.std()
    away = []
    for decibels in (40, 20, 0):
        noisy = clips + noise * 10 ** (-decibels / 20)
        away.append(
            np.linalg.norm(embedder.embed_clips(model, noisy, 16000).mean(axis=(0, 1)) - clean)
        )
    assert away == sorted(away) and away[-1] > 1.5 * away[0]


def test_logmel_level_rises_by_one_at_ten_times_the_gain():
    noise = np.random.default_rng(5).normal(size=(1, 65280)).astype(np.float32)
    soft, loud = (np.split(logmel.logmel_statistics(gain * noise)[0], 3) for gain in (1, 10))
    np.testing.assert_allclose(loud[0] - soft[0], 1, atol=2e-3)
    np.testing.assert_allclose(loud[1:], soft[1:], atol=2e-3)


def test_embed_clips_resamples_to_the_rate_of_the_embedder():
    time = np.arange(3 * 44100) / 44100
    wave = sum(np.sin(2 * np.pi * hz * time) for hz in (220, 554, 1319)).astype(np.float32) / 4
    model = embedders.load_embedder("logmel")
    double, single = embedder.embed_clips(model, wave[None], 44100), wave[None, ::2]
    np.testing.assert_allclose(double, embedder.embed_clips(model, single, 22050), atol=0.02)


def test_embed_clips_refuses_a_clip_that_is_not_finite_by_its_index():
    waves = np.zeros((3, 100))
    waves[1, 7] = np.nan
    with pytest.raises(ValueError, match="clip 1 holds"):
        embedder.embed_clips(embedders.load_embedder("logmel"), waves, 22050)
    with pytest.raises(ValueError, match=r"not an array of shape \(100,\)"):
        embedder.embed_clips(embedders.load_embedder("logmel"), waves[0], 22050)


@pytest.mark.parametrize("name", ["vggish", "", "musicnn:big", "path", "path:", "logmel:64"])
def test_unknown_embedder_is_refused(name):
    with pytest.raises(ValueError, match="is unknown: 'musicnn', 'logmel'"):
        embedders.load_embedder(name)


def test_weights_of_another_hash_are_refused(tmp_path):
    wheel = dataclasses.replace(musicnn.WHEEL, module="musicnn_elsewhere", cache=tmp_path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{wheel.module}/{musicnn.DATA}", b"other weights")
    for damaged in (content.getvalue(), content.getvalue()[:50]):
        (tmp_path / wheel.file).write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or not musicnn 0.1.0: delete it"):
            wheels.read_file(wheel, musicnn.DATA)


def test_missing_wheel_without_a_network_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheel = dataclasses.replace(musicnn.WHEEL, version="0.0.0", cache=tmp_path)
    with pytest.raises(ValueError, match=f"put {wheel.file} into {tmp_path}") as caught:
        wheels.fetch_wheel(wheel)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
