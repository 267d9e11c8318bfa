"""Jobs given to whoever is free, their results in the jobs' order."""

import queue
from concurrent.futures import ThreadPoolExecutor


def run_on_devices(makers, jobs):
    """Yields (job, maker(*job)) for each job, in order; a maker has one job at a time.

    Args:
      makers: functions that may run beside each other, such as one a device. One of them runs here
        and now, each job when its result is asked for.
    """
    if len(makers) == 1:
        for job in jobs:
            yield job, makers[0](*job)
        return
    free = queue.SimpleQueue()
    for maker in makers:
        free.put(maker)

    def make(job):
        maker = free.get()
        try:
            return maker(*job)
        finally:
            free.put(maker)

    pool = ThreadPoolExecutor(len(makers))
    try:
        yield from zip(jobs, pool.map(make, jobs), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
