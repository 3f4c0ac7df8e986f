"""The images of an audit: one's own folders (or the demo's), read, sampled, decoded and masked."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.core import hardware, params, paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, space_left, write_json
from lib.core.progress import say
from lib.data import datasets, own
from lib.data.backgrounds import prepare_backgrounds
from lib.data.checks import look
from lib.data.store import AHEAD, Store, finished, in_order, write_store
from lib.images.scenes import Scenes
from lib.masks import sources

DEMO = "demo"
DRAWN = 40  # backgrounds of a pool, where they are drawn
A_CLASS = 20  # images of a class at most where a limit is set
SPARE = 0.6  # images outside the search for each in it: half would do if all masks were usable
SHARED = 2  # spare images are places for so many test images each: as seen, and mirrored


@dataclass(frozen=True)
class Images:
    """What an audit looks at. `scenes.store` has the columns `side` (query, gallery or both)."""

    study: str  # name of the folders in data/
    title: str  # of the images, for readers
    scenes: Scenes
    mask_source: str
    backgrounds: str
    told: list[str] = field(default_factory=list)

    @property
    def rows(self) -> np.ndarray:
        """Rows of the store that take part in the search."""
        return self.scenes.store.rows("test")

    @property
    def apart(self) -> bool:
        """Whether queries and gallery are different images."""
        return bool((self.scenes.store.index["side"] != "both").any())

    @property
    def has_places(self) -> bool:
        """Whether there are enough images outside the search to lend it their places."""
        spare = self.scenes.store.rows("train")
        return SHARED * int(self.scenes.usable[spare].sum()) >= len(self.rows)


def read(folder: Path) -> pd.DataFrame:
    """The table of one's own folder, by the readers of lib.data: path, label, class_name, split."""
    if folder.is_file():
        if folder.name != "labels.csv":
            raise StudyError(f"{folder}: a table of images must be called labels.csv.")
        folder = folder.parent
    if not folder.is_dir():
        raise StudyError(f"{folder} does not exist. Give a folder with a folder for each class.")
    return own.look(folder)[0]


def passed_over(images: str, gallery: str) -> list[str]:
    """What lies in the folders and is no image of a class, in a sentence; [] where all is."""
    if images == DEMO:
        return []
    homes = dict.fromkeys(_home(place) for place in (images, gallery) if place)
    rows = [row for home in homes for row in own.look(home)[1].left_out]
    rows = [(path, why) for path, why in rows if why not in (own.HIDDEN, own.TRUTH)]
    if not rows:
        return []
    named = "; ".join(f"{path} ({why})" for path, why in rows[:5])
    more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
    return [f"{len(rows):,} left out, since they are no images of a class: {named}{more}."]


def _found(folder: str) -> Path:
    """A path as it is, or below the repository (notebooks run in their own folder)."""
    place = Path(folder).expanduser()
    return place.absolute() if place.exists() else paths.ROOT / place


def _home(folder: str) -> Path:
    place = _found(folder)
    return place.parent if place.is_file() else place


def tables(images: str, gallery: str) -> tuple[str, dict, Path, pd.DataFrame, list[str]]:
    """Data set, its options, its folder, its table (path, class_name, side, in_search), and in
    sentences what a reader must know of it.

    `images` "demo" are the drawn images of the demo, of which the test classes take part.
    """
    told: list[str] = []
    if images == DEMO:
        options = params.section("demo", "data")["options"]
        folder, _ = datasets.locate("rendered", options)
        table = _in_search(datasets.read("rendered", folder, options).assign(side="both"))
        name = "rendered"
    elif gallery and _home(gallery) != _home(images):
        folder = Path(os.path.commonpath([_home(images), _home(gallery)]))
        queries = _outside(images, gallery, told)
        queries = _below(folder, images, queries).assign(side="query")
        # All of the catalogue is searched, whatever its split.
        searched = read(_found(gallery)).drop(columns="split", errors="ignore")
        searched = _below(folder, gallery, searched).assign(side="gallery")
        table = pd.concat([_in_search(queries), _in_search(searched)], ignore_index=True)
        name, options = "folder", {"folder": str(folder)}
    else:
        folder = _home(images)
        table = _in_search(read(_found(images)).assign(side="both"))
        name, options = "folder", {"folder": str(folder)}
    if merged := int(table.get("merged", pd.Series(False)).fillna(False).sum()):
        told.append(
            f"{merged} images lie in split folders (train, test) inside their classes. A class "
            "must be in one split, so these folders are not used as splits."
        )
    return name, options, folder, table.reset_index(drop=True), told


