"""A measuring step on the command line: `python -m lib.training --study demo`.

Each room that measures has a `__main__` of one line. What a step is given stands in its section of
params.yaml; names and types are checked against the measuring function before anything runs.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib.core import params, paths, run_log
from lib.core.errors import StudyError
from lib.core.parameters import ParameterError, check_parameters, of_function
from lib.core.progress import say


@contextmanager
def locked(file: Path, blocking: bool = True) -> Iterator[bool]:
    """Hold a file for this process; False where another one holds it and we do not wait.

    The system lets go of the lock when its process ends, however it ends. Where a file system
    knows no locks, processes are not kept apart.
    """
    lock, free = FileLock(file, fallback_to_soft=False), True
    with suppress(OSError, NotImplementedError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=blocking)
        except Timeout:
            free = False
    try:
        yield free
    finally:
        lock.release()


def in_words(run: Callable[[], int], kept: str = "Stopped; what was finished is kept.") -> int:
    """Run a command. Returns what it returns, 2 (wrong input, told in words) or 130 (stopped)."""
    try:
        return run()
    except (ParameterError, StudyError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(kept, file=sys.stderr)
        return 130


@contextmanager
def one_at_a_time(study: str) -> Iterator[None]:
    """Hold the study for this process; wait, and say so, while another process holds it.

    The system lets go of the lock when its process ends, however it ends. Where a file system
    knows no locks, runs are not kept apart.
    """
    file = paths.ROOT / "data" / "locks" / f"{study}.lock"
    lock = FileLock(file, fallback_to_soft=False)  # a soft lock outlives a process that is killed
    with suppress(OSError, NotImplementedError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = file.read_text(encoding="utf-8") or "unknown"
            told = f"study {study} is being run by another process ({holder})"
            say(f"{told}: waiting until it is done")
            lock.acquire()
        file.write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        lock.release()


def given(measure: Callable[..., Any], section: str, study: str) -> dict[str, Any]:
    """The study's section as checked keyword arguments of `measure`."""
    values = {"study": study, **params.section(study, section)}
    declared = of_function(measure)
    check_parameters(declared, values, f"studies.{study}.{section}")
    missing = [name for name, p in declared.items() if p.required and name not in values]
    if missing:
        raise StudyError(f"studies.{study}.{section} lacks {', '.join(missing)} (params.yaml).")
    return values


def main(
    measure: Callable[..., Any], section: str, argv: list[str] | None = None, noted: str = ""
) -> int:
    """Run `measure` for a study. Returns 0, 2 (wrong input, told in words) or 130 (stopped).

    `noted`: its name in run.json, where that is not the section's.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {measure.__module__}", description=__doc__)
    parser.add_argument("--study", required=True, help="a study of params.yaml")
    study = parser.parse_args(argv).study

    def run() -> int:
        values = given(measure, section, study)
        with one_at_a_time(study):
            watch = run_log.Watch(study)
            measure(**values)
            run_log.note(study, noted or section, values, watch.read())
        return 0

    return in_words(run)
