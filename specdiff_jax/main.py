"""python -m specdiff_jax.main --config=configs/base.py[:tiny] [--mode=...] [--config.field=...]"""

import functools
import importlib
import os
import re
import sys

from absl import app, flags, logging
from ml_collections import FieldReference, config_flags

MODES = {  # mode: modules of the package, whose run(config) are called in this order
    "train": (
        "data.prepare",
        "training.preflight",
        "training.train",
        "sampling.sample",
        "evaluation.ceiling",
        "reports.run_report",
    ),
    "prepare": ("data.prepare",),
    "preflight": ("data.prepare", "training.preflight"),
    "sample": ("sampling.sample",),
    "report": ("evaluation.ceiling", "reports.run_report"),
    "replay": ("sampling.replay",),
    "demo": ("sampling.demo",),
    "evaluate": ("data.prepare", "evaluation.evaluate"),
    "sweep": ("data.prepare", "evaluation.sweep"),
    "export": ("training.export",),
    "index": ("downstream.index",),
    "search": ("downstream.search",),
    "tag": ("downstream.tag",),
    "embed": ("downstream.embed",),
}
INIT_FROM_MODES = ("train", "tag", "embed")
MULTI_PROCESS_MODES = ("train", "prepare", "preflight")
MULTI_PROCESS_MODULES = ("data.prepare", "training.preflight", "training.train")
PROMPT_FLAGS = ("prompt", "labels", "scalars", "negative_prompt", "prompts")  # of config.sample
SEARCH_FLAGS = {"query": "query", "query_seconds": "seconds", "text": "text", "labels": "labels"}

UNSET = re.compile(r"--config\.([\w.]+)=None")

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
JSON = flags.DEFINE_string(
    "json", None, "With --mode=preflight or search: write the results to this file."
)
PAGE = flags.DEFINE_string("page", None, "With --mode=search: write a page to listen to.")
flags.DEFINE_string("query", None, "With --mode=search: a sound file; similar songs are listed.")
flags.DEFINE_list("query_seconds", None, "With --mode=search: FROM,TO of it, in seconds.")
flags.DEFINE_string("text", None, "With --mode=search: a description of the songs.")
LISTENING = flags.DEFINE_string(
    "listening",
    None,
    "With --mode=evaluate: read result files of a listening test instead.",
)
PREDICT = flags.DEFINE_string("predict", None, "With --mode=tag: sound files to predict.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes, where no launcher sets it."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes; with --coordinator.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
SIDECAR = flags.DEFINE_string("sidecar", None, "With --mode=replay: the .json beside a sample.")
for name in PROMPT_FLAGS:
    flags.DEFINE_string(name, None, f"With --mode=sample: sets config.sample.{name}.")
DEBUG = flags.DEFINE_bool("debug", False, "Raise errors with their traceback.")


def parse(argv):
    """Parse the flags; report a mistake in one line and exit with code 2."""
    try:
        for path in (arg.removeprefix("--config=") for arg in argv if arg.startswith("--config=")):
            if not os.path.isfile(path.split(":")[0]):
                raise ValueError(f"--config={path}: there is no such file")
            sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(path))))  # its siblings
        typed = [arg for arg in argv if not UNSET.fullmatch(arg)]
        rest = flags.FLAGS(typed)
        takes_files = LISTENING.value is not None or PREDICT.value is not None
        if rest[1:] and not takes_files:
            raise ValueError(f"unknown argument {rest[1]!r}; flags start with --")
        if CONFIG.value is None and MODE.value != "replay" and LISTENING.value is None:
            raise ValueError("--config is missing; try --config=configs/base.py:tiny")
        for arg in set(argv) - set(typed):
            unset(UNSET.fullmatch(arg)[1])
    except Exception as error:  # absl and ml_collections raise many kinds
        if "--debug" in argv:
            raise
        refuse(error, exit_code=2)
    return rest


def unset(name):
    """Set a field of the config, as "section.field", to None, which its own parser refuses."""
    *path, field = name.split(".")
    if CONFIG.value is None or (path and path[0] not in CONFIG.value):
        raise ValueError(f"--config.{name}=None: there is no config that has it")
    section = functools.reduce(getattr, path, CONFIG.value)
    value = dict(section.items(preserve_field_references=True)).get(field)
    if value is not None and not isinstance(value, FieldReference):  # it was no placeholder
        raise ValueError(f"--config.{name}=None: it must have a value")
    section[field] = None
    config_flags.get_override_values(flags.FLAGS["config"])[name] = None


