"""The data sets: one table. Adding one is adding an entry to DATASETS.

A data set is a folder in a known layout and a reader that turns it into a table of
path, label (0-based) and class name; the class-disjoint split follows from the label.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lib import paths
from lib.errors import StudyError
from lib.fetch import Archive, download, extract, mirror
from lib.files import key_of

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """What the study knows about one data set.

    `layouts` pairs a file that must exist under the folder with the reader for that layout.
    `bounds` are the first label of validation, of test, and the number of classes.
    """

    title: str
    layouts: dict[str, Callable[[Path], pd.DataFrame]]
    bounds: tuple[int, int, int] | None
    images: int | None
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    faults: tuple[str, ...] = ()
    make: Callable[..., None] | None = field(default=None)


def read_cub(root: Path) -> pd.DataFrame:
    """CUB-200-2011 in its official layout (labels there start at 1)."""
    base = root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root
    images = pd.read_csv(base / "images.txt", sep=" ", names=["id", "path"])
    labels = pd.read_csv(base / "image_class_labels.txt", sep=" ", names=["id", "label"])
    classes = pd.read_csv(base / "classes.txt", sep=" ", names=["label", "class_name"])
    table = images.merge(labels, on="id", validate="1:1").merge(classes, on="label")
    table = table.sort_values("id", ignore_index=True)
    table["label"] -= 1
    prefix = (base / "images").relative_to(root).as_posix()
    table["path"] = prefix + "/" + table["path"]
    return table[["path", "label", "class_name"]]


def _cars_annotations(file: Path, names: list[str], folder: str) -> pd.DataFrame:
    from scipy.io import loadmat

    rows = loadmat(file, squeeze_me=True)["annotations"]
    key = "fname" if "fname" in rows.dtype.names else "relative_im_path"
    files = [f"{folder}{Path(str(row[key])).name}" for row in rows]
    labels = [int(row["class"]) - 1 for row in rows]
    return pd.DataFrame(
        {"path": files, "label": labels, "class_name": [names[label] for label in labels]}
    )


def _cars_names(file: Path) -> list[str]:
    from scipy.io import loadmat

    return [str(name) for name in loadmat(file, squeeze_me=True)["class_names"]]


def read_cars_devkit(root: Path) -> pd.DataFrame:
    """Cars196 as cars_train (+ cars_test where its labels exist) and devkit."""
    names = _cars_names(root / "devkit" / "cars_meta.mat")
    parts = [_cars_annotations(root / "devkit/cars_train_annos.mat", names, "cars_train/")]
    for labels in ("devkit/cars_test_annos_withlabels.mat", "cars_test_annos_withlabels.mat"):
        if (root / labels).exists():
            parts.append(_cars_annotations(root / labels, names, "cars_test/"))
            break
    return pd.concat(parts, ignore_index=True)


def read_cars_flat(root: Path) -> pd.DataFrame:
    """Cars196 as car_ims and cars_annos.mat (all 16,185 images)."""
    names = _cars_names(root / "cars_annos.mat")
    return _cars_annotations(root / "cars_annos.mat", names, "car_ims/")


def read_sop(root: Path) -> pd.DataFrame:
    """Stanford Online Products; training and test classes get consecutive labels."""
    base = root / "Stanford_Online_Products"
    base = base if base.is_dir() else root
    parts = [pd.read_csv(base / f"Ebay_{part}.txt", sep=" ") for part in ("train", "test")]
    table = pd.concat(parts, ignore_index=True)
    prefix = base.relative_to(root).as_posix()
    table["path"] = table["path"] if prefix == "." else prefix + "/" + table["path"]
    table["label"] = table["class_id"] - 1
    table["class_name"] = table["class_id"].map("product {:05d}".format)
    return table[["path", "label", "class_name"]]


def read_rendered(root: Path) -> pd.DataFrame:
    """The embedded data set as lib.render writes it (it names its own splits)."""
    table = pd.read_csv(root / "index.csv")
    table["path"] = "images/" + table["path"]
    table["split"] = table["split"].replace({"val": "validation"})
    return table


def make_rendered(root: Path, options: dict[str, Any]) -> None:
    """Render the embedded data set with the study's options."""
    from lib.render import render_dataset

    render_dataset(root, **options)