def _in_search(table: pd.DataFrame) -> pd.DataFrame:
    """With `in_search`: the test split, or all images where there is none."""
    tested = table.get("split", pd.Series("test", table.index)) == "test"
    return table.assign(in_search=tested if tested.any() else True)


def _below(folder: Path, place: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table of `place`, with paths as they are below `folder`."""
    before = _home(place).relative_to(folder)
    return table.assign(path=[(before / path).as_posix() for path in table["path"]])


def _outside(images: str, gallery: str, told: list[str]) -> pd.DataFrame:
    """The table of the queries without those that lie in the gallery's folder."""
    table, where = read(_found(images)), _home(gallery).resolve()
    files = [(_home(images) / path).resolve() for path in table["path"]]
    inside = np.array([file.is_relative_to(where) for file in files], bool)
    if inside.all():
        raise StudyError(f"all images of {images} lie in the gallery {gallery}.")
    if inside.any():
        told.append(
            f"{inside.sum()} images of {Path(images).name} lie in the gallery's folder and are no "
            "queries."
        )
    return table[~inside]


def sampled(table: pd.DataFrame, limit: int, seed: int = 0) -> pd.DataFrame:
    """Which images take part: all, or whole classes drawn until about `limit` images are reached.

    Of a class, A_CLASS images a side are drawn at most. Images that do not take part lend their
    places (`split` "train"), SPARE for each that does; others are dropped.
    """
    rng = np.random.default_rng(seed)
    table = table.assign(_order=rng.permutation(len(table)))
    test = table[table["in_search"]]
    if limit and len(test) > limit:
        test = test.sort_values("_order").groupby(["class_name", "side"], sort=False).head(A_CLASS)
        sizes = test.groupby("class_name").size()
        sizes = sizes.iloc[rng.permutation(len(sizes))]
        kept = sizes.index[(sizes.cumsum() <= limit) | (np.arange(len(sizes)) < 2)]
        test = test[test["class_name"].isin(kept)]
    spare = table.drop(index=test.index).sort_values("_order").head(math.ceil(SPARE * len(test)))
    table = pd.concat([test.assign(split="test"), spare.assign(split="train")]).sort_index()
    table["label"] = np.unique(table["class_name"], return_inverse=True)[1]
    return table[["path", "label", "class_name", "split", "side"]].reset_index(drop=True)


def check(table: pd.DataFrame, images: str) -> None:
    """Refuse a set in which nothing can be found, or nothing can be mistaken."""
    test = table[table["split"] == "test"]
    if test["label"].nunique() < 2:
        raise StudyError(f"{images} holds fewer than two classes: there is nothing to tell apart.")
    if not len(findable(test)):
        raise StudyError(
            f"no image of {images} has another one of its class to find. Give two or more images "
            "a class; of a catalogue and its queries, the same class names."
        )


def findable(test: pd.DataFrame) -> pd.DataFrame:
    """The queries whose class has another image in the gallery."""
    queries, gallery = test[test["side"] != "gallery"], test[test["side"] != "query"]
    counts = queries["label"].map(gallery["label"].value_counts()).fillna(0)
    return queries[counts > (queries["side"] == "both")]


def prepare(
    images: str,
    gallery: str,
    side: int,
    limit: int,
    masks: str,
    backgrounds: str,
    seed: int = 0,
    searched: bool = True,
    announce: Callable[[int], None] | None = None,
) -> Images:
    """Read, sample, decode and mask; what is done is kept for the next audit of these images.

    Args:
        images: "demo", or a folder (or labels.csv) of one's own: all images, or the queries.
        gallery: a second folder, where the catalogue is apart from the queries; "" if not.
        side: short side of the stored images in pixels.
        limit: images in the search at most, about; 0: all.
        masks: key of lib.masks.sources. backgrounds: as in params.yaml, or "auto": the paper's
            photographs, or drawn ones where those cannot be had.
        searched: False takes all images, whatever their split, and asks for no classes.
        announce: is told before the masks how many images there are.
    """
    dataset, options, folder, every, told = tables(images, gallery)
    if not searched:
        every["in_search"] = True
    table = sampled(every, limit, seed)
    if searched:
        check(table, images)
    files = [folder / path for path in table["path"]]
    # os.path: a folder without permission is no error here, but named when it is read
    there = [f.stat() if os.path.exists(f) else None for f in files]
    stamps = [stat and (stat.st_size, stat.st_mtime_ns) for stat in there]
    request = key_of(
        dataset=dataset, options=options, side=side, table=table.to_csv(index=False),
        stamps=stamps, code=fingerprint("data"),
    )  # fmt: skip
    study = f"audit-{key_of(dataset=dataset, options=options, gallery=gallery, side=side)[:8]}"
    home, told = paths.StudyPaths(study).prepared, passed_over(images, gallery) + told
    store = finished(home / "data.json", request, home / "images")
    if store is None:
        store = _fill(study, home, table, files, side)
        facts = {"dataset": dataset, "side": side, "options": options, "note": ""}
        write_json(home / "data.json", facts | {"request": request, "store": store.fingerprint})
    if searched:
        check(store.index, images)
    told += _losses(table, store.index, every)
    source = _backgrounds(study, backgrounds, side, dataset == "rendered", told)
    if announce:
        announce(len(store.index))
    say(f"masks by {masks}")
    sources.make_masks(study, masks)
    scenes = Scenes(study, masks, hardware.device())
    title = "the demo's drawn images" if dataset == "rendered" else Path(images).name or images
    return Images(study, title, scenes, masks, source, told)


def _fill(study: str, home: Path, table: pd.DataFrame, files: list[Path], side: int) -> Store:
    """Decode into a store; what cannot be decoded is left out and named."""
    space_left(home / "images" / "pixels.u8", 4 * side**2 * len(table))
    marks: list[str] = []

    def pixels() -> Iterator[np.ndarray | None]:
        title = f"reading images (by {AHEAD})"
        for facts, image in in_order(lambda file: look(file, side), files, title):
            marks.append(facts["sha256"])
            if image is None:
                say(f"left out: {files[len(marks) - 1]} ({facts['error']})")
            yield image
        table["sha256"] = marks

    return write_store(home / "images", table, pixels())


def _losses(asked: pd.DataFrame, stored: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """Sentences about images that do not take part or count for little."""
    told, test = [], stored[stored["split"] == "test"]
    whole = int(every["in_search"].sum())
    if int((asked["split"] == "test").sum()) < whole:
        told.append(
            f"{len(test):,} of {whole:,} images were drawn, as whole classes of at most {A_CLASS} "
            "images a side (limit: 0 takes all)."
        )
    gone = asked.loc[~asked["path"].isin(stored["path"]), "path"].tolist()
    if gone:
        more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
        told.append(
            f"{len(gone):,} left out, since they cannot be read: {', '.join(gone[:5])}{more}."
        )
    queries = test[test["side"] != "gallery"]
    if alone := len(queries) - len(findable(test)):
        told.append(f"{alone} queries have no other image of their class to find and do not count.")
    twice = int(test.loc[test["side"] != "query", "sha256"].duplicated().sum())
    if twice:
        told.append(f"{twice} images are byte for byte copies of another one.")
    return told


def _backgrounds(study: str, source: str, side: int, drawn: bool, told: list[str]) -> str:
    """Prepare the photographs for new backgrounds; which source it was."""
    if source == "auto" and not drawn:
        try:
            prepare_backgrounds(study, "unsplash", 0, seed=0, side=side)
            return "unsplash"
        except StudyError as refused:
            say(f"{refused}\nDrawn backgrounds are used instead.")
            told.append(
                "The paper's photographs could not be had; new backgrounds are drawn ones, which "
                "are plainer than photographs. backgrounds: a folder of yours is better."
            )
    source = "rendered" if source == "auto" else source
    prepare_backgrounds(study, source, DRAWN if source == "rendered" else 0, seed=0, side=side)
    return source
