"""Atomic writes and checksums: a file under its final name is always a whole file."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lib.core.errors import DamagedFile, StudyError

if TYPE_CHECKING:  # half a second that the commands which write no table can do without
    import pandas as pd

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


_noted: ContextVar[list[Path] | None] = ContextVar("noted", default=None)


@contextmanager
def noted() -> Iterator[list[Path]]:
    """A list that grows by every file that this thread writes (`atomic`) in the block."""
    found: list[Path] = []
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    A full disk and a folder that cannot be written raise StudyError; `path` is as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.{os.getpid()}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise _in_words(error, path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; give the usual rights
        os.replace(temporary, path)
        if (noted := _noted.get()) is not None:
            noted.append(path)
    except Exception as error:  # safetensors and torch do not raise OSError where a disk is full
        raise _in_words(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed processes left half written of `path`."""
    left = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\w+{re.escape(path.suffix)}")
    with os.scandir(path.parent) as entries:
        found = [(entry.path, left.fullmatch(entry.name)) for entry in entries]
    for name, match in found:
        if match and not psutil.pid_exists(int(match[1])):
            Path(name).unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> int | None:
    """The number of the system's error that an exception, or one before it, came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # as Rust writes it
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _in_words(error: Exception, path: Path) -> Exception:
    """What a failed write means for the person at the machine; other errors stay as they are."""
    number = _system_error(error)
    if number in FULL:
        return StudyError(
            f"no space left while writing {path}. What was there before is untouched. Free some "
            "space (make clean removes half-done work) and run again; finished work is kept."
        )
    if number in CLOSED:
        return StudyError(
            f"{path} cannot be written ({os.strerror(number)}). Give yourself the right to "
            f"write in {path.parent}, and run again."
        )
    return error


def space_left(path: Path, needed: int) -> None:
    """Refuse to begin what cannot end: `needed` bytes must be free where `path` will lie."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StudyError(
            f"{path} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Make room and run "
            "again."
        )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; NaN and infinity become null."""
    text = json.dumps(_known(value), indent=1, sort_keys=True, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _known(value: Any) -> Any:
    """`value` with None in place of numbers that are none."""
    if isinstance(value, dict):
        return {key: _known(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_known(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is gone or damaged raises with its name."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{path} is gone. Run again the notebook that writes it.") from error
    except ValueError as error:
        raise DamagedFile(
            f"{path} is damaged ({error}). Delete it and run again the notebook that writes it."
        ) from error


def write_table(path: Path, table: pd.DataFrame, digits: int = 6) -> None:
    """Write a long-format table as csv (floats rounded to `digits`) or parquet, by suffix."""
    with atomic(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, float_format=f"%.{digits}f", lineterminator="\n")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex checksum of a file, read in 1 MiB pieces; one without the right to read it raises."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except PermissionError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}).") from error


@lru_cache(maxsize=4096)
def _digest_of_these(names: tuple[str, ...], _stamps: tuple[tuple[int, int], ...]) -> str:
    seal = hashlib.sha256()
    for name in names:
        with open(name, "rb") as stream:
            while piece := stream.read(2**20):
                seal.update(piece)
    return seal.hexdigest()


def sealed(files: list[Path], sha256: str, remedy: str) -> None:
    """Refuse files that are gone or whose bytes, one after the other, are not the sealed ones.

    Files are read once a process, and again when their time or size has changed.

    Raises:
        StudyError: names the file (or the folder of several) and says what to do (`remedy`).
    """
    for file in files:
        if not file.exists():
            raise StudyError(f"{file} is gone. {remedy}")
    stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    if _digest_of_these(tuple(map(str, files)), stamps) != sha256:
        names = " or ".join(file.name for file in files)
        raise DamagedFile(
            f"{files[0].parent / names} is damaged: its bytes are not those that were written "
            f"(another sha256). {remedy}"
        )


def key_of(**parts: Any) -> str:
    """A short name for a set of values: equal values, equal key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(path: Path, md5: str) -> Path:
    """Return `path` if its md5 is the expected one; else delete nothing and raise."""
    seen = digest(path, "md5")
    if seen != md5:
        raise StudyError(
            f"{path} has md5 {seen}, expected {md5}: the file is damaged or not the one that the "
            "study was made with. Delete it and run again."
        )
    return path
