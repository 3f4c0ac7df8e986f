"""What the paper's authors published beside their code: backgrounds and hand-labelled masks."""

import zipfile
from pathlib import Path

from lib.core import paths
from lib.core.errors import StudyError
from lib.data.download import Archive, download
from lib.data.mirror import extract, mirror

COMMIT = "629df667cb77638ccb1eb9feda52700f53ad2c3c"
ARCHIVE = Archive(f"https://github.com/LSX-UniWue/background-bias-in-dml/archive/{COMMIT}.zip")
ROOT = f"background-bias-in-dml-{COMMIT}"
BACKGROUNDS = {"train": "val", "test": "test"}  # our pool: their folder


def backgrounds() -> tuple[dict[str, Path], str]:
    """Folders of their two pools of photographs (train, test), and where they came from."""
    places = {"data/raw": paths.RAW / "backgrounds"}
    if home := mirror():
        places = {"DATA_MIRROR": home / "backgrounds"} | places
    for title, place in places.items():
        if (place / "test").is_dir():
            return {pool: place / pool for pool in BACKGROUNDS}, title
    home = _repository() / "data" / "unsplash_backgrounds"
    return {pool: home / theirs for pool, theirs in BACKGROUNDS.items()}, f"commit {COMMIT[:8]}"


def hand_masks(dataset: str) -> list[Path]:
    """Their hand-labelled masks of a data set (N_mask.png beside N_image.* and N_mask_pred.png).

    Looked for in DATA_MIRROR, in data/raw, and in the repository if it was downloaded; else none.
    """
    places = [place / "mask_quality" for place in (mirror(), paths.RAW) if place]
    places.append(paths.RAW / "authors" / ROOT / "notebooks" / "gt_masks")
    found = [sorted((place / dataset).glob("*_mask.png")) for place in places]
    return next((files for files in found if files), [])


def _repository() -> Path:
    """Their repository, downloaded once at a fixed commit; none of its code is run.

    No checksum of the archive is published. The commit names the content; GitHub writes it into
    the archive's comment, which is compared.
    """
    target = paths.RAW / "authors"
    if not target.exists():
        archive = download(ARCHIVE, paths.RAW / "archives")
        with zipfile.ZipFile(archive) as members:
            comment = members.comment.decode()
        if comment != COMMIT:
            raise StudyError(f"{archive} is commit {comment!r}, expected {COMMIT}. Delete it.")
        extract(archive, target)
    return target / ROOT
