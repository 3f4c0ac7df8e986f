"""A folder of one's own images: which files are images, of which class, in which split.

Everything below the folder is either an image of the study or named with the reason why not.
"""

import csv
import errno
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lib.core.errors import StudyError
from lib.data.decode import PICTURES, is_image

LABELS = "labels.csv"
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION,
    "validation": VALIDATION, "test": TEST, "testing": TEST, "eval": TEST,
}  # fmt: skip
PLAIN = {"set", "data", "dataset", "images", "image", "imgs", "img", "photos", "split"}
Way = tuple[str, ...]  # folders, one in the other
MASKS = "masks"  # beside the classes (or images/): exact masks, for the mask source `true`
# What systems, archives and network drives put between one's own files.
SYSTEM = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "desktop db", "desktop df",
    "icon\r", "__macosx", "_macosx", "network trash folder", "temporary items",
    "thevolumesettingsfolder", "thefindbycontentfolder", "$recycle.bin", "recycler",
    "system volume information", "$extend", "$winreagent", "config.msi", "msdownld.tmp",
    "wpsystem", "lost+found", "lost.dir", "__pycache__", "@eadir", "@tmp", "@sharebin",
    "@sharesnap", "@recycle", "@recently-snapshot", "@__thumb", "@transcode", "@upload_cache",
    "#recycle", "#snapshot", "~snapshot",
}  # fmt: skip
SAVED = re.compile(r"found\.\d{3}")  # pieces of files that Windows saved
RAW = {
    ".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".nrw",
}  # fmt: skip
# Why a file is no image of the study.
HIDDEN = "hidden, or of the system"
NO_IMAGE = "not an image"
CAMERA = "raw data of a camera: export it as JPEG or TIFF"
LOOSE = "in no class folder"
TRUTH = "an exact mask (mask source: true)"
UNLISTED = f"not in {LABELS}"
NOWHERE = "a link to nowhere"
AGAIN = "a folder that is read in another place (a link)"
UNREADABLE = "cannot be read: no right to, or damaged"


@dataclass(frozen=True)
class Survey:
    """What lies below a folder: images, and (path, why) of all else, both relative to it."""

    images: list[PurePosixPath]
    left_out: list[tuple[str, str]]


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits in their order."""
    return sorted(splits, key=SPLITS.index)


def hidden(name: str) -> bool:
    """Whether a file or folder is none that its owner put there to be seen."""
    lower = name.lower()
    return name.startswith((".", "~$")) or lower in SYSTEM or bool(SAVED.fullmatch(lower))


def split_of(name: str) -> str | None:
    """The split that a folder is called after (Train, test_set, val2017); None if none."""
    words = re.findall(r"[^\W\d_]+|\d+", name.lower())
    words = [word for word in words if word not in PLAIN and not re.fullmatch(r"20\d\d", word)]
    if len(words) != 1:
        return None
    return SPLIT_NAMES.get(words[0].removesuffix("set").removesuffix("data"))


def text_of(path: PurePosixPath) -> str:
    """A path as text; a name in bytes of another encoding raises."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise StudyError(
            f"{str(path)!r} is no text in UTF-8, so no table can name this image. Rename it."
        ) from error
    return str(path)


def walk(root: Path) -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """Every folder below a root, in the order of names: its files, and (why) folders not entered.

    Links to folders are followed, but no folder is entered twice, and none that holds the root: a
    link to a folder that is reached by its own name is not entered.
    """

    def refuse(error: OSError) -> None:
        raise StudyError(
            f"{error.filename} cannot be read ({error.strerror}). Get the right to read it, or "
            "take it out of the folder."
        ) from error

    home = Path(os.path.realpath(root))
    seen = {home}
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        passed: dict[str, str] = {}
        for name in sorted(folders):
            here = Path(place, name)
            real = Path(os.path.realpath(here))
            if hidden(name):
                passed[name] = HIDDEN
            elif real in seen or (os.path.islink(here) and _reached(home, real)):
                passed[name] = AGAIN
            else:
                seen.add(real)
        folders[:] = sorted(set(folders) - set(passed))
        yield Path(place), sorted(files), passed


def _reached(home: Path, real: Path) -> bool:
    """Whether a folder holds the root, or lies below it where it is entered by its own name."""
    if not real.is_relative_to(home):
        return home.is_relative_to(real)
    return not any(hidden(name) for name in real.relative_to(home).parts)


def survey(root: Path) -> Survey:
    """Look at everything below a folder. Folders that are not entered are named."""
    images: list[PurePosixPath] = []
    left: list[tuple[str, str]] = []
    for place, files, passed in walk(root):
        here = PurePosixPath(place.relative_to(root).as_posix())
        left += [(f"{here / name}/", why) for name, why in passed.items()]
        for name in files:
            why = _why_not(place / name)
            if why == "":
                text_of(here / name)
                images.append(here / name)
            elif name != LABELS or str(here) != ".":
                left.append((str(here / name), why))
    return Survey(images, left)


