"""A listed step restores bit for bit, or is refused by name; never something else in silence."""

import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from specdiff_jax.training import checkpoints
from specdiff_jax.training.train_state import init_state

RUN = {"config": {"seed": 0}, "representation": {}}


def state_at(step):
    params = {"w": jax.random.normal(jax.random.key(step), (8, 4)), "b": jnp.arange(3.0)}
    return init_state(params, optax.adam(0.1)).replace(step=jnp.int32(step))


def save(workdir, *steps, keep=9):
    writer = checkpoints.Writer(workdir, keep)
    for step in steps:
        writer.save(state_at(step), RUN)
    writer.finish()


def like():
    return jax.eval_shape(lambda: state_at(0))


def files_of(workdir, step):
    folder = checkpoints.folder_of(workdir, step)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_checkpoint_restores_bit_for_bit(tmp_path):
    save(tmp_path, 3)
    assert checkpoints.newest_good(tmp_path) == 3
    restored = checkpoints.restore(tmp_path, 3, like())
    jax.tree.map(np.testing.assert_array_equal, restored, state_at(3))
    assert jax.tree.structure(restored) == jax.tree.structure(state_at(3))
    assert checkpoints.read_run(tmp_path, 3) == {"format": checkpoints.FORMAT} | RUN


def test_writer_copies_a_state_before_it_is_donated(tmp_path):
    writer, state = checkpoints.Writer(tmp_path, 2), state_at(5)
    writer.save(state, RUN)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    jax.block_until_ready(overwrite(state))
    writer.finish()
    restored = checkpoints.restore(tmp_path, 5, like())
    jax.tree.map(np.testing.assert_array_equal, restored, state_at(5))


def test_writer_keeps_the_newest_steps(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert checkpoints.steps(tmp_path) == [3, 4]
    assert not checkpoints.folder_of(tmp_path, 1).exists()


def test_verify_finds_every_flipped_bit(tmp_path):
    save(tmp_path, 1)
    rng = np.random.default_rng(0)
    for path in files_of(tmp_path, 1):
        if path.name == checkpoints.MANIFEST or not path.stat().st_size:
            continue
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[rng.integers(len(sound))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=path.name):
            checkpoints.verify(checkpoints.folder_of(tmp_path, 1))
        path.write_bytes(sound)
    checkpoints.verify(checkpoints.folder_of(tmp_path, 1))


def test_newest_good_falls_back_and_logs(tmp_path, capfd):
    save(tmp_path, 1, 2)
    victim = max(files_of(tmp_path, 2), key=lambda path: path.stat().st_size)
    victim.write_bytes(b"damaged")
    assert checkpoints.newest_good(tmp_path) == 1
    assert "checkpoint 2 is not used" in capfd.readouterr().err


def test_steps_without_a_manifest_are_not_listed(tmp_path):
    save(tmp_path, 1, 2)
    (checkpoints.folder_of(tmp_path, 2) / checkpoints.MANIFEST).unlink()
    assert checkpoints.steps(tmp_path) == [1] and checkpoints.newest_good(tmp_path) == 1
    save(tmp_path, 2)  # the remains are no obstacle
    assert checkpoints.newest_good(tmp_path) == 2


def test_damaged_checkpoints_never_start_from_scratch(tmp_path):
    assert checkpoints.newest_good(tmp_path) is None
    save(tmp_path, 1)
    shutil.rmtree(checkpoints.folder_of(tmp_path, 1) / "state")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        checkpoints.newest_good(tmp_path)
    with pytest.raises(ValueError, match="not among the saved steps"):
        checkpoints.newest_good(tmp_path, step=7)


@pytest.mark.parametrize(
    "change",
    [{"w": jnp.zeros((4, 8))}, {"w": jnp.zeros((8, 4), jnp.int32)}, {"more": jnp.zeros(2)}],
)
def test_restore_refuses_another_shape_dtype_or_tree(tmp_path, change):
    save(tmp_path, 1)
    other = like()
    other = other.replace(params=other.params | change)
    with pytest.raises(ValueError, match="the config wants"):
        checkpoints.restore(tmp_path, 1, other)


def test_failed_save_raises_and_keeps_the_earlier_step(tmp_path, monkeypatch):
    save(tmp_path, 1)
    writer = checkpoints.Writer(tmp_path, 2)

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "digests", full)
    writer.save(state_at(2), RUN)
    with pytest.raises(OSError, match="saving failed.*No space left"):
        writer.finish()
    monkeypatch.undo()
    assert checkpoints.newest_good(tmp_path) == 1


def test_full_disk_is_refused_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    writer = checkpoints.Writer(tmp_path, 2)
    writer.save(state_at(2), RUN)
    with pytest.raises(OSError, match="MB needed.*free disk space"):
        writer.finish()
    assert checkpoints.steps(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_killed_save_leaves_a_good_step(tmp_path):
    """A child saves steps without end and is killed after a while, three times."""
    import signal
    import subprocess
    import sys
    import time

    script = (
        "import sys; sys.path[:0] = ['tests/training', '.']\n"
        "import test_checkpoints as t\n"
        "from specdiff_jax.training import checkpoints\n"
        f"w = checkpoints.Writer({str(tmp_path)!r}, 2)\n"
        "for step in range(1, 10**6):\n"
        "    w.save(t.state_at(step), t.RUN)\n"
        "    if step == 3: print('go', flush=True)\n"
    )
    root = pathlib.Path(__file__).parents[2]
    for round_ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True
        )
        child.stdout.readline()
        time.sleep(0.2 + 0.37 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        good = checkpoints.newest_good(tmp_path)
        assert good == checkpoints.steps(tmp_path)[-1]
        restored = checkpoints.restore(tmp_path, good, like())
        jax.tree.map(np.testing.assert_array_equal, restored, state_at(good))
