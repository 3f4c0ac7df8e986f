"""The machine: workers, device, threads, and which precision the processor multiplies.

torch is imported by the functions that need it: steps without it start seconds sooner.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from lib.core.progress import say

if TYPE_CHECKING:
    import torch

THREADS = 2  # what the smallest machine has; more would change the last digits of the tables


def workers() -> int:
    """Cores that this process may use: a scheduler often gives fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def keep_memory() -> None:
    """Let the allocator of glibc keep what is freed (M_ARENA_MAX to M_TOP_PAD in its malloc.h).

    A training step frees and asks for the same hundreds of megabytes, and every page of them would
    be faulted in again. Other allocators, and one that MALLOC_ variables set, stay as they are.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ)
    if os.name == "posix" and not told and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in ((-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            libc.mallopt(option, value)


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Let torch use THREADS threads on the CPU, however many it was given; memory is kept."""
    import torch

    keep_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 (AVX-512 BF16, AMX, or ARM's): most do not."""
    import torch

    found = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has for name, has in found.items() if "bf16" in name)


@cache
def used(asked: str, kind: str) -> str:
    """The precision that `asked` ("bf16" or "f32") becomes on a device of `kind` ("cpu", "cuda").

    A processor without bf16 imitates it: a training step takes eight times as long as in float32.
    """
    if asked == "bf16" and kind == "cpu" and not cpu_has_bf16():
        say("This processor does not multiply bf16: float32 is used, which moves the last digits.")
        return "f32"
    return asked


def autocast(where: torch.device, asked: str) -> torch.autocast:
    """The context in which a network runs on `where` in the precision that was asked for."""
    import torch

    return torch.autocast(where.type, torch.bfloat16, enabled=used(asked, where.type) == "bf16")


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
