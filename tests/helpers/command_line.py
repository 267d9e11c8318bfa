"""The command line: `run` starts a process for one command, `run_all` forks one for many."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# Nothing here is about speed: the children compile fast code no better than they must.
ENVIRONMENT = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "PYTHONPATH": str(ROOT)}


def run(*arguments, env=ENVIRONMENT, **more):
    """Run one command to its end, as `python -m specdiff_jax.main` from the root."""
    command = [sys.executable, "-m", "specdiff_jax.main", *arguments]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(command, env=env, **options, **more)


def run_all(commands, folder):
    """Run many commands, each in a fork of a process that has imported the package.

    Args:
      commands: lists of arguments. folder: for what they print.

    Returns:
      A subprocess.CompletedProcess each.
    """
    child = [sys.executable, "-m", "tests.helpers.command_line", str(folder)]
    text = json.dumps([list(map(str, arguments)) for arguments in commands])
    options = {"cwd": ROOT, "env": ENVIRONMENT, "text": True, "timeout": 300, "check": True}
    codes = subprocess.run(child, input=text, stdout=subprocess.PIPE, **options).stdout
    read = lambda number, stream: (folder / f"{number}.{stream}").read_text()
    return [
        subprocess.CompletedProcess(arguments, code, read(k, "out"), read(k, "err"))
        for k, (arguments, code) in enumerate(zip(commands, json.loads(codes), strict=True))
    ]


def refused(done, *words):
    """Assert a non-zero exit and one line of error that holds all the words, without traceback."""
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), done.stderr
    assert done.stderr.splitlines()[-1] == errors[0], done.stderr


def fork_all(folder):
    """Fork once for each command on standard input, and print the list of exit codes."""
    import specdiff_jax.data.prepare  # noqa: F401  what every command imports
    import specdiff_jax.sampling.sample  # noqa: F401
    import specdiff_jax.training.init_from  # noqa: F401

    codes = []
    for number, arguments in enumerate(json.load(sys.stdin)):
        pid = os.fork()
        if pid == 0:
            for stream, name in ((1, "out"), (2, "err")):
                file = os.open(f"{folder}/{number}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                os.dup2(file, stream)
            sys.argv = ["specdiff_jax.main", *arguments]
            code = 0
            try:
                runpy.run_module("specdiff_jax.main", run_name="__main__")
            except SystemExit as stop:
                code = stop.code or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(codes))


if __name__ == "__main__":
    fork_all(sys.argv[1])
