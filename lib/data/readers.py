"""Readers of the folder layouts in which people have the data sets on disk.

A reader turns a folder into a table: path (relative to the folder), label (0-based), class_name,
and split where the layout names one.
"""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from lib.core.errors import StudyError
from lib.data import own
from lib.data.decode import PICTURES


def pictures(folder: Path) -> list[Path]:
    """The image files of a folder (not of folders in it), sorted by name; hidden ones are none."""
    try:
        found = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StudyError(f"{folder} cannot be read ({error.strerror}).") from error
    found = sorted(file for file in found if not own.hidden(file.name))
    for file in found:
        own.text_of(PurePosixPath(folder.name, file.name))
    return found


FIVE = 5  # lib.evaluation.statistics.MIN_CLASSES: fewer give no interval


def _table(file: Path, columns: list[str] | None = None) -> pd.DataFrame:
    names = {"names": columns} if columns else {}
    return pd.read_csv(file, sep=" ", **names)


def _cub_home(root: Path) -> tuple[Path, str]:
    """The folder of CUB's lists, and what stands before the paths in them."""
    home = root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root
    return home, (home / "images").relative_to(root).as_posix() + "/"


def cub(root: Path) -> pd.DataFrame:
    """CUB-200-2011 in its official layout (labels there start at 1)."""
    home, prefix = _cub_home(root)
    images = _table(home / "images.txt", ["id", "path"])
    labels = _table(home / "image_class_labels.txt", ["id", "label"])
    for part, file in ((images, "images.txt"), (labels, "image_class_labels.txt")):
        twice = part.loc[part["id"].duplicated(), "id"].tolist()
        if twice:
            raise StudyError(f"{home / file} lists image {twice[0]} twice. Get the file again.")
    lone = sorted(set(images["id"]) ^ set(labels["id"]))
    if lone:
        raise StudyError(
            f"image {lone[0]} is in only one of images.txt and image_class_labels.txt of {home} "
            f"({len(lone)} such). Get the files again."
        )
    names = _table(home / "classes.txt", ["label", "class_name"])
    table = images.merge(labels, on="id").merge(names, on="label", how="left")
    table = table.sort_values("id", ignore_index=True)
    table = table.assign(path=prefix + table["path"], label=table["label"] - 1)
    return table[["path", "label", "class_name"]]


def cub_boxes(root: Path) -> pd.DataFrame:
    """CUB's bounding boxes: path, left, top, right, bottom in pixels of the official images."""
    home, prefix = _cub_home(root)
    boxes = _table(home / "bounding_boxes.txt", ["id", "left", "top", "width", "height"])
    table = _table(home / "images.txt", ["id", "path"]).merge(boxes, on="id")
    table["path"] = prefix + table["path"]
    table["right"] = table["left"] + table["width"]
    table["bottom"] = table["top"] + table["height"]
    return table[["path", "left", "top", "right", "bottom"]]


def _mat(file: Path, field: str) -> np.ndarray:
    from scipy.io import loadmat

    return loadmat(file, squeeze_me=True)[field]


def _cars_rows(root: Path) -> list[tuple[str, Any]]:
    """Path and annotation of every image, for either layout with .mat files."""
    if (root / "cars_annos.mat").exists():
        found = [("cars_annos.mat", "car_ims/", "relative_im_path")]
    else:
        names = ("devkit/cars_test_annos_withlabels.mat", "cars_test_annos_withlabels.mat")
        found = [("devkit/cars_train_annos.mat", "cars_train/", "fname")]
        found += [(name, "cars_test/", "fname") for name in names if (root / name).exists()][:1]
    return [
        (folder + Path(str(row[key])).name, row)
        for file, folder, key in found
        for row in _mat(root / file, "annotations")
    ]


