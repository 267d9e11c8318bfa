"""python -m specdiff_jax.main --config=configs/base.py[:tiny] [--mode=...] [--config.field=...]"""

import functools
import importlib
import os
import re
import sys

from absl import app, flags, logging
from ml_collections import FieldReference, config_flags

# A mode is a list of verbs, each the `run(config)` of the module that MODULES names.
MODES = {
    "train": ("prepare", "preflight", "train", "sample", "reference", "report"),
    "prepare": ("prepare",),
    "preflight": ("prepare", "preflight"),
    "sample": ("sample",),
    "report": ("reference", "report"),
    "replay": ("replay",),
    "demo": ("demo",),
    "evaluate": ("prepare", "evaluate"),
    "sweep": ("prepare", "sweep"),
    "export": ("export",),
    "index": ("index",),
    "search": ("search",),
    "tag": ("tag",),
    "embed": ("embed",),
}
MODULES = {  # below the package
    "prepare": "data.prepare",
    "preflight": "training.preflight",
    "train": "training.train",
    "sample": "sampling.sample",
    "reference": "evaluation.ceiling",
    "report": "reports.run_report",
    "replay": "sampling.replay",
    "demo": "sampling.demo",
    "evaluate": "evaluation.evaluate",
    "sweep": "evaluation.sweep",
    "export": "training.export",
    "index": "downstream.index",
    "search": "downstream.search",
    "tag": "downstream.tag",
    "embed": "downstream.embed",
}
TRAINING = ("train", "tag", "embed")  # modes that can begin from another model
TOGETHER = ("train", "prepare", "preflight")  # modes that several processes can share
WISH = ("prompt", "labels", "scalars", "negative_prompt", "prompts")
ASK = {"query": "query", "query_seconds": "seconds", "text": "text", "labels": "labels"}

