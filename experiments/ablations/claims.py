"""Who does which piece of work, where several hosts share a directory and nothing else."""

import contextlib
import json
import os
import socket
import threading
import uuid

STALE = 600.0  # seconds without a sign of life after which a claim is anybody's
RENEW = 60.0


@contextlib.contextmanager
def claimed(folder, stale=STALE):
    """Yields whether the work of `folder` is this process's; a claim it got ends with the block.

    The claim is a file that only one can create. Its holder touches it while it lives; ages are
    taken by the clock of the shared disk, since hosts' clocks differ.
    """
    path = folder / "claim.json"
    if not (_create(path) or (_take_away(path, stale) and _create(path))):
        yield False
        return
    done = threading.Event()
    threading.Thread(target=_renew, args=(path, done), daemon=True).start()
    try:
        yield True
    finally:
        done.set()
        path.unlink(missing_ok=True)


def _create(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        return True
    except FileExistsError:
        return False


def _take_away(path, stale):
    """Removes a claim whose holder is gone; of several who try, one succeeds."""
    probe = path.with_name(f"now-{uuid.uuid4().hex}")
    try:
        probe.touch()
        age = probe.stat().st_mtime - path.stat().st_mtime
        if age < stale:
            return False
        path.rename(path.with_name(f"gone-{uuid.uuid4().hex}"))
        return True
    except FileNotFoundError:  # another took it away
        return False
    finally:
        probe.unlink(missing_ok=True)


def _renew(path, done):
    while not done.wait(RENEW):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)  # the disk's own clock
