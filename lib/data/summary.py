"""What page 01 shows of a study's data, kept in git: it is told without a single photograph.

reports/<study>/measured/data/
    data.json            what was asked, where the images came from, fingerprints, pools
    images.parquet       a row an image: split, label, class_name, sizes stored and found, bytes
    faults.csv, left_out.csv, near_copies.csv
    pictures.jpg, .csv   examples of every split, near copies, backgrounds (column `kind`)
"""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.compact import Kept, read_compact, write_compact
from lib.core.files import read_json, write_json, write_table
from lib.core.tiles import small, write_tiles
from lib.data import datasets, prepare
from lib.data.backgrounds import prepare_backgrounds, source_of
from lib.data.near_duplicates import near_copies
from lib.data.store import Store

EXAMPLES, BACKGROUNDS, COPIES = 12, 8, 4  # images a split, backgrounds a pool, pairs of near copies
LONG = 140  # pixels of a kept picture's long side


class Summary(Kept):
    """The kept tables of one study; each is read when it is first asked for."""

    part = "data"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """data.json."""
        return read_json(self.there("data.json"))

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image of the store."""
        return read_compact([self.there("images.parquet")])

    def table(self, name: str) -> pd.DataFrame:
        """`faults`, `left_out` or `near_copies`."""
        return pd.read_csv(self.there(f"{name}.csv"), keep_default_na=False)

    def pictures(self, kind: str, part: str = "") -> tuple[list[np.ndarray], list[str]]:
        """Pictures and captions of a kind (examples, near_copies, backgrounds), of one split."""
        tiles, table = self.tiles("pictures")
        mine = table.index[(table["kind"] == kind) & (table["split"].eq(part) | (part == ""))]
        return [tiles[at] for at in mine], table.loc[mine, "caption"].tolist()


def read(study: str) -> Summary:
    """The kept tables of a study."""
    return Summary(study)


def measure(
    study: str,
    dataset: str,
    side: int,
    backgrounds: str,
    background_count: int,
    options: dict[str, Any],
    allow_broken: bool = False,
) -> None:
    """The measuring step of page 01: images and backgrounds made afresh, and what is seen."""
    asked = (dataset, side, backgrounds, background_count, options, allow_broken)
    prepare.measure(study, *asked)
    _write(study, _asked(*asked))


def look(
    study: str,
    dataset: str,
    side: int,
    backgrounds: str,
    background_count: int,
    options: dict[str, Any],
    allow_broken: bool = False,
) -> Summary:
    """What `measure` kept, if it was asked for the same; else images and backgrounds are prepared.

    Where the images are on this machine, they are looked at again: other files, another summary.
    """
    asked, kept = _asked(dataset, side, backgrounds, background_count, options, allow_broken), None
    if (read(study).folder / "data.json").exists():
        kept = read(study)
    if kept and kept.facts["asked"] == asked and not _here(study):
        return kept
    prepare.prepare_images(study, dataset, side, options, allow_broken)
    prepare_backgrounds(study, backgrounds, background_count, seed=0, side=side)
    if not kept or kept.facts != _facts(study, asked):
        _write(study, asked)
    return read(study)


def _here(study: str) -> bool:
    return (paths.StudyPaths(study).prepared / "data.json").exists()


def _asked(
    dataset: str, side: int, backgrounds: str, count: int, options: dict, allow_broken: bool
) -> dict[str, Any]:
    return {
        "dataset": dataset, "side": side, "backgrounds": backgrounds, "background_count": count,
        "options": options, "allow_broken": allow_broken,
    }  # fmt: skip


def _stores(study: str) -> tuple[Store, Store]:
    where = paths.StudyPaths(study).prepared
    return Store.open(where / "images"), Store.open(where / "backgrounds")


def _facts(study: str, asked: dict[str, Any]) -> dict[str, Any]:
    images, pools = _stores(study)
    told = {
        key: prepare.about(study)[key] for key in ("place", "seen", "left_out", "files", "note")
    }
    return told | {
        "asked": asked, "images": images.fingerprint, "backgrounds": pools.fingerprint,
        "backgrounds_from": source_of(study),
        "pools": {pool: len(pools.rows(pool)) for pool in datasets.SPLITS},
    }  # fmt: skip


def _write(study: str, asked: dict[str, Any]) -> None:
    """Write the tables; data.json last, as the sign that they are whole."""
    folder, home = read(study).folder, paths.StudyPaths(study).prepared
    (folder / "data.json").unlink(missing_ok=True)
    images, pools = _stores(study)
    found = pd.read_csv(home / "files.csv", usecols=["path", "width", "height", "bytes"])
    found = found.set_index("path").loc[images.index["path"]].reset_index(drop=True)
    stored = images.index[["split", "label", "class_name", "height", "width"]]
    write_compact(folder / "images.parquet", stored.join(found.add_prefix("file_")))
    for name in ("faults", "left_out"):
        write_table(
            folder / f"{name}.csv", pd.read_csv(home / f"{name}.csv", keep_default_na=False)
        )
    near = near_copies(images)
    for end in ("a", "b"):
        near[f"path_{end}"] = images.index["path"].loc[near[f"row_{end}"]].to_numpy()
    write_table(folder / "near_copies.csv", near)
    shown = [*_examples(images), *_copies(images, near), *_backgrounds(pools)]
    table = pd.DataFrame([told for told, _ in shown])
    write_tiles(folder / "pictures", [small(picture, LONG) for _, picture in shown], table)
    write_json(folder / "data.json", _facts(study, asked))


Picture = tuple[dict[str, str], np.ndarray]  # what it is (kind, split, caption), and its pixels


def _told(kind: str, split: str, caption: str = "") -> dict[str, str]:
    return {"kind": kind, "split": split, "caption": caption}


def _examples(images: Store) -> list[Picture]:
    """Up to twelve images of each split, one a class, drawn with a fixed seed."""
    rng, found = np.random.default_rng(0), []
    for split in datasets.SPLITS:
        part = images.index[images.index["split"] == split]
        rows = rng.permutation(part.groupby("label").sample(1, random_state=0).index)[:EXAMPLES]
        names = part.loc[rows, "class_name"]
        found += [
            (_told("examples", split, name), images.image(row))
            for row, name in zip(rows, names, strict=True)
        ]
    return found


def _copies(images: Store, near: pd.DataFrame) -> list[Picture]:
    """Pairs of near copies, those that leak into another split first."""
    first = pd.concat([near[near["across"]], near[~near["across"]]]).head(COPIES)
    rows = first[["row_a", "row_b"]].to_numpy().ravel()
    splits = images.index["split"].loc[rows]
    return [
        (_told("near_copies", split, split), images.image(row))
        for row, split in zip(rows, splits, strict=True)
    ]


def _backgrounds(pools: Store) -> list[Picture]:
    return [
        (_told("backgrounds", pool), pools.image(row))
        for pool in datasets.SPLITS
        for row in pools.rows(pool)[:BACKGROUNDS]
    ]