def cars_mat(root: Path) -> pd.DataFrame:
    """Cars196 with .mat files: car_ims + cars_annos.mat, or cars_train (+ cars_test) + devkit."""
    flat = root / "cars_annos.mat"
    names = _mat(flat if flat.exists() else root / "devkit" / "cars_meta.mat", "class_names")
    table = pd.DataFrame(
        [(path, int(row["class"]) - 1) for path, row in _cars_rows(root)],
        columns=["path", "label"],
    )
    return table.assign(class_name=[str(names[label]) for label in table["label"]])


def cars_boxes(root: Path) -> pd.DataFrame:
    """Cars196's bounding boxes: path, left, top, right, bottom in pixels of the official files."""
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    found = [(p, *(float(row[corner]) for corner in corners)) for p, row in _cars_rows(root)]
    return pd.DataFrame(found, columns=["path", "left", "top", "right", "bottom"])


def cars_by_class(root: Path) -> pd.DataFrame:
    """Cars196 as class folders under train/ and test/, with names.csv (the official order).

    The folders in alphabetical order are not the official classes 1 to 196, so that without
    names.csv the paper's split could not be told. A folder's name has '-' where a class has '/'.
    """
    home = next(
        place for place in (root / "car_data" / "car_data", root / "car_data", root)
        if (place / "train").is_dir()
    )  # fmt: skip
    lists = [place / "names.csv" for place in (root, home) if (place / "names.csv").exists()]
    if not lists:
        raise StudyError(
            f"{root} holds Cars196 by class folders but no names.csv, which gives the classes "
            "their official numbers. Take names.csv from the same Kaggle set."
        )
    names = pd.read_csv(lists[0], header=None)[0].str.strip().tolist()
    label = {name.replace("/", "-"): number for number, name in enumerate(names)}
    rows = []
    for file in sorted(home.glob("*/*/*")):
        if file.suffix.lower() not in PICTURES or own.hidden(file.name):
            continue
        if file.parent.name not in label:
            raise StudyError(f"{file.parent} is no class that {lists[0]} names.")
        number = label[file.parent.name]
        rows.append((file.relative_to(root).as_posix(), number, names[number]))
    return pd.DataFrame(rows, columns=["path", "label", "class_name"])


def sop(root: Path) -> pd.DataFrame:
    """Stanford Online Products; training and test classes get consecutive labels."""
    base = root / "Stanford_Online_Products"
    base = base if base.is_dir() else root
    parts = [_table(base / f"Ebay_{part}.txt") for part in ("train", "test")]
    table = pd.concat(parts, ignore_index=True)
    prefix = base.relative_to(root).as_posix()
    table["path"] = table["path"] if prefix == "." else prefix + "/" + table["path"]
    table["label"] = table["class_id"] - 1
    table["class_name"] = table["class_id"].map("product {:05d}".format)
    return table[["path", "label", "class_name"]]


# Dealt out in turn to the classes of every kind (fruit, packages, vegetables), so that half of each
# kind is tested and siblings such as two yoghurts meet in different splits.
GROCERY_TURN = ("train", "test", "train", "test", "train", "test", "validation", "test")


def grocery(root: Path) -> pd.DataFrame:
    """The Grocery Store data set; the authors' split shares classes, this one is class-disjoint.

    A class is called by its kind and its name, `Packages/Arla-Natural-Yoghurt`. Classes are taken
    in the order of their numbers.
    """
    home, lists = root / "dataset", ("train.txt", "val.txt", "test.txt")
    parts = [pd.read_csv(home / name, names=["path", "label", "coarse"], skipinitialspace=True)
             for name in lists]  # fmt: skip
    table = pd.concat(parts, ignore_index=True).drop(columns="coarse")
    listed = pd.read_csv(home / "classes.csv").set_index("Class ID (int)")["Class Name (str)"]
    unknown = sorted(set(table["label"]) - set(listed.index))
    if unknown:
        raise StudyError(f"class {unknown[0]} is not in {home / 'classes.csv'}. Get it again.")
    kind = table["path"].str.split("/").str[1].groupby(table["label"]).first()
    names = kind + "/" + listed.reindex(kind.index)
    number = kind.groupby(kind).cumcount()
    split = number.map(lambda at: GROCERY_TURN[at % len(GROCERY_TURN)])
    table = table.assign(path="dataset/" + table["path"], class_name=table["label"].map(names))
    table = table.assign(split=table["label"].map(split)).sort_values("path", ignore_index=True)
    return table[["path", "label", "class_name", "split"]]


