"""The data sets: one table. Adding one is adding an entry to DATASETS (docs/add-a-data-set.md).

A data set is a folder in a known layout and a reader (lib.data.readers) that turns it into a table
of path, label (0-based) and class name; the class-disjoint split follows from the label.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import key_of
from lib.core.parameters import check_parameters, of_function
from lib.data import readers
from lib.data.download import Archive, Drive, Kaggle
from lib.data.mirror import bring, mirror
from lib.data.own import SPLITS

DRAWN = "drawn"  # option `splits`: classes are dealt out by the seed, whatever folders say
OWN = {"folder": str, "seed": int, "shares": dict, "splits": str}  # options of one's own folder
Reader = Callable[[Path], pd.DataFrame]


@dataclass(frozen=True)
class Dataset:
    """What the study knows about one data set.

    `layouts` pairs a file or folder that must exist with the reader for that layout. `bounds` are
    the first label of validation, of test, and the number of classes; without it the layout names
    its splits, or classes are drawn (lib.data.readers.split_classes). `expected` is the number of
    images. `truth` is the archive of exact masks and the folder in it that mirrors images/.
    """

    title: str
    layouts: dict[str, Reader]
    bounds: tuple[int, int, int] | None
    expected: int | None
    licence: str
    citation: str
    sources: tuple[Archive | Drive | Kaggle, ...] = ()
    by_hand: str = ""
    faults: tuple[str, ...] = ()
    make: Callable[..., None] | None = None
    boxes: Reader | None = None
    truth: Archive | None = None
    own: bool = False
    rule: str = "named by the data set"

    @property
    def published(self) -> bool:
        """Whether it is somebody's published photographs: neither drawn here nor one's own."""
        return self.make is None and not self.own

    @property
    def split_rule(self) -> str:
        """How the classes are split, in words."""
        if self.own:
            return "named by split folders or labels.csv, else classes drawn from the seed"
        if self.bounds is None:
            return self.rule
        first, second, end = self.bounds
        return (
            f"classes 0-{first - 1} train, {first}-{second - 1} validation, {second}-{end - 1} test"
        )


def make_rendered(root: Path, options: dict[str, Any]) -> None:
    """Render the embedded data set with the study's options."""
    from lib.data.drawn.dataset import render_dataset

    render_dataset(root, **options)


CALTECH = "https://data.caltech.edu/records"
DATASETS: dict[str, Dataset] = {
    "rendered": Dataset(
        title="Rendered objects on rendered places (embedded)",
        layouts={"index.csv": readers.rendered},
        bounds=None,
        expected=None,
        licence="MIT, as the code that renders it",
        citation="this study, lib/data/drawn",
        make=make_rendered,
        faults=("drawn, not photographed: effects on it are not effects on photographs",),
    ),
    "cub200": Dataset(
        title="CUB-200-2011",
        layouts={"CUB_200_2011/images.txt": readers.cub, "images.txt": readers.cub},
        bounds=(75, 100, 200),
        expected=11_788,
        licence="images for non-commercial research only",
        citation="Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011",
        sources=(
            Archive(
                f"{CALTECH}/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "97eceeb196236b17998738112f37df78",
            ),
        ),
        boxes=readers.cub_boxes,
        truth=Archive(
            f"{CALTECH}/w9d68-gec53/files/segmentations.tgz?download=1",
            "4d47ba1228eae64f2fa547c47bc65255",
        ),
        faults=("some images also occur in ImageNet, on which the trunk was trained",),
    ),
    "cars196": Dataset(
        title="Cars196",
        layouts={
            "cars_annos.mat": readers.cars_mat,
            "devkit/cars_train_annos.mat": readers.cars_mat,
            "car_data/car_data/train": readers.cars_by_class,
            "car_data/train": readers.cars_by_class,
            "train": readers.cars_by_class,
        },
        bounds=(74, 98, 196),
        expected=16_185,
        licence="images for non-commercial research only",
        citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013",
        sources=(Kaggle("jutrera/stanford-car-dataset-by-classes-folder"),),
        by_hand="the original address is gone; the Kaggle set "
        "jutrera/stanford-car-dataset-by-classes-folder holds the images",
        boxes=readers.cars_boxes,
        faults=("the original address is dead; copies differ in layout and compression",),
    ),
    "sop": Dataset(
        title="Stanford Online Products",
        layouts={
            "Stanford_Online_Products/Ebay_train.txt": readers.sop,
            "Ebay_train.txt": readers.sop,
        },
        bounds=(8_489, 11_318, 22_634),
        expected=120_053,
        licence="images for research",
        citation="Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, "
        "CVPR 2016",
        sources=(
            Drive(
                "1TclrpQOF_ullUP99wk_gjGN8pKvtErG8",
                "Stanford_Online_Products.zip",
                "7f73d41a2f44250d4779881525aea32e",
            ),
        ),
        by_hand="Stanford_Online_Products.zip (md5 7f73d41a2f44250d4779881525aea32e) is a Google "
        "Drive file today, id 1TclrpQOF_ullUP99wk_gjGN8pKvtErG8",
    ),
    "grocery": Dataset(
        title="Grocery Store",
        layouts={"dataset/classes.csv": readers.grocery},
        bounds=None,
        rule="half of the classes of every kind test, three eighths train, one eighth validation",
        expected=5_421,
        licence="MIT",
        citation="Klasson, Zhang, Kjellström, A Hierarchical Grocery Store Image Dataset with "
        "Visual and Semantic Labels, WACV 2019",
        by_hand="the repository marcusklasson/GroceryStoreDataset on GitHub is the data set",
        faults=(
            "the authors' split shares classes between train and test: this one is our own",
            "fruit and vegetables in crates fill the image: there is no background to exchange",
        ),
    ),
    "folder": Dataset(
        title="A folder of one's own",
        layouts={"labels.csv": readers.own_csv, ".": readers.own_folder},
        bounds=None,
        expected=None,
        licence="yours",
        citation="none",
        by_hand="put images there as <class>/<image>.jpg (docs/own-photographs.md)",
        own=True,
    ),
}


