"""Seconds and memory of steps, and the machine that ran them."""

import os
import pathlib
import resource
import sys
import time

WARMUP = 2  # rounds before the clock starts, compiling included


def time_steps(steps, count):
    """Return the seconds of `count` runs of each step after the warm-up, and other programs' load.

    The steps alternate, so that a slow minute of the machine affects all of them.

    Args:
      steps: {name: a function of the round's index that returns when its work is done}.

    Returns:
      {name: [seconds]}, cores that other programs used (None where unknown).
    """
    seconds = {name: [] for name in steps}
    for index in range(WARMUP + count):
        if index == WARMUP:
            start, others = time.perf_counter(), other_seconds()
        for name, step in steps.items():
            before = time.perf_counter()
            step(index)
            seconds[name].append(time.perf_counter() - before)
    seconds = {name: values[WARMUP:] for name, values in seconds.items()}
    if others is not None:
        others = (other_seconds() - others) / (time.perf_counter() - start)
    return seconds, others


def time_fastest(run, count):
    """Return the seconds of the fastest of `count` runs; `run` blocks until it is done."""
    best = float("inf")
    for _ in range(count):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def other_seconds():
    """Return CPU seconds that all other programs have used since boot; None where unknown."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, soft = map(int, stat.read_text().split()[1:8])
    own = os.times()
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def peak_rss():
    """Return the peak memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_name():
    """Return the name of the processor and its number of cores."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {os.cpu_count()} cores"
