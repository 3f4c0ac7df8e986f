"""From a data set's folder to the study's store of images (page 01)."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import digest, key_of, read_json, space_left, write_json, write_table
from lib.core.progress import say
from lib.data import datasets, own
from lib.data.backgrounds import prepare_backgrounds
from lib.data.checks import find_faults, look, refuse_broken
from lib.data.store import AHEAD, Store, finished, in_order, sizes_of, write_store

CHANNELS, USUAL = 3, 4 / 3  # of a photograph: channels, long side by short side
COLUMNS = ["path", "label", "class_name", "split"]


def measure(
    study: str,
    dataset: str,
    side: int,
    backgrounds: str,
    background_count: int,
    options: dict[str, Any],
    allow_broken: bool = False,
) -> None:
    """The measuring step of page 01: images and backgrounds of a study, always made afresh."""
    prepare_images(study, dataset, side, options, allow_broken, afresh=True)
    prepare_backgrounds(study, backgrounds, background_count, seed=0, side=side, afresh=True)


def check_index(table: pd.DataFrame) -> None:
    """Refuse a table that a class-disjoint retrieval study cannot use."""
    blank = table[COLUMNS].isna().any(axis=1)
    if blank.any():
        name = table.loc[blank, "path"].iloc[0]
        raise StudyError(f"{name} has no label, class or split in the data set's index.")
    twice = table.loc[table["path"].duplicated(), "path"].tolist()
    if twice:
        raise StudyError(f"{twice[0]} is listed twice ({len(twice)} such). Keep one line of each.")
    shared = table.groupby(["label", "class_name"])["split"].unique()
    shared = shared[shared.map(len) > 1]
    if len(shared):
        places = [(name, " and ".join(own.in_order(found))) for (_, name), found in shared.items()]
        names = "; ".join(f"{name} in {found}" for name, found in places[:5])
        raise StudyError(
            f"{len(shared)} classes lie in more than one split: {names}. Retrieval is tested on "
            "classes that training has not seen. Give every class one split, or let classes be "
            f"dealt out anew: options: {{splits: {datasets.DRAWN}}} in the study's data section."
        )
    lone = table.groupby(["split", "class_name"]).size()
    if (lone < 2).any():
        names = ", ".join(name for _, name in lone[lone < 2].index[:5])
        raise StudyError(
            f"a class needs at least two images, one to be found by the other; alone: {names}. "
            "Add an image, or take the class out."
        )
    classes = table.groupby("split")["label"].nunique()
    few = [split for split in datasets.SPLITS if classes.get(split, 0) < 2]
    if few:
        raise StudyError(
            f"fewer than two classes in split {', '.join(few)}: nothing to tell apart. Add "
            "classes, or move some there."
        )


def copy_note(sides: pd.Series, official: bool) -> str:
    """What a reader must know of this copy of a published data set; empty if nothing.

    Official photographs come in many sizes. If nearly all have one short side, somebody shrank
    them.

    Args:
        sides: (N,) short side of every image in pixels.
        official: the data set is published photographs.
    """
    counts = sides.value_counts()
    if not official or counts.empty or counts.iloc[0] < 0.8 * len(sides):
        return ""
    return (
        f"{counts.iloc[0]:,} of {len(sides):,} images read have a short side of exactly "
        f"{counts.index[0]} pixels: this is a shrunken, re-encoded copy, not the official files, "
        "and numbers on it are not numbers on those."
    )


def prepare_images(
    study: str,
    dataset: str,
    side: int,
    options: dict[str, Any] | None = None,
    allow_broken: bool = False,
    afresh: bool = False,
) -> Store:
    """Open every image of a data set once: check it, shrink it, put it into the study's store.

    Finished work is returned at once if it was made by the same request from files of the same
    names and sizes.

    Args:
        study: name of the study.
        dataset: key of lib.data.datasets.DATASETS.
        side: short side of the stored images in pixels.
        options: for an embedded data set, how it is made; for one's own folder, where it is.
        allow_broken: leave images out that cannot be decoded, instead of stopping.
        afresh: do the work even where it is finished.
    """
    if side < 1:
        raise StudyError(f"side is {side}; wanted: the short side in pixels, 1 or more.")
    options = dict(options or {})
    folder, place = datasets.locate(dataset, options)
    table = datasets.read(dataset, folder, options)
    check_index(table)
    home, files = paths.StudyPaths(study).prepared, [folder / path for path in table["path"]]
    asked = {"dataset": dataset, "side": side, "options": options, "place": place}
    request = key_of(
        **asked, code=fingerprint("data"), allow_broken=allow_broken,
        table=table.to_csv(index=False), sizes=sizes_of(files),
    )  # fmt: skip
    if not afresh and (store := finished(home / "data.json", request, home / "images")):
        return store
    if "merged" in table:
        say(
            f"{study}: {int(table['merged'].sum())} images lie in split folders inside their "
            "classes. A class must be in one split, so that these folders are not used as splits."
        )
    store, seen = _fill(home, table, files, side, None if allow_broken else folder)
    entry = datasets.get(dataset)
    left = own.left_out(folder) if entry.own else pd.DataFrame(columns=["path", "why"])
    write_table(home / "left_out.csv", left)
    facts = {
        "note": copy_note(seen.loc[seen["error"] == "", ["height", "width"]].min(axis=1),
                          official=entry.published),
        "truth": _seal(folder, left[left["why"] == own.TRUTH]["path"]),
        "seen": len(seen), "left_out": len(left), "expected": entry.expected,
        "files": hashlib.sha256("".join(seen["sha256"]).encode()).hexdigest(),
        "request": request, "store": store.fingerprint,
    }  # fmt: skip
    facts = asked | facts
    write_json(home / "data.json", facts | {"seal": key_of(**facts)})
    return store


def _seal(folder: Path, names: Iterable[str]) -> str:
    """One checksum for some files: exact masks are made again if it changes."""
    return key_of(files={name: digest(folder / name) for name in names})


def _fill(
    home: Path, table: pd.DataFrame, files: list[Path], side: int, strict: Path | None
) -> tuple[Store, pd.DataFrame]:
    """Write images, files.csv and faults.csv; broken files of the folder `strict` stop it."""
    space_left(home / "images" / "pixels.u8", CHANNELS * USUAL * side**2 * len(table))
    facts: list[dict[str, Any]] = []

    def pixels() -> Iterator[np.ndarray | None]:
        title = f"{home.name}: decoding (chunks of {AHEAD})"
        for fact, image in in_order(lambda file: look(file, side), files, title):
            facts.append(fact)
            yield image
        table["sha256"] = [fact.pop("sha256") for fact in facts]
        seen = pd.concat([table, pd.DataFrame(facts)], axis=1)
        write_table(home / "files.csv", seen)
        write_table(home / "faults.csv", faults := find_faults(seen))
        if strict:
            refuse_broken(faults, strict)

    store = write_store(home / "images", table, pixels())
    check_index(store.index)
    return store, pd.concat([table, pd.DataFrame(facts)], axis=1)


def about(study: str) -> dict[str, Any]:
    """What was prepared for a study: dataset, side, options, a note on this copy of it."""
    file = paths.StudyPaths(study).prepared / "data.json"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 01_data for study {study} first.")
    return read_json(file)


def original_files(study: str) -> list[Path]:
    """Where the original of every row of the study's store lies, read or not."""
    facts = about(study)
    folder, _ = datasets.locate(facts["dataset"], facts["options"])
    index = Store.open(paths.StudyPaths(study).prepared / "images").index
    return [folder / path for path in index["path"]]


def source_files(study: str) -> list[Path]:
    """`original_files`, each checked: masks must be made of the images that were stored.

    Raises:
        StudyError: names a file that is gone, or whose sha256 is not the one in the store's index.
    """
    index = Store.open(paths.StudyPaths(study).prepared / "images").index
    files = original_files(study)
    gone = next((file for file in files if not os.path.exists(file)), None)
    if gone:
        raise StudyError(f"{gone} is gone since 01_data. Put it back, or run 01_data again.")
    found = in_order(digest, files, f"{study}: checking (chunks of {AHEAD})")
    for file, seen, expected in zip(files, found, index["sha256"], strict=True):
        if seen != expected:
            raise StudyError(
                f"{file} is not the file that 01_data stored (another sha256): it was changed, or "
                "swapped with another. Put it back, or run 01_data again."
            )
    return files
