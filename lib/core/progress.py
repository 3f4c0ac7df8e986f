"""Progress for the person at the terminal; it never lands in an executed notebook."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def say(text: str) -> None:
    """Write one line to the terminal (or to the file that STUDY_PROGRESS names)."""
    target = os.environ.get("STUDY_PROGRESS")
    if not target:
        print(text, file=sys.__stderr__, flush=True)
        return
    with open(target, "a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def track(items: Iterable[Item], title: str, total: int, every: float = 10.0) -> Iterator[Item]:
    """Yield `items`; at most every `every` seconds say how far it is and the time left."""
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every:
            last = now
            left = (now - start) / done * (total - done)
            say(f"{title}: {done}/{total}, about {left / 60:.1f} min left")