def _why_not(file: Path) -> str:
    """Why a file is no image of the study; "" if it is one, sound or not."""
    suffix = file.suffix.lower()
    if hidden(file.name):
        return HIDDEN
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return NO_IMAGE
        if suffix not in PICTURES:
            open(file, "rb").close()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return NOWHERE
        return "" if suffix in PICTURES else UNREADABLE
    if suffix in RAW:
        return CAMERA
    return "" if suffix in PICTURES or is_image(file) else NO_IMAGE


# ---------------------------------------------------------------------------------------- folders


def by_folders(root: Path) -> tuple[pd.DataFrame, Survey]:
    """Classes from folders. Returns the table (path, label, class_name, maybe split), and the rest.

    The class of an image is the topmost folder on its way that holds images itself: what lies in
    folders inside a class is of that class, a folder that holds only folders is a group, and its
    classes are called `group/class`. A single folder about everything is passed through; `train`,
    `val` and `test` are splits where nothing else lies beside them. Inside a class (Apple/train)
    they are used if no class is in two of them; else the column `merged` says whose was not used.
    """
    found = survey(root)
    kept, left = _without_masks(found)
    kept, loose = _in_folders(kept)
    if not kept:
        raise StudyError(_nothing(root, found))
    kept, more, depth = _unwrapped(kept)
    ways = [path.parts[depth:-1] for path in kept]
    known = set(ways)
    above = _above_splits(root.joinpath(*kept[0].parts[:depth]), known)
    found_in = [_class_and_split(way, known, above) for way in ways]
    table = pd.DataFrame(found_in, columns=["class_name", "split"])
    table.insert(0, "path", [str(path) for path in kept])
    loose += more + [path for path, name in zip(kept, table["class_name"], strict=True) if not name]
    table = table[table["class_name"] != ""].reset_index(drop=True)
    if table.empty:
        raise StudyError(_nothing(root, found, sorted({path.parts[depth] for path in kept})))
    table.insert(1, "label", np.unique(table["class_name"], return_inverse=True)[1])
    left += [(str(path), LOOSE) for path in loose]
    images = [PurePosixPath(path) for path in table["path"]]
    return _with_splits(table, () in above), Survey(images, sorted(left))


def _without_masks(found: Survey) -> tuple[list[PurePosixPath], list[tuple[str, str]]]:
    """Images without those of a folder masks/ that mirrors the classes (or images/)."""
    masks = [path for path in found.images if path.parts[0] == MASKS and len(path.parts) > 2]
    others = [path.parts[:-1] for path in found.images if path.parts[0] != MASKS]
    mirrored = {*others, *(way[1:] for way in others if way[:1] == ("images",))}
    if not masks or not {path.parts[1:-1] for path in masks} <= mirrored:
        return list(found.images), list(found.left_out)
    kept = [path for path in found.images if path not in set(masks)]
    return kept, [*found.left_out, *((str(path), TRUTH) for path in masks)]


