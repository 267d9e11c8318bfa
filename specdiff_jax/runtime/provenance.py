"""Which program made a result."""

import pathlib
import subprocess

import specdiff_jax

ROOT = pathlib.Path(__file__).parents[2]


def code_version():
    """The version and, in a checkout, its commit: "0.1.0 1d9278c"."""
    return f"{specdiff_jax.__version__} {read_commit()}".strip()


def read_commit():
    """Of the checkout, "-dirty" where files differ from it; nothing where there is none."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git
        return ""
