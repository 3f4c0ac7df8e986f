"""Data sets that are not in git: the mirror, downloads, unpacked archives."""

import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import space_left
from lib.data.download import Archive, Drive, Kaggle, download, from_drive, from_kaggle


def mirror() -> Path | None:
    """The folder that DATA_MIRROR names, or None; it must exist when it is named."""
    name = os.environ.get("DATA_MIRROR")
    if name and not Path(name).is_dir():
        raise StudyError(f"DATA_MIRROR names {name}, which is not a folder. Correct or unset it.")
    return Path(name) if name else None


def bring(source: Archive | Drive | Kaggle, folder: Path) -> Path:
    """Download a source and unpack it into `folder`, which must be empty or absent."""
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(
            f"{folder} is not empty, but holds no layout that the study knows. Move what is in it "
            "away, or put the data set there in one of its layouts."
        )
    if isinstance(source, Kaggle):
        return from_kaggle(source, folder)
    fetch = from_drive if isinstance(source, Drive) else download
    return extract(fetch(source, paths.RAW / "archives"), folder)


def extract(archive: Path, target: Path) -> Path:
    """Unpack a tar or zip into `target`, whole or not at all.

    Nothing is written outside `target`: zipfile keeps such members inside, tarfile's filter
    refuses them. Photographs do not shrink in an archive, so one that unpacks to over a hundred
    times its own size is refused.
    """
    zipped = zipfile.is_zipfile(archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch,
            zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as members,
        ):
            size = sum(m.file_size if zipped else m.size for m in _members(members))
            if size > 100 * archive.stat().st_size + 10**6:
                raise StudyError(
                    f"{archive} would unpack to {size / 1e9:.1f} GB, over a hundred times its own "
                    "size: refused. Get it from its official source."
                )
            space_left(archive, size)
            members.extractall(f"{scratch}/new", **{} if zipped else {"filter": "data"})
            os.replace(f"{scratch}/new", target)
    except tarfile.FilterError as error:
        raise StudyError(
            f"{archive} holds a member outside the target folder ({error}): refused. Get it from "
            "its official source."
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise StudyError(
            f"{archive} is not a whole archive ({error}). Delete it and run again."
        ) from error
    return target


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> list:
    return archive.infolist() if isinstance(archive, zipfile.ZipFile) else archive.getmembers()
