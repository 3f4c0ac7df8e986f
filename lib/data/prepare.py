"""01_data: from a data set's folder to the study's store of images."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import read_json, space_left, write_json, write_table
from lib.data import datasets
from lib.data.checks import AHEAD, find_faults, look_at_all, refuse_broken
from lib.data.store import Store, write_store

CHANNELS, USUAL = 3, 4 / 3  # of a photograph: channels, long side by short side


def choose(table: pd.DataFrame, classes: dict[str, int], per_class: int) -> pd.DataFrame:
    """Keep the first `classes[split]` classes a split and `per_class` images each (0: all)."""
    for split, count in classes.items():
        kept = sorted(table.loc[table["split"] == split, "label"].unique())[:count]
        table = table[(table["split"] != split) | table["label"].isin(kept)]
    if per_class:
        table = table.groupby("label", sort=False).head(per_class)
    return table.reset_index(drop=True)


def check_index(table: pd.DataFrame) -> None:
    """Refuse a table that a class-disjoint retrieval study cannot use."""
    if table[["path", "label", "class_name", "split"]].isna().any(axis=None):
        row = table[table[["path", "label", "class_name", "split"]].isna().any(axis=1)].iloc[0]
        raise StudyError(f"{row['path']} has no label, class or split in the data set's index.")
    twice = table.loc[table["path"].duplicated(), "path"].tolist()
    if twice:
        raise StudyError(f"{twice[0]} is listed twice ({len(twice)} such). Keep one line of each.")
    shared = table.groupby("label")["split"].nunique()
    if (shared > 1).any():
        raise StudyError(f"classes {list(shared[shared > 1].index)} lie in more than one split.")
    lone = table.groupby(["split", "class_name"]).size()
    if (lone < 2).any():
        names = ", ".join(name for _, name in lone[lone < 2].index[:5])
        raise StudyError(f"a class needs at least two images to be retrieved; alone: {names}.")
    classes = table.groupby("split")["label"].nunique()
    few = [split for split in datasets.SPLITS if classes.get(split, 0) < 2]
    if few:
        raise StudyError(
            f"fewer than two classes in split {', '.join(few)}: nothing to tell apart."
        )


def copy_note(sides: pd.Series, official: bool) -> str:
    """What a reader must know of this copy of a published data set; empty if nothing.

    Official photographs come in many sizes. If nearly all have one short side, somebody shrank
    them.

    Args:
        sides: (N,) short side of every picture in pixels.
        official: the data set is published photographs.
    """
    if not official or sides.empty:
        return ""
    side, count = Counter(sides).most_common(1)[0]
    if count < 0.8 * len(sides):
        return ""
    return (
        f"{count:,} of {len(sides):,} pictures read have a short side of exactly {side} pixels: "
        "this is a shrunken, re-encoded copy, not the official files, and numbers on it are not "
        "numbers on those."
    )


def prepare_images(
    study: str,
    dataset: str,
    side: int,
    options: dict[str, Any] | None = None,
    allow_broken: bool = False,
) -> Store:
    """Open every picture of a data set once: check it, shrink it, put it into the study's store.

    Args:
        study: name of the study.
        dataset: key of lib.data.datasets.DATASETS.
        side: short side of the stored images in pixels.
        options: for an embedded data set, how it is made; for one's own folder, where it is. With
            `subset: {classes: {split: count}, per_class: count}` only the first classes of a
            split and images of a class are taken.
        allow_broken: leave pictures out that cannot be decoded, instead of stopping.
    """
    if side < 1:
        raise StudyError(f"side is {side}; wanted: the short side in pixels, 1 or more.")
    options = dict(options or {})
    subset = options.pop("subset", {})
    folder, place = datasets.locate(dataset, options)
    table = datasets.read(dataset, folder, options)
    if subset:
        table = choose(table, subset.get("classes", {}), subset.get("per_class", 0))
    check_index(table)
    home, seen = paths.StudyPaths(study).prepared, []
    space_left(home / "images" / "pixels.u8", CHANNELS * USUAL * side**2 * len(table))

    def pixels() -> Iterator[np.ndarray | None]:
        files = [folder / path for path in table["path"]]
        for facts, picture in look_at_all(files, side, f"{study}: decoding (chunks of {AHEAD})"):
            seen.append(facts)
            yield picture
        table["sha256"] = [facts["sha256"] for facts in seen]
        found = find_faults(_joined(table, seen), side)
        write_table(home / "faults.csv", found)
        if not allow_broken:
            refuse_broken(found, folder)

    store = write_store(home / "images", table, pixels())
    check_index(store.index)
    entry, files = datasets.get(dataset), _joined(table, seen)
    write_table(home / "files.csv", files)
    sides = files.loc[files["error"] == "", ["height", "width"]].min(axis=1)
    own = entry.make is not None or entry.own
    facts = {
        "dataset": dataset, "side": side, "options": options, "place": place,
        "note": copy_note(sides, official=not own), "seen": len(files), "expected": entry.expected,
        "files": hashlib.sha256("".join(files["sha256"]).encode()).hexdigest(),
    }  # fmt: skip
    write_json(home / "data.json", facts)
    return store


def _joined(table: pd.DataFrame, seen: list[dict[str, Any]]) -> pd.DataFrame:
    facts = pd.DataFrame(seen).drop(columns="sha256")
    return pd.concat([table.reset_index(drop=True), facts], axis=1)


def about(study: str) -> dict[str, Any]:
    """What 01_data prepared for a study: dataset, side, options, a note on this copy of it."""
    file = paths.StudyPaths(study).prepared / "data.json"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 01_data for study {study} first.")
    return read_json(file)


def source_files(study: str) -> list[Path]:
    """The original file of every row of the study's store (the masks are made from these)."""
    home, facts = paths.StudyPaths(study).prepared, about(study)
    folder, _ = datasets.locate(facts["dataset"], facts["options"])
    return [folder / path for path in Store.open(home / "images").index["path"]]
