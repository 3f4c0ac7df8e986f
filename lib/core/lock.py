"""One run a study at a time in a clone: the second waits, and says so."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from lib.core import paths
from lib.core.progress import say

try:
    import fcntl
except ImportError:  # Windows: no such lock; writes are whole all the same
    fcntl = None


@contextmanager
def one_at_a_time(study: str) -> Iterator[None]:
    """Hold the study for this process; wait while another process holds it.

    The system lets go of the lock when its process ends, however it ends. Where a file system
    knows no locks, runs are not kept apart.
    """
    if fcntl is None:
        yield
        return
    file = paths.ROOT / "data" / "locks" / f"{study}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+", encoding="utf-8") as stream:
        _wait(stream, study)
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _wait(stream: IO[str], study: str) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read() or "unknown"
        say(f"study {study} is being run by another process ({holder}): waiting until it is done")
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError:
        return
