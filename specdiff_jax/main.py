"""python -m specdiff_jax.main --config=configs/base.py[:tiny] [--mode=...] [--config.field=...]"""

import importlib
import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

# A mode is a list of verbs, each the `run(config)` of the module of that name.
MODES = {
    "train": ("prepare", "preflight", "train", "sample", "reference", "report"),
    "prepare": ("prepare",),
    "preflight": ("prepare", "preflight"),
    "sample": ("sample",),
    "report": ("reference", "report"),
}

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
JSON = flags.DEFINE_string("json", None, "With --mode=preflight: write its figures to this file.")
DEBUG = flags.DEFINE_bool("debug", False, "Raise errors with their traceback.")
flags.mark_flag_as_required("config")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags start with --")
    logging.set_verbosity(logging.WARNING)  # ours speak by logs.say
    try:
        run(CONFIG.value)
    except (ValueError, OSError) as error:
        if DEBUG.value:
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        more = "" if len(lines) == 1 else " (--debug shows the rest)"
        print(f"error: {lines[0]}{more}", file=sys.stderr)
        sys.exit(1)


def run(config):
    """The verbs of the chosen mode, one after another."""
    if JSON.value and MODE.value != "preflight":
        raise ValueError("--json is not used without --mode=preflight; leave it out")
    import jax

    cache = os.path.expanduser("~/.cache/specdiff_jax/xla")
    jax.config.update("jax_compilation_cache_dir", cache)
    from specdiff_jax import build

    build.check(config)
    for verb in MODES[MODE.value]:
        options = {"json_path": JSON.value} if verb == "preflight" else {}
        importlib.import_module(f"specdiff_jax.{verb}").run(config, **options)


if __name__ == "__main__":
    app.run(main)
