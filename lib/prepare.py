"""01_data: from a data set's folder to the study's stores of images and backgrounds."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from lib import datasets, paths
from lib.errors import StudyError
from lib.fetch import mirror
from lib.files import key_of, read_json, write_json
from lib.store import Store, decode_all, short_side, write_store

POOLS = ("train", "validation", "test")


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


def copy_note(files: list[Path], official: bool) -> str:
    """What a reader must know of this copy of a published data set; empty if nothing.

    Official photographs come in many sizes. If nearly all have one short side, somebody shrank
    them.
    """
    if not official:
        return ""
    with ThreadPoolExecutor() as pool:
        side, count = Counter(pool.map(short_side, files)).most_common(1)[0]
    if count < 0.8 * len(files):
        return ""
    return (
        f"{count:,} of {len(files):,} pictures read have a short side of exactly {side} pixels: "
        "this is a shrunken, re-encoded copy, not the official files, and numbers on it are not "
        "numbers on those."
    )


def prepare_images(
    study: str, dataset: str, side: int, options: dict[str, Any] | None = None
) -> Store:
    """Decode a data set once into the study's store.

    Args:
        study: name of the study.
        dataset: key of lib.datasets.DATASETS.
        side: short side of the stored images in pixels.
        options: for an embedded data set, how it is made. With `subset: {classes: {split: count},
            per_class: count}` only the first classes of a split and images of a class are taken.
    """
    options = dict(options or {})
    subset = options.pop("subset", {})
    folder = datasets.locate(dataset, options)
    table = datasets.read(dataset, folder)
    if subset:
        table = choose(table, subset.get("classes", {}), subset.get("per_class", 0))
    check_index(table)
    files = [folder / path for path in table["path"]]
    table["sha256"] = [hashlib.sha256(_bytes(file)).hexdigest() for file in files]
    target = paths.StudyPaths(study).prepared / "images"
    store = write_store(
        target, table, decode_all(files, side, f"{study}: decoding (chunks of 256)")
    )
    note = copy_note(files, official=datasets.get(dataset).make is None)
    facts = {"dataset": dataset, "side": side, "options": options, "note": note}
    write_json(paths.StudyPaths(study).prepared / "data.json", facts)
    return store


def _bytes(file: Path) -> bytes:
    if not file.exists():
        raise StudyError(f"{file} is listed in the data set's index but does not exist.")
    return file.read_bytes()


def about(study: str) -> dict[str, Any]:
    """What 01_data prepared for a study: dataset, side, options, a note on this copy of it."""
    file = paths.StudyPaths(study).prepared / "data.json"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 01_data for study {study} first.")
    return read_json(file)


def source_files(study: str) -> list[Path]:
    """The original file of every row of the study's store (the masks are made from these)."""
    home, facts = paths.StudyPaths(study).prepared, about(study)
    folder = datasets.locate(facts["dataset"], facts["options"])
    return [folder / path for path in Store.open(home / "images").index["path"]]


def background_files(source: str, count: int, seed: int, side: int) -> dict[str, list[Path]]:
    """Photographs of each pool; no photograph is in two pools.

    `unsplash`: the paper's 200 photographs; it trains and validates on one half and tests on the
    other, we also keep every fifth of the first half for validation only. `rendered`: drawn by
    lib.render, `count` a pool. Anything else: a folder with train/, validation/ and test/.
    """
    if source == "rendered":
        return {pool: _rendered(pool, count, seed, side) for pool in POOLS}
    place = Path(source).expanduser()
    if source == "unsplash":
        home = mirror()
        tried = [place / "backgrounds" for place in (home,) if place]
        tried.append(paths.RAW / "backgrounds")
        place = next((folder for folder in tried if (folder / "test").is_dir()), tried[-1])
    pools = {pool: _pictures(place / pool) for pool in ("train", "validation", "test")}
    if source == "unsplash":
        half = pools["train"]
        pools["validation"] = half[4::5]
        pools["train"] = [file for file in half if file not in pools["validation"]]
    empty = [pool for pool, files in pools.items() if not files]
    if empty:
        raise StudyError(
            f"no background photographs in {place} for {', '.join(empty)}. The paper's are in the "
            "repository LSX-UniWue/background-bias-in-dml, data/unsplash_backgrounds: copy its val "
            f"folder to {place}/train and its test folder to {place}/test, or set DATA_MIRROR."
        )
    return pools


def _pictures(folder: Path) -> list[Path]:
    kinds = {".jpg", ".jpeg", ".png", ".webp"}
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in kinds)


def _rendered(pool: str, count: int, seed: int, side: int) -> list[Path]:
    from lib.render import render_backgrounds

    number = seed * len(POOLS) + POOLS.index(pool)
    folder = paths.RAW / f"backgrounds-{key_of(seed=number, count=count, side=side)}"
    if not folder.exists():
        render_backgrounds(folder, seed=number, count=count, side=side)
    return _pictures(folder)


def prepare_backgrounds(study: str, source: str, count: int, seed: int, side: int) -> Store:
    """Decode the three pools of backgrounds into one store; `split` names the pool."""
    pools = background_files(source, count, seed, side)
    rows = [(file.name, pool) for pool, files in pools.items() for file in files]
    index = pd.DataFrame(rows, columns=["path", "split"]).assign(label=0)
    files = [file for pool in pools.values() for file in pool]
    target = paths.StudyPaths(study).prepared / "backgrounds"
    return write_store(target, index, decode_all(files, side, f"{study}: backgrounds"))
