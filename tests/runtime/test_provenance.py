"""A result names the commit that made it, and does not hide what differs from it."""

import shutil
import subprocess

import pytest

from specdiff_jax import __version__
from specdiff_jax.runtime import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_named_and_a_change_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.code_version() == __version__  # installed, no checkout

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("tag", "-a", "v9", "-m", "a tag is no commit")
    commit = git("rev-parse", "--short", "HEAD")
    assert provenance.code_version() == f"{__version__} {commit}"
    (tmp_path / "file").write_text("two")
    assert provenance.code_version() == f"{__version__} {commit}-dirty"
