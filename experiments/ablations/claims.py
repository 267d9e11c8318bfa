"""Claims on pieces of work by hosts that share a directory and nothing else."""

import contextlib
import json
import os
import socket
import threading
import uuid

STALE = 600.0  # seconds without a renewal after which another process may take the claim
RENEW = 60.0


@contextlib.contextmanager
def claimed(folder, stale=STALE):
    """Yield whether this process owns the work of `folder`; its claim ends with the block.

    The claim is a file that only one process can create. Its owner touches it regularly. Ages are
    taken by the clock of the shared disk, since clocks of hosts differ.
    """
    path = folder / "claim.json"
    if not (_create(path) or (_remove_stale(path, stale) and _create(path))):
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


def _remove_stale(path, stale):
    """Remove a claim that nobody renews; of several processes that try, one succeeds."""
    probe = path.with_name(f"now-{uuid.uuid4().hex}")
    try:
        probe.touch()
        age = probe.stat().st_mtime - path.stat().st_mtime
        if age < stale:
            return False
        path.rename(path.with_name(f"stale-{uuid.uuid4().hex}"))
        return True
    except FileNotFoundError:  # another process removed it
        return False
    finally:
        probe.unlink(missing_ok=True)


def _renew(path, done):
    while not done.wait(RENEW):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)  # the clock of the disk
