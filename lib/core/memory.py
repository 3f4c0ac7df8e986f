"""Memory that a process keeps between steps, instead of giving it back and asking for it again."""

import os
import sys

# For glibc's allocator (others ignore it): one arena that gives nothing back. A training step frees
# and asks for the same hundreds of megabytes, and every page of them would be faulted in again.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def start_again_with_kept_memory(module: str) -> None:
    """Replace this process by `python -m module` with the same words, under KEEP_MEMORY.

    An allocator reads its settings when a process starts. Does nothing where they are set already,
    or where the system is not Linux.
    """
    if sys.platform != "linux" or any(name in os.environ for name in KEEP_MEMORY):
        return
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, **KEEP_MEMORY})
