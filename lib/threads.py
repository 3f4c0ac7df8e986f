"""A fixed number of threads: the CPU's sums depend on how many threads share them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

THREADS = 2  # what the smallest machine has; more would change the last digits of the tables


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Let torch use THREADS threads on the CPU, however many it was given."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