UNSET = re.compile(r"--config\.([\w.]+)=None")

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
JSON = flags.DEFINE_string(
    "json", None, "With --mode=preflight or search: write what is found to this file."
)
PAGE = flags.DEFINE_string("page", None, "With --mode=search: a page to listen to, to this file.")
flags.DEFINE_string("query", None, "With --mode=search: a sound file that songs are to be like.")
flags.DEFINE_list("query_seconds", None, "With --mode=search: FROM,TO of it, in seconds.")
flags.DEFINE_string("text", None, "With --mode=search: what songs sound like, in words.")
LISTENING = flags.DEFINE_string(
    "listening", None, "With --mode=evaluate: result files of its blind listening test, instead."
)
PREDICT = flags.DEFINE_string("predict", None, "With --mode=tag: sound files to speak of, instead.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes, where no launcher tells."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes; with --coordinator.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
SIDECAR = flags.DEFINE_string("sidecar", None, "With --mode=replay: the .json beside a sample.")
for name in WISH:
    flags.DEFINE_string(name, None, f"With --mode=sample: config.sample.{name}.")
DEBUG = flags.DEFINE_bool("debug", False, "Raise errors with their traceback.")


def parse(argv):
    """Flags from the command line; a mistake is one line and exit code 2."""
    try:
        for path in (arg.removeprefix("--config=") for arg in argv if arg.startswith("--config=")):
            if not os.path.isfile(path.split(":")[0]):
                raise ValueError(f"--config={path}: there is no such file")
        left = [arg for arg in argv if not UNSET.fullmatch(arg)]
        rest = flags.FLAGS(left)
        listed = LISTENING.value is not None or PREDICT.value is not None  # files, by a shell
        if rest[1:] and not listed:
            raise ValueError(f"unknown argument {rest[1]!r}; flags start with --")
        if CONFIG.value is None and MODE.value != "replay" and LISTENING.value is None:
            raise ValueError("--config is missing; try --config=configs/base.py:tiny")
        for arg in set(argv) - set(left):
            unset(UNSET.fullmatch(arg)[1])
    except Exception as error:  # absl and ml_collections raise many kinds
        if "--debug" in argv:
            raise
        refuse(error, exit_code=2)
    return rest


def unset(name):
    """Sets a field of the config, as "section.field", to None: what its own type cannot say."""
    *path, field = name.split(".")
    if CONFIG.value is None or (path and path[0] not in CONFIG.value):
        raise ValueError(f"--config.{name}=None: there is no config that has it")
    section = functools.reduce(getattr, path, CONFIG.value)
    held = dict(section.items(preserve_field_references=True)).get(field)
    if held is not None and not isinstance(held, FieldReference):  # begins with no placeholder
        raise ValueError(f"--config.{name}=None: it must have a value")
    section[field] = None
    config_flags.get_override_values(flags.FLAGS["config"])[name] = None


def refuse(error, exit_code, leave=sys.exit):
    """Prints the line of an error that says what is wrong, and exits."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]  # a nested traceback's last word
    line = named[-1] if named else lines[0] if lines else type(error).__name__
    if hint := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        line = f"the config has no field {hint[2]!r}; did you mean {hint[1]!r}?"
    print(f"error: {line}", file=sys.stderr)
    leave(exit_code)


def main(argv):
    logging.set_verbosity(logging.WARNING)  # ours speak by logs.say
    try:
        run(CONFIG.value, argv[1:])
    except KeyboardInterrupt:  # the training loop has its own way: it saves first
        refuse("interrupted; the same command goes on from what is on disk", exit_code=130)
    except (ValueError, OSError, RuntimeError) as error:
        from specdiff_jax.runtime import distributed

        # A RuntimeError is what JAX raises where another process cannot be reached.
        lost = isinstance(error, RuntimeError) and not distributed.alone()
        if DEBUG.value or (isinstance(error, RuntimeError) and not lost):
            raise
        refuse(distributed.LOST if lost else error, exit_code=1, leave=distributed.leave)


def refuse_unused_flags():
    """Raises ValueError where a flag would be ignored, or one is missing."""
    needs = {"json": "preflight search", "sidecar": "replay", "listening": "evaluate"}
    needs |= dict.fromkeys(WISH, "sample") | dict.fromkeys(("page", *ASK), "search")
    needs |= {"labels": "sample search", "predict": "tag"}
    for name, modes in needs.items():
        if flags.FLAGS[name].value is not None and MODE.value not in modes.split():
            modes = " or ".join(modes.split())
            raise ValueError(f"--{name} is not used without --mode={modes}; leave it out")
    if MODE.value == "replay" and (SIDECAR.value is None or CONFIG.value is not None):
        raise ValueError("--mode=replay takes --sidecar=FILE.json and no --config")


def run(config, files=()):
    """The verbs of the chosen mode, one after another."""
    refuse_unused_flags()
    if LISTENING.value is not None:
        if config is not None:
            raise ValueError("--listening reads result files alone; leave --config out")
        return importlib.import_module("specdiff_jax.evaluation.listening.report").run(
            [LISTENING.value, *files]
        )
    import jax

    from specdiff_jax.runtime import distributed

    distributed.begin(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    cache = os.path.expanduser("~/.cache/specdiff_jax/xla")
    jax.config.update("jax_compilation_cache_dir", cache)
    if MODE.value == "replay":
        return importlib.import_module("specdiff_jax.sampling.replay").run(SIDECAR.value)
    from specdiff_jax.sampling import check_config

    tell(config)
    check_config.check(config)
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    importlib.import_module("specdiff_jax.config.overrides").check(config, MODE.value, overrides)
    spoken_of = [PREDICT.value, *files] if PREDICT.value is not None else []
    if MODE.value in TRAINING and not spoken_of:
        importlib.import_module("specdiff_jax.training.init_from").check(config)
    if MODE.value == "train" and "sample" in verbs():
        importlib.import_module("specdiff_jax.sampling.sample").check(config)
    own = {"preflight": {"json_path": JSON.value}, "tag": {"predict": spoken_of}}
    own["search"] = {"json_path": JSON.value, "page_path": PAGE.value}
    for verb in verbs():
        importlib.import_module(f"specdiff_jax.{MODULES[verb]}").run(config, **own.get(verb, {}))


def verbs():
    """Those of the chosen mode. A job of several processes only prepares and trains."""
    from specdiff_jax.runtime import distributed

    chosen = MODES[MODE.value]
    if distributed.alone():
        return chosen
    if MODE.value not in TOGETHER:
        raise ValueError(f"--mode={MODE.value} is for one process; start it without a job")
    return [verb for verb in chosen if verb in ("prepare", "preflight", "train")]


def tell(config):
    """Puts what the flags ask for where the chosen mode reads it."""
    searching = MODE.value == "search"
    section = config.search if searching else config.sample
    for flag, name in (ASK if searching else dict(zip(WISH, WISH, strict=True))).items():
        if (value := flags.FLAGS[flag].value) is not None:
            section[name] = seconds(value) if flag == "query_seconds" else value


def seconds(value):
    """The pair of --query_seconds."""
    try:
        first, last = map(float, value)
    except ValueError as error:
        raise ValueError(f"--query_seconds={','.join(value)} is not FROM,TO in seconds") from error
    return first, last


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