def _in_folders(paths: list[PurePosixPath]) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Images in folders, and those directly at the top."""
    return [p for p in paths if len(p.parts) > 1], [p for p in paths if len(p.parts) == 1]


def _unwrapped(
    paths: list[PurePosixPath],
) -> tuple[list[PurePosixPath], list[PurePosixPath], int]:
    """Pass through folders that hold all the rest: images below, images beside, how many levels."""
    loose: list[PurePosixPath] = []
    depth = 0
    while len({path.parts[depth] for path in paths}) == 1:
        deeper = [path for path in paths if len(path.parts) > depth + 2]
        if not deeper:
            break
        loose += [path for path in paths if len(path.parts) == depth + 2]
        paths, depth = deeper, depth + 1
    return paths, loose, depth


def _above_splits(top: Path, ways: set[Way]) -> set[Way]:
    """The folders (from `top` on) whose folders are splits; refuses where that cannot be told."""
    below: dict[Way, set[str]] = {}
    for way in ways:
        for end in range(len(way)):
            below.setdefault(way[:end], set()).add(way[end])
            if way[: end + 1] in ways:
                break  # a class begins: its folders mean nothing
    above = set()
    for folder, names in sorted(below.items()):
        splits = sorted(name for name in names if split_of(name))
        if len(splits) == len(names):
            above.add(folder)
        elif splits and (
            [name.lower() for name in splits] != [TRAIN] or (*folder, *splits) not in ways
        ):
            beside = _some(sorted(names - set(splits)))
            raise StudyError(
                f"{top.joinpath(*folder)} holds splits ({', '.join(splits)}) and beside them "
                f"{beside}. Move these into a split, or out of the folder. If {splits[0]} is a "
                f"class, call it '{splits[0]} (class)', or write a labels.csv."
            )
    return above


def _class_and_split(way: Way, ways: set[Way], above: set[Way]) -> tuple[str, str | None]:
    """Class ("" where only splits are on the way) and split (None where none is) of a folder."""
    names, split = [], None
    for end, name in enumerate(way, start=1):
        if way[: end - 1] in above:
            split = split or split_of(name)
        else:
            names.append(name)
        if names and way[:end] in ways:
            break
    return "/".join(names), split


def _with_splits(table: pd.DataFrame, at_the_top: bool) -> pd.DataFrame:
    """A table without the column `split` where its splits are none, or of no use to the study."""
    named = table["split"].notna()
    useful = table["split"].nunique() > 1
    if not at_the_top and named.any():
        useful &= named.all() and (table.groupby("class_name")["split"].nunique() == 1).all()
        if not useful:
            table = table.assign(merged=named)
    return table if useful else table.drop(columns="split")


def _nothing(root: Path, found: Survey, splits: Iterable[str] = ()) -> str:
    """Why a folder (or splits in it) gives no classes, and what to do."""
    remedy = (
        "Put them there as <class>/<image>.jpg, or with a labels.csv of the columns path, label "
        "and, if you like, split."
    )
    if splits:
        return (
            f"{root} holds splits ({', '.join(splits)}) with images, but no class folders in them. "
            f"{remedy} If these are classes, call them '{next(iter(splits))} (class)' and so on."
        )
    if found.images:
        return f"{len(found.images)} images lie directly in {root}, in no class folder. {remedy}"
    reasons = pd.Series([why for _, why in found.left_out], dtype=str).value_counts()
    other = "; ".join(f"{count} {why}" for why, count in reasons.items())
    return f"{root} holds no images{f' ({other})' if other else ''}. {remedy}"


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ------------------------------------------------------------------------------------- labels.csv


def _lines(file: Path) -> pd.DataFrame:
    """labels.csv as text, whatever its encoding (UTF-8, or Windows') and its separator."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StudyError(f"{file} cannot be read ({error.strerror}).") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise StudyError(f"{file} is no table ({error}). Look at its quotes.") from error
    columns = [name.strip().lower() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) != len(columns):
            raise StudyError(
                f"{file}: line {number} has {len(row)} fields, the first line {len(columns)}. Put "
                "a name with commas into quotes."
            )
    missing = {"path", "label"} - set(columns)
    if missing:
        raise StudyError(f"{file} lacks the column {sorted(missing)[0]}; it has {columns}.")
    return pd.DataFrame([row for row in rows[1:] if row], columns=columns, dtype=str)


def by_labels(root: Path) -> tuple[pd.DataFrame, Survey]:
    """Classes from labels.csv: path, label (any text), maybe split. Returns the table, the rest."""
    file = root / LABELS
    table = _lines(file)
    words = [name for name in ("label", "split") if name in table]
    table[words] = table[words].apply(lambda column: column.str.strip())
    blank = np.flatnonzero((table["path"].str.strip() == "") | (table["label"] == ""))
    if len(blank):
        raise StudyError(f"{file}: line {blank[0] + 2} lacks its path or label.")
    if not len(table):
        raise StudyError(f"{file} lists no images.")
    table["path"] = [_below(root, file, name) for name in table["path"]]
    table["class_name"] = table["label"]
    table["label"] = np.unique(table["class_name"], return_inverse=True)[1]
    columns = ["path", "label", "class_name"]
    if "split" in table:
        known = table["split"].map(split_of)
        wrong = table.loc[known.isna(), "split"]
        if len(wrong):
            raise StudyError(f"{file} has split {wrong.iloc[0]!r}; known: {', '.join(SPLITS)}.")
        table["split"] = known
        columns.append("split")
    found, listed = survey(root), set(table["path"])
    kept, left = _without_masks(found)
    left += [(str(path), UNLISTED) for path in kept if str(path) not in listed]
    left = [(path, why) for path, why in left if path not in listed]
    return table[columns], Survey([PurePosixPath(path) for path in table["path"]], sorted(left))


def _below(root: Path, file: Path, name: str) -> str:
    """A path of labels.csv relative to its folder; Windows' backslashes where they are meant."""
    if not os.path.exists(root / name):  # Path.exists raises where it may not look
        name = name.strip().replace("\\", "/")
    path = Path(name)
    if path.is_absolute():
        if not path.is_relative_to(root):
            raise StudyError(f"{file} names {name}, which is not below {root}.")
        path = path.relative_to(root)
    if ".." in path.parts:
        raise StudyError(f"{file} names {name}, which is not below {root}.")
    return text_of(PurePosixPath(path.as_posix()))


# ------------------------------------------------------------------------------- what was left out


def look(root: Path) -> tuple[pd.DataFrame, Survey]:
    """The table of a folder of one's own, by labels.csv where there is one, and what is left."""
    return by_labels(root) if os.path.exists(root / LABELS) else by_folders(root)


def left_out(root: Path) -> pd.DataFrame:
    """Everything below a folder that is no image of the study: path, why."""
    return pd.DataFrame(look(root)[1].left_out, columns=["path", "why"])