def get(name: str) -> Dataset:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in DATASETS:
        raise StudyError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def _layout(entry: Dataset, folder: Path) -> Reader | None:
    try:
        return next(
            (read for marker, read in entry.layouts.items() if (folder / marker).exists()), None
        )
    except PermissionError as error:
        raise StudyError(f"{folder} cannot be read ({error.strerror}).") from error


def check_own(options: dict[str, Any]) -> None:
    """Refuse options that a folder of one's own does not take."""
    if "folder" not in options:
        raise StudyError("data set 'folder' needs options: {folder: path/to/your/images}.")
    wrong = {name for name in options if name not in OWN}
    wrong |= {name for name, kind in OWN.items() if not isinstance(options.get(name, kind()), kind)}
    if wrong or options.get("splits", DRAWN) != DRAWN:
        raise StudyError(
            f"options of data set 'folder' are {options}; known: folder (text), seed (a whole "
            f"number), shares (of the classes: validation, test), splits ({DRAWN}: whatever the "
            "folders say)."
        )


def check_options(name: str, options: dict[str, Any]) -> None:
    """Refuse a data set that nobody knows, and options that it does not take."""
    entry = get(name)
    if entry.own:
        check_own(options)
    elif entry.make:
        from lib.data.drawn.dataset import plan, render_dataset

        declared = {k: p for k, p in of_function(render_dataset).items() if k != "root"}
        check_parameters(declared, options, f"options of data set {name!r}")
        lacking = set(declared) - set(options)
        if lacking:
            raise StudyError(f"options of data set {name!r} lack {', '.join(sorted(lacking))}.")
        plan(**{key: value for key, value in options.items() if key != "side"})


def _places(entry: Dataset, name: str, options: dict[str, Any]) -> dict[str, Path]:
    """Where a data set may lie, best first: what the place is called in a report, and its path."""
    if entry.own:
        check_own(options)
        return {"own folder": paths.ROOT / Path(options["folder"]).expanduser()}
    own = paths.RAW / (f"{name}-{key_of(**options)}" if options else name)
    home = mirror()
    found = {"DATA_MIRROR": home / name} if home else {}
    return found | {"drawn by lib/data/drawn" if entry.make else "data/raw": own}


def locate(name: str, options: dict[str, Any] | None = None) -> tuple[Path, str]:
    """The folder of a data set, and what to call the place in a report.

    DATA_MIRROR is tried first, then data/raw, then it is made or downloaded into data/raw.

    Args:
        name: key of DATASETS.
        options: arguments of the maker, or of one's own folder.
    """
    entry, options = get(name), dict(options or {})
    places = _places(entry, name, options)
    for title, place in places.items():
        if _layout(entry, place):
            return place, title
    title, folder = list(places.items())[-1]
    if entry.make:
        entry.make(folder, options)
        return folder, title
    try:
        for source in entry.sources:
            bring(source, folder)
    except StudyError as refused:
        raise _missing(entry, name, places, f" It could not be fetched: {refused}") from refused
    if not _layout(entry, folder):
        raise _missing(entry, name, places, "")
    return folder, title


def _missing(entry: Dataset, name: str, places: dict[str, Path], why: str) -> StudyError:
    unset = "" if os.environ.get("DATA_MIRROR") or entry.own else " (DATA_MIRROR is not set)"
    remedy = f" How to get it: {entry.by_hand}." if entry.by_hand else ""
    last = list(places.values())[-1]
    other = "" if entry.own else f", or set DATA_MIRROR to a folder that holds it as {name}/"
    return StudyError(
        f"{entry.title} was not found. Looked for one of {', '.join(entry.layouts)} in "
        f"{' and '.join(map(str, places.values()))}{unset}.{why}{remedy} Put it into {last}{other}."
    )


def read(name: str, folder: Path, options: dict[str, Any] | None = None) -> pd.DataFrame:
    """All images of a data set: path (relative to `folder`), label, class_name, split."""
    entry, options = get(name), options or {}
    reader = _layout(entry, folder)
    if reader is None:
        raise _missing(entry, name, {"folder": folder}, "")
    table = reader(folder)
    if entry.own and options.get("splits") == DRAWN:
        table = table.drop(columns="split", errors="ignore")
    if "split" in table:
        return readers.completed(table, options.get("seed", 0)) if entry.own else table
    if entry.bounds:
        edges = [-1, entry.bounds[0] - 1, entry.bounds[1] - 1, entry.bounds[2] - 1]
        split = pd.cut(table["label"], edges, labels=list(SPLITS)).astype(str)
    else:
        split = readers.split_classes(table["label"], options.get("seed", 0), options.get("shares"))
    return table.assign(split=split)
