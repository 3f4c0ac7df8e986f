"""Atomic writes and checksums: a file under its final name is always a whole file."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lib.errors import StudyError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    A full disk and a folder that cannot be written raise StudyError; `path` is as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
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
    except OSError as error:
        raise _in_words(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _in_words(error: OSError, path: Path) -> Exception:
    """What a failed write means for the person at the machine; other errors stay as they are."""
    if error.errno in FULL:
        return StudyError(
            f"no space left while writing {path}. What was there before is untouched. Free some "
            "space (make clean removes half-done work) and run again; finished work is kept."
        )
    if error.errno in CLOSED:
        return StudyError(
            f"{path} cannot be written ({os.strerror(error.errno)}). Give yourself the right to "
            f"write in {path.parent}, and run again."
        )
    return error


def space_left(path: Path, needed: int) -> None:
    """Refuse to begin what cannot end: `needed` bytes must be free where `path` lies."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StudyError(
            f"{path} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Make room and run "
            "again."
        )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame, digits: int = 6) -> None:
    """Write a long-format table as csv (floats rounded to `digits`) or parquet, by suffix."""
    with atomic(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, float_format=f"%.{digits}f", lineterminator="\n")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex checksum of a file, read in 1 MiB pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


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
