"""Run jobs in processes that may hang or die, or on devices; results keep the order of the jobs."""

import collections
import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import sys

import pebble
import threadpoolctl

from specdiff_jax.runtime.text import one_line

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, KEPT_BYTES = -3, -1, 1 << 25  # the most that glibc takes
EXTRA_BYTES = 3 << 29  # of memory that a worker may take beyond what it starts with


class Stop(OSError):
    """Raised by a job where no other could do better: a full disk is no fault of a song."""


def in_order(function, jobs, seconds, count=None):
    """Yields (job, result, None) or (job, None, reason) for each job, in the jobs' order.

    Args:
      function: importable; what it raises becomes the reason, but a Stop is raised here too.
      jobs: iterable of picklable values, drawn only a few ahead of the results.
      seconds: limit for one job; the worker is killed then, and a new one goes on.
      count: processes; None for one each usable core.
    """
    count = count or count_cores()
    # Spawn: a fork of a process that runs jax's threads can hang.
    pool = pebble.ProcessPool(
        count, context=multiprocessing.get_context("spawn"), initializer=prepare_worker
    )
    waiting = collections.deque()
    try:
        for job in jobs:
            waiting.append((job, pool.schedule(function, args=[job], timeout=seconds)))
            if len(waiting) > 2 * count:
                yield collect_result(*waiting.popleft(), seconds)
        while waiting:
            yield collect_result(*waiting.popleft(), seconds)
    finally:
        pool.stop()
        pool.join()


def collect_result(job, future, seconds):
    """A finished job as `in_order` yields it."""
    try:
        return job, future.result(), None
    except concurrent.futures.TimeoutError:
        return job, None, f"took longer than {seconds:.0f} s"
    except pebble.ProcessExpired:
        return job, None, "crashed the decoder"
    except MemoryError:
        return job, None, f"needs more than {EXTRA_BYTES / 1e9:.1f} GB of memory"
    except Stop:
        raise
    except ValueError as error:
        return job, None, str(error)
    except Exception as error:  # a hostile file can raise anything; the next one goes on
        return job, None, f"{type(error).__name__}: {one_line(error)}"[:200]


def prepare_worker():
    """The parent stops the pool at Ctrl-C; memory is limited where the system can."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()
    if sys.platform == "linux":
        keep_freed_memory()
        import resource

        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + EXTRA_BYTES, resource.RLIM_INFINITY))


def limit_threads():
    """There is a process for each core.

    Told before a library is loaded where that can be: on a machine of many cores the buffers that
    it takes for all of its threads are more than a worker may have.
    """
    os.environ.update(dict.fromkeys(THREADS, "1"))
    threadpoolctl.threadpool_limits(1)  # of what is loaded already


def keep_freed_memory():
    """Arrays of megabytes come and go: asking for their pages anew each time is 4 % of the work."""
    with contextlib.suppress(AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(option, KEPT_BYTES)


def count_cores():
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_on_devices(functions, jobs):
    """Yield (job, function(*job)) for each job, in order; a function runs one job at a time.

    Args:
      functions: functions that may run in parallel, such as one a device. A single one runs in
        this thread, each job when its result is drawn.
    """
    if len(functions) == 1:
        for job in jobs:
            yield job, functions[0](*job)
        return
    free = queue.SimpleQueue()
    for function in functions:
        free.put(function)

    def run(job):
        function = free.get()
        try:
            return function(*job)
        finally:
            free.put(function)

    pool = concurrent.futures.ThreadPoolExecutor(len(functions))
    try:
        yield from zip(jobs, pool.map(run, jobs), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
