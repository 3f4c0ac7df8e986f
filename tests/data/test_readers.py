"""Layouts that people have on disk, made up in small: Cars by class, one's own folder, boxes."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from lib.core import paths
from lib.core.errors import StudyError
from lib.data import authors_repository, backgrounds, datasets, download, prepare, readers
from lib.masks import sources
from tests.helpers import save


def make_own(root: Path, classes: int = 8, each: int = 2) -> None:
    for label in range(classes):
        for k in range(each):
            save(root / f"class {label}" / f"{k} 'ü\".png", label * 10 + k)


@pytest.mark.parametrize("deep", ["", "car_data", "car_data/car_data"])
def test_cars_by_class_folders_follow_the_official_order(home: Path, deep: str) -> None:
    root = home / "raw" / "cars196"
    names = ["B first", "A second/van"] + [f"C {n:03d}" for n in range(194)]
    for place, name in enumerate(names):
        for part in ("train", "test"):
            file = root / deep / part / name.replace("/", "-") / f"{place}.jpg"
            file.parent.mkdir(parents=True)
            file.touch()
    with pytest.raises(StudyError, match="names.csv"):
        datasets.read("cars196", datasets.locate("cars196")[0])
    pd.Series(names).to_csv(root / "names.csv", index=False, header=False)
    table = datasets.read("cars196", datasets.locate("cars196")[0])
    assert len(table) == 392
    first = table[table["class_name"] == "A second/van"]
    assert first["label"].unique() == [1] and len(first) == 2
    assert table.groupby("split")["label"].max().to_dict() == {
        "train": 73, "validation": 97, "test": 195,
    }  # fmt: skip


def test_ones_own_folder_goes_through(home: Path) -> None:
    make_own(home / "mine")
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine", "seed": 1})
    assert len(store) == 16 and store.index["class_name"].nunique() == 8
    counts = store.index.groupby("split")["label"].nunique().to_dict()
    assert counts == {"train": 2, "validation": 2, "test": 4}
    again = prepare.prepare_images("s", "folder", 20, {"folder": str(home / "mine"), "seed": 1})
    assert again.fingerprint == store.fingerprint
    other = prepare.prepare_images("s", "folder", 20, {"folder": "mine", "seed": 2})
    assert other.index["split"].tolist() != store.index["split"].tolist()
    assert prepare.source_files("s")[0].exists()


def test_ones_own_labels(home: Path) -> None:
    make_own(home / "mine", classes=6)
    rows = [(f"class {c}/{k} 'ü\".png", f"<b>{c}</b>") for c in range(6) for k in range(2)]
    table = pd.DataFrame(rows, columns=["path", "label"])
    table["split"] = np.repeat(["train", "val", "test"], 4)
    table.to_csv(home / "mine" / "labels.csv", index=False)
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert store.index["split"].tolist() == np.repeat(["train", "validation", "test"], 4).tolist()
    assert store.index["class_name"][11] == "<b>5</b>"


@pytest.mark.fault(
    "data/labels",
    "label file with a missing column, label or path, wrong split, doubled or unknown picture",
    "labels.csv changed so",
    "refused, line or name told",
)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="label"), "lacks the column label"),
        (lambda t: t.assign(split="tset"), "split 'tset'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "is listed twice"),
        (lambda t: t.replace({"label": {"3": ""}}), "line 8 lacks its path or label"),
        (lambda t: t.replace({"path": {t["path"][0]: "gone.png"}}), "gone.png .*does not exist"),
    ],
)
def test_wrong_labels_are_named(home: Path, change, words: str) -> None:
    make_own(home / "mine", classes=6)
    rows = [(f"class {c}/{k} 'ü\".png", str(c)) for c in range(6) for k in range(2)]
    table = pd.DataFrame(rows, columns=["path", "label"])
    table["split"] = np.repeat(["train", "validation", "test"], 4)
    change(table).to_csv(home / "mine" / "labels.csv", index=False)
    with pytest.raises(StudyError, match=words):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})


@pytest.mark.fault(
    "data/few-classes",
    "too few classes, empty or absent folder",
    "five classes; no pictures",
    "refused in words",
)
def test_too_few_classes_and_no_folder(home: Path) -> None:
    make_own(home / "mine", classes=5)
    with pytest.raises(StudyError, match="5 classes cannot be split"):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    (home / "empty").mkdir()
    with pytest.raises(StudyError, match="holds no images"):
        prepare.prepare_images("s", "folder", 20, {"folder": "empty"})
    with pytest.raises(StudyError, match="was not found.*<class>/<image>.jpg"):
        datasets.locate("folder", {"folder": "nowhere"})
    with pytest.raises(StudyError, match="needs options"):
        datasets.locate("folder", {})


def test_split_shares_are_kept() -> None:
    labels = pd.Series(np.repeat(np.arange(40), 3))
    split = readers.split_classes(labels, seed=3, shares={"validation": 0.2})
    counts = labels.groupby(split).nunique().to_dict()
    assert counts == {"train": 12, "validation": 8, "test": 20}
    assert (labels.groupby(labels).nunique() == 1).all()
    assert split.groupby(labels).nunique().max() == 1  # a class lies in one split


@pytest.mark.fault(
    "data/labels-cub",
    "lists of CUB with a missing or doubled picture",
    "lists changed so",
    "refused, number told",
)
def test_cub_lists_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("1 a/1.jpg\n2 a/2.jpg\n")
    (tmp_path / "classes.txt").write_text("1 a\n")
    (tmp_path / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(StudyError, match="image 2 is in only one of"):
        readers.cub(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n1 1\n2 1\n")
    with pytest.raises(StudyError, match="lists image 1 twice"):
        readers.cub(tmp_path)


def make_flat_cars(root: Path, box: tuple[int, int, int, int]) -> None:
    names = np.array([f"Car {c}" for c in range(196)], object)
    kind = [("relative_im_path", "O"), ("class", "O")]
    kind += [(f"bbox_{axis}", "O") for axis in ("x1", "y1", "x2", "y2")]
    rows = np.array([(f"car_ims/{i:05d}.jpg", i % 196 + 1, *box) for i in range(392)], kind)
    root.mkdir(parents=True)
    savemat(root / "cars_annos.mat", {"class_names": names, "annotations": rows})
    for i in range(392):
        save(root / "car_ims" / f"{i:05d}.jpg", i, (60, 40))


def test_boxes_become_masks(home: Path) -> None:
    make_flat_cars(home / "raw" / "cars196", (15, 10, 45, 30))
    prepare.prepare_images("s", "cars196", 20)
    made = sources.make_masks("s", "box")
    expected = np.zeros((20, 30), np.uint8)
    expected[5:15, 8:22] = 255  # half the size; 7.5 and 22.5 are rounded to even
    np.testing.assert_array_equal(made.image(3), expected)


def test_boxes_of_larger_pictures_are_refused(home: Path) -> None:
    make_flat_cars(home / "raw" / "cars196", (15, 10, 450, 300))
    prepare.prepare_images("s", "cars196", 20)
    with pytest.raises(StudyError, match="this copy has another size"):
        sources.make_masks("s", "box")


def test_photographs_of_ones_own_are_dealt_into_disjoint_pools(home: Path) -> None:
    for k in range(10):
        save(home / "places" / f"{k}.png", k)
    found = backgrounds.pools("places", 0, seed=0, side=20)
    assert sorted(len(files) for files in found.values()) == [3, 3, 4]
    assert len({file for files in found.values() for file in files}) == 10
    assert found == backgrounds.pools("places", 0, seed=0, side=20)
    with pytest.raises(StudyError, match="no background photographs in .*nowhere"):
        backgrounds.pools("nowhere", 0, seed=0, side=20)


def test_the_authors_repository_is_unpacked_and_its_commit_checked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = paths.RAW / "archives" / authors_repository.ARCHIVE.file
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as members:
        for part, count in (("val", 10), ("test", 4)):
            for k in range(count):
                save(home / "x.jpeg", k)
                name = f"{authors_repository.ROOT}/data/unsplash_backgrounds/{part}/{k}.jpeg"
                members.write(home / "x.jpeg", name)
        save(home / "1_mask.png", 0)
        members.write(
            home / "1_mask.png", f"{authors_repository.ROOT}/notebooks/gt_masks/sop/1_mask.png"
        )
        members.comment = b"another"
    with pytest.raises(StudyError, match="commit 'another'"):
        backgrounds.pools("unsplash", 0, 0, 20)
    with zipfile.ZipFile(archive, "a") as members:
        members.comment = authors_repository.COMMIT.encode()
    found = backgrounds.pools("unsplash", 0, 0, 20)
    assert {pool: len(files) for pool, files in found.items()} == {
        "train": 8, "validation": 2, "test": 4,
    }  # fmt: skip
    assert len(authors_repository.hand_masks("sop")) == 1 and not authors_repository.hand_masks(
        "cub200"
    )
    monkeypatch.setattr(download, "_attempt", None)  # nothing more is downloaded
    backgrounds.pools("unsplash", 0, 0, 20)


def test_groceries_are_split_by_class_within_every_kind(home: Path) -> None:
    """Ten fruits and nine packages, two images each, listed in three files of the authors'."""
    base, lines = home / "raw" / "grocery" / "dataset", []
    for label in range(19):
        kind = f"Fruit/f{label}" if label < 10 else f"Packages/Juice/p{label}"
        lines += [f"train/{kind}/{label}_{k}.jpg, {label}, 0" for k in range(2)]
    base.mkdir(parents=True)
    rows = [f"{'fp'[label > 9]}{label},{label},/iconic/{label}.jpg" for label in range(19)]
    head = "Class Name (str),Class ID (int),Iconic Image Path (str)"
    (base / "classes.csv").write_text("\n".join([head, *rows]) + "\n")
    for name, part in (("train", lines[:20]), ("val", lines[20:21]), ("test", lines[21:])):
        (base / f"{name}.txt").write_text("\n".join(part) + "\n")
    folder = datasets.locate("grocery")[0]
    table = datasets.read("grocery", folder)
    assert len(table) == 38 and table["path"].str.startswith("dataset/train/").all()
    by_class = table.groupby("class_name")["split"].unique()
    assert (by_class.map(len) == 1).all()
    order = [by_class[f"Packages/p{label}"][0] for label in range(10, 18)]
    turn = ["train", "test"] * 3 + ["validation", "test"]
    assert order == turn and by_class["Fruit/f8"][0] == "train"
    catalogue = readers.grocery_catalogue(folder)
    assert catalogue.to_numpy().tolist()[18] == ["dataset/iconic/18.jpg", 18]
