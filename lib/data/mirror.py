"""Getting files that are not in git: the mirror, unpacked archives, files out of packages."""

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import space_left
from lib.data.download import Archive, Drive, Kaggle, download, from_drive, from_kaggle


def mirror() -> Path | None:
    """The folder that DATA_MIRROR names, or None; it must exist when it is named."""
    name = os.environ.get("DATA_MIRROR")
    if not name:
        return None
    if not Path(name).is_dir():
        raise StudyError(f"DATA_MIRROR names {name}, which is not a folder. Correct or unset it.")
    return Path(name)


def bring(source: Archive | Drive | Kaggle, folder: Path) -> Path:
    """Download a source and unpack it into `folder`, which must be empty or absent."""
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(
            f"{folder} is not empty, but holds no layout that the study knows. Move what is in it "
            "away, or put the data set there in one of its layouts."
        )
    archives = paths.RAW / "archives"
    if isinstance(source, Kaggle):
        return from_kaggle(source, folder)
    if isinstance(source, Drive):
        return extract(from_drive(source, archives), folder)
    return extract(download(source, archives), folder)


def _refuse(archive: Path, why: str) -> StudyError:
    return StudyError(f"{archive} {why}: refused. Get the archive from its official source.")


def _check_zip(members: zipfile.ZipFile, archive: Path) -> None:
    for name in members.namelist():
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or ":" in name:
            raise _refuse(archive, f"holds {name!r}, which points outside the target folder")
    _check_size(archive, sum(member.file_size for member in members.infolist()))


def _check_size(archive: Path, size: int) -> None:
    """Photographs do not shrink in an archive; one that grows a hundredfold is a bomb."""
    if size > 100 * archive.stat().st_size + 10**6:
        raise _refuse(archive, f"would unpack to {size / 1e9:.1f} GB, over a hundred times its own")
    space_left(archive, size)


def extract(archive: Path, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Unpack a tar or zip into `target`, whole or not at all.

    Members and links that lead outside, and archives that unpack to over a hundred times their
    size, are refused. `wanted` picks members of a zip by name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as members:
                _check_zip(members, archive)
                members.extractall(temporary, [n for n in members.namelist() if wanted(n)])
        else:
            with tarfile.open(archive) as members:
                _check_size(archive, sum(member.size for member in members))
                members.extractall(temporary, filter="data")
        os.replace(temporary, target)
    except tarfile.FilterError as error:
        raise _refuse(archive, f"holds a member outside the target folder ({error})") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise StudyError(
            f"{archive} is not a whole archive ({error}). Delete it and run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