def refuse(error, exit_code, leave=sys.exit):
    """Print the decisive line of an error and exit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]  # of a nested traceback
    line = named[-1] if named else lines[0] if lines else type(error).__name__
    if hint := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        line = f"the config has no field {hint[2]!r}; did you mean {hint[1]!r}?"
    print(f"error: {line}", file=sys.stderr)
    leave(exit_code)


def main(argv):
    logging.set_verbosity(logging.WARNING)  # the package itself uses runtime.logs.log
    try:
        run(CONFIG.value, argv[1:])
    except KeyboardInterrupt:  # the training loop saves first and exits by itself
        refuse("interrupted; the same command resumes from the files on disk", exit_code=130)
    except (ValueError, OSError, RuntimeError) as error:
        from specdiff_jax.runtime import distributed

        # JAX raises a RuntimeError where another process cannot be reached.
        lost = isinstance(error, RuntimeError) and not distributed.is_single_process()
        if DEBUG.value or (isinstance(error, RuntimeError) and not lost):
            raise
        refuse(distributed.LOST if lost else error, exit_code=1, leave=distributed.exit_process)


def refuse_unused_flags():
    """Raise ValueError where a flag would be ignored, or one is missing."""
    needs = {"json": "preflight search", "sidecar": "replay", "listening": "evaluate"}
    needs |= dict.fromkeys(PROMPT_FLAGS, "sample")
    needs |= dict.fromkeys(("page", *SEARCH_FLAGS), "search")
    needs |= {"labels": "sample search", "predict": "tag"}
    for name, modes in needs.items():
        if flags.FLAGS[name].value is not None and MODE.value not in modes.split():
            modes = " or ".join(modes.split())
            raise ValueError(f"--{name} is not used without --mode={modes}; leave it out")
    if MODE.value == "replay" and (SIDECAR.value is None or CONFIG.value is not None):
        raise ValueError("--mode=replay takes --sidecar=FILE.json and no --config")


def run(config, files=()):
    """Run the modules of the chosen mode, one after another."""
    refuse_unused_flags()
    if LISTENING.value is not None:
        if config is not None:
            raise ValueError("--listening reads result files alone; leave --config out")
        return module("evaluation.listening.report").run([LISTENING.value, *files])
    import jax

    from specdiff_jax.runtime import distributed

    distributed.join_job(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    cache = os.path.expanduser("~/.cache/specdiff_jax/xla")
    jax.config.update("jax_compilation_cache_dir", cache)
    if MODE.value == "replay":
        return module("sampling.replay").run(SIDECAR.value)
    predict = [PREDICT.value, *files] if PREDICT.value is not None else []
    apply_flags(config)
    check(config, predict)
    options = {
        "training.preflight": {"json_path": JSON.value},
        "downstream.tag": {"predict": predict},
        "downstream.search": {"json_path": JSON.value, "page_path": PAGE.value},
    }
    for name in modules_of_mode():
        module(name).run(config, **options.get(name, {}))


def check(config, predict):
    """Refuse a config that cannot work or would be ignored in part, before any work."""
    module("sampling.check_config").check(config)
    typed = config_flags.get_override_values(flags.FLAGS["config"])
    module("config.overrides").check(config, MODE.value, typed, lambda: read_saved(config))
    if MODE.value in INIT_FROM_MODES and not predict:
        module("training.init_from").check(config)
    if MODE.value == "train" and "sampling.sample" in modules_of_mode():
        module("sampling.sample").check(config)


def read_saved(config):
    """Return the config dict that the checkpoint of a config keeps."""
    trained_model = module("training.trained_model")  # slow to import, and few modes need it
    return trained_model.read_saved(config.workdir, config.sample.checkpoint_step)["config"]


def module(name):
    """Import a module of the package."""
    return importlib.import_module(f"specdiff_jax.{name}")


def modules_of_mode():
    """Return the modules of the chosen mode. Several processes only prepare and train."""
    from specdiff_jax.runtime import distributed

    names = MODES[MODE.value]
    if distributed.is_single_process():
        return names
    if MODE.value not in MULTI_PROCESS_MODES:
        raise ValueError(f"--mode={MODE.value} is for one process; start it without a job")
    return [name for name in names if name in MULTI_PROCESS_MODULES]


def apply_flags(config):
    """Copy the prompt and search flags into the section that the chosen mode reads."""
    searching = MODE.value == "search"
    section = config.search if searching else config.sample
    fields = SEARCH_FLAGS if searching else dict(zip(PROMPT_FLAGS, PROMPT_FLAGS, strict=True))
    for flag, name in fields.items():
        if (value := flags.FLAGS[flag].value) is not None:
            section[name] = parse_seconds(value) if flag == "query_seconds" else value


def parse_seconds(value):
    """Return the pair of --query_seconds."""
    try:
        first, last = map(float, value)
    except ValueError as error:
        raise ValueError(f"--query_seconds={','.join(value)} is not FROM,TO in seconds") from error
    return first, last


def command():
    """Run the console script `specdiff`."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    command()