def grocery_catalogue(root: Path) -> pd.DataFrame:
    """The catalogue image of every class: path (relative to `root`), label."""
    table = pd.read_csv(root / "dataset" / "classes.csv")
    path = "dataset" + table["Iconic Image Path (str)"]
    return pd.DataFrame({"path": path, "label": table["Class ID (int)"]})


def rendered(root: Path) -> pd.DataFrame:
    """The embedded data set as lib.data.drawn.dataset writes it (it names its own splits)."""
    table = pd.read_csv(root / "index.csv")
    table["path"] = "images/" + table["path"]
    table["split"] = table["split"].replace({"val": "validation"})
    return table


def own_folder(root: Path) -> pd.DataFrame:
    """Images of one's own in class folders (lib.data.own)."""
    return own.by_folders(root)[0]


def own_csv(root: Path) -> pd.DataFrame:
    """Images of one's own with labels.csv (lib.data.own)."""
    return own.by_labels(root)[0]


def split_classes(labels: pd.Series, seed: int = 0, shares: dict[str, float] | None = None):
    """A class-disjoint split of labels, decided by the seed; at least two classes a split.

    Validation gets five classes, the fewest that give an interval, where training keeps as many.

    Args:
        labels: (N,) whole numbers.
        shares: share of the classes in validation and test (the paper's CUB: 0.125 and 0.5).
    """
    classes = np.random.default_rng(seed).permutation(np.sort(labels.unique()))
    count = _counts(len(classes), shares or {})
    if len(classes) - sum(count.values()) < 2:
        raise StudyError(
            f"{len(classes)} classes cannot be split into train, validation and test with two or "
            f"more classes each (validation {count['validation']}, test {count['test']}). Give "
            "more classes (six at least), smaller shares, or a labels.csv with a split column."
        )
    edge = count["validation"] + count["test"]
    part = {label: "validation" for label in classes[: count["validation"]]}
    part |= {label: "test" for label in classes[count["validation"] : edge]}
    return labels.map(lambda label: part.get(label, "train"))


def _counts(classes: int, shares: dict[str, float]) -> dict[str, int]:
    """How many of `classes` go into validation and into the test."""
    unknown = set(shares) - {"validation", "test"}
    if unknown or not all(0 < share < 1 for share in shares.values()):
        raise StudyError(f"shares are {shares}; wanted: validation and test, each between 0 and 1.")
    wanted = {"validation": 0.125, "test": 0.5} | shares
    count = {name: max(2, round(wanted[name] * classes)) for name in ("validation", "test")}
    if "validation" not in shares and classes - count["test"] - FIVE >= FIVE:
        count["validation"] = max(FIVE, count["validation"])
    if "test" not in shares and classes - count["validation"] - FIVE >= 2:
        count["test"] = max(FIVE, count["test"])
    if "test" not in shares:
        count["test"] = max(2, min(count["test"], classes - count["validation"] - 2))
    return count


def completed(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A table whose split column lacks validation or test: those get classes of train by the seed.

    The test gets half of them, validation a quarter, two classes at least.
    """
    table = table.copy()
    for split, share in (("test", 0.5), ("validation", 0.25)):
        if (table["split"] == split).any():
            continue
        own_classes = np.sort(table.loc[table["split"] == "train", "label"].unique())
        count = max(2, round(share * len(own_classes)))
        dealt = np.random.default_rng(seed).permutation(own_classes)[:count]
        table.loc[table["label"].isin(dealt), "split"] = split
    return table