DATASETS: dict[str, Dataset] = {
    "rendered": Dataset(
        title="Rendered objects on rendered places (embedded)",
        layouts={"index.csv": read_rendered},
        bounds=None,
        images=None,
        licence="MIT, as the code that renders it",
        citation="this study, lib/render.py",
        make=make_rendered,
        faults=("drawn, not photographed: effects on it are not effects on photographs",),
    ),
    "cub200": Dataset(
        title="CUB-200-2011",
        layouts={"CUB_200_2011/images.txt": read_cub, "images.txt": read_cub},
        bounds=(75, 100, 200),
        images=11_788,
        licence="images for non-commercial research only",
        citation="Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011",
        archives=(
            Archive(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "97eceeb196236b17998738112f37df78",
            ),
        ),
        faults=("some images also occur in ImageNet, on which the trunk was trained",),
    ),
    "cars196": Dataset(
        title="Cars196",
        layouts={
            "cars_annos.mat": read_cars_flat,
            "devkit/cars_train_annos.mat": read_cars_devkit,
        },
        bounds=(74, 98, 196),
        images=16_185,
        licence="images for non-commercial research only",
        citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013",
        by_hand="the original address is gone; the Kaggle set "
        "jutrera/stanford-car-dataset-by-classes-folder holds the images",
    ),
    "sop": Dataset(
        title="Stanford Online Products",
        layouts={
            "Stanford_Online_Products/Ebay_train.txt": read_sop,
            "Ebay_train.txt": read_sop,
        },
        bounds=(8_489, 11_318, 22_634),
        images=120_053,
        licence="images for research",
        citation="Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, "
        "CVPR 2016",
        by_hand="Stanford_Online_Products.zip (md5 7f73d41a2f44250d4779881525aea32e) is a Google "
        "Drive file today, id 1TclrpQOF_ullUP99wk_gjGN8pKvtErG8",
    ),
}


def get(name: str) -> Dataset:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in DATASETS:
        raise StudyError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def _has_layout(entry: Dataset, folder: Path) -> bool:
    return any((folder / marker).exists() for marker in entry.layouts)


def locate(name: str, options: dict[str, Any] | None = None) -> Path:
    """The folder of a data set: DATA_MIRROR, then data/raw, then made or downloaded.

    Args:
        name: key of DATASETS.
        options: arguments of the maker, for a data set that our own code makes.
    """
    entry = get(name)
    folder = paths.RAW / (f"{name}-{key_of(**options)}" if options else name)
    tried = [place / name for place in (mirror(),) if place] + [folder]
    for place in tried:
        if _has_layout(entry, place):
            return place
    if entry.make:
        entry.make(folder, options or {})
        return folder
    if not entry.archives:
        _refuse(entry, name, tried)
    for archive in entry.archives:
        extract(download(archive, paths.RAW / "archives"), folder)
    return folder


def _refuse(entry: Dataset, name: str, tried: list[Path]) -> None:
    named = "" if os.environ.get("DATA_MIRROR") else " (DATA_MIRROR is not set)"
    raise StudyError(
        f"{entry.title} was not found. Looked for one of {', '.join(entry.layouts)} in "
        f"{' and '.join(map(str, tried))}{named}. How to get it: {entry.by_hand}. Unpack it into "
        f"{tried[-1]}, or set DATA_MIRROR to a folder that holds it as {name}/."
    )


def read(name: str, folder: Path) -> pd.DataFrame:
    """All images of a data set: path (relative to `folder`), label, class_name, split."""
    entry = get(name)
    reader = next(read for marker, read in entry.layouts.items() if (folder / marker).exists())
    table = reader(folder)
    if "split" not in table:
        assert entry.bounds is not None
        edges = [-1, entry.bounds[0] - 1, entry.bounds[1] - 1, entry.bounds[2] - 1]
        table["split"] = pd.cut(table["label"], edges, labels=list(SPLITS)).astype(str)
    return table
