import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import check
from lib.data import backgrounds, datasets, mirror, prepare
from lib.data.store import Store, open_image, write_store
from tests.helpers import save


def make_cub(root: Path, classes: int = 200, each: int = 2) -> None:
    base = root / "CUB_200_2011"
    rows = [(c, k) for c in range(1, classes + 1) for k in range(each)]
    base.mkdir(parents=True)
    names = [f"{c:03d}.Bird_{c}/Bird_{c}_{k}.jpg" for c, k in rows]
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(names, 1))
    (base / "images.txt").write_text(lines)
    lines = "".join(f"{i} {c}\n" for i, (c, _) in enumerate(rows, 1))
    (base / "image_class_labels.txt").write_text(lines)
    lines = "".join(f"{c} {c:03d}.Bird_{c}\n" for c in range(1, classes + 1))
    (base / "classes.txt").write_text(lines)
    for seed, name in enumerate(names):
        save(base / "images" / name, seed)


def test_cub_splits_are_the_papers(home: Path) -> None:
    make_cub(home / "raw" / "cub200")
    table = datasets.read("cub200", datasets.locate("cub200")[0])
    counts = table.groupby("split")["label"].agg(["min", "max", "nunique"])
    assert counts.loc["train"].tolist() == [0, 74, 75]
    assert counts.loc["validation"].tolist() == [75, 99, 25]
    assert counts.loc["test"].tolist() == [100, 199, 100]


def test_cub_is_prepared_with_the_right_pixels(home: Path) -> None:
    make_cub(home / "raw" / "cub200")
    store = prepare.prepare_images("s", "cub200", 20)
    assert len(store) == 400 and store.image(0).shape == (20, 26, 3)
    file = prepare.source_files("s")[7]
    expected = open_image(file).resize((26, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(store.image(7), np.asarray(expected))
    again = prepare.prepare_images("s", "cub200", 20)
    assert again.fingerprint == store.fingerprint
    other = prepare.prepare_images("s", "cub200", 21)
    assert other.fingerprint != store.fingerprint


@pytest.mark.parametrize("layout", ["devkit", "flat"])
def test_cars_in_both_layouts(home: Path, layout: str) -> None:
    root = home / "raw" / "cars196"
    names = np.array([f"Car {c}" for c in range(196)], object)
    key, folder = ("fname", "") if layout == "devkit" else ("relative_im_path", "car_ims/")
    kind = [(key, "O"), ("class", "O")]
    rows = np.array([(f"{folder}{i:05d}.jpg", i % 196 + 1) for i in range(392)], kind)
    if layout == "devkit":
        (root / "devkit").mkdir(parents=True)
        savemat(root / "devkit/cars_meta.mat", {"class_names": names})
        savemat(root / "devkit/cars_train_annos.mat", {"annotations": rows})
    else:
        root.mkdir(parents=True)
        savemat(root / "cars_annos.mat", {"class_names": names, "annotations": rows})
    table = datasets.read("cars196", datasets.locate("cars196")[0])
    assert table["path"][5] == ("cars_train/" if layout == "devkit" else "car_ims/") + "00005.jpg"
    assert table["class_name"][5] == "Car 5"
    assert table.groupby("split")["label"].max().to_dict() == {
        "train": 73, "validation": 97, "test": 195,
    }  # fmt: skip


def test_sop_labels_start_at_zero_and_test_is_disjoint(home: Path) -> None:
    base = home / "raw" / "sop" / "Stanford_Online_Products"
    base.mkdir(parents=True)
    head = "image_id class_id super_class_id path\n"
    (base / "Ebay_train.txt").write_text(head + "1 1 1 a/1.JPG\n2 8490 1 a/2.JPG\n")
    (base / "Ebay_test.txt").write_text(head + "3 11319 1 b/3.JPG\n")
    table = datasets.read("sop", datasets.locate("sop")[0])
    assert table["label"].tolist() == [0, 8489, 11318]
    assert table["split"].tolist() == ["train", "validation", "test"]
    assert table["path"][2] == "Stanford_Online_Products/b/3.JPG"


def test_a_made_up_sop_goes_into_the_store(home: Path) -> None:
    base = home / "raw" / "sop" / "Stanford_Online_Products"
    lines = {"train": [1, 2, 8490, 8491], "test": [11319, 11320]}
    for part, classes in lines.items():
        rows = ["image_id class_id super_class_id path"]
        for label in classes:
            for k in range(2):
                rows.append(f"{label}{k} {label} 1 chair_final/{label}_{k}.JPG")
                save(base / f"chair_final/{label}_{k}.JPG", label + k)
        (base / f"Ebay_{part}.txt").write_text("\n".join(rows) + "\n")
    store = prepare.prepare_images("s", "sop", 20)
    assert store.index["split"].value_counts().to_dict() == {
        "train": 4, "validation": 4, "test": 4,
    }  # fmt: skip
    assert store.index["class_name"][11] == "product 11320"


@pytest.mark.fault(
    "network/absent",
    "data set that nobody gives",
    "library that refuses",
    "says where it looked and how to get it by hand",
)
def test_a_missing_data_set_says_where_it_looked_and_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise ConnectionError("no network")  # by itself kagglehub tries for 20 seconds

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=refuse))
    with pytest.raises(StudyError) as error:
        datasets.locate("cars196")
    for part in (
        "cars_annos.mat",
        str(home / "raw" / "cars196"),
        "DATA_MIRROR",
        "no network",
        "Kaggle",
    ):
        assert part in str(error.value)


def test_the_mirror_is_tried_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cub(home / "raw" / "cub200", 200, 2)
    make_cub(home / "mirror" / "cub200", 200, 3)
    monkeypatch.setenv("DATA_MIRROR", str(home / "mirror"))
    assert datasets.locate("cub200")[0] == home / "mirror" / "cub200"
    monkeypatch.setenv("DATA_MIRROR", str(home / "nowhere"))
    with pytest.raises(StudyError, match="not a folder"):
        datasets.locate("cub200")


@pytest.mark.fault(
    "data/truncated",
    "truncated JPEG",
    "cut after 400 bytes",
    "stops, picture named",
)
def test_a_truncated_picture_is_named(home: Path) -> None:
    root = home / "raw" / "cub200"
    make_cub(root)
    file = root / "CUB_200_2011/images/003.Bird_3/Bird_3_1.jpg"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(StudyError, match=r"cannot be decoded: .*Bird_3_1.jpg \("):
        prepare.prepare_images("s", "cub200", 20)
    assert not (paths.StudyPaths("s").prepared / "images" / "store.json").exists()


@pytest.mark.fault(
    "data/missing-picture",
    "label file names a picture that is not there",
    "one file deleted",
    "stops, picture named",
)
def test_a_picture_in_the_index_but_not_on_disk_is_named(home: Path) -> None:
    root = home / "raw" / "cub200"
    make_cub(root)
    (root / "CUB_200_2011/images/003.Bird_3/Bird_3_1.jpg").unlink()
    with pytest.raises(StudyError, match="Bird_3_1.jpg.*does not exist"):
        prepare.prepare_images("s", "cub200", 20)


@pytest.mark.fault(
    "data/one-image",
    "class with one image",
    "a table with such a class",
    "refused, class named",
)
def test_a_class_with_one_image_is_refused() -> None:
    table = pd.DataFrame({"label": [0, 0, 1, 2, 2], "class_name": list("aabcc")})
    table["split"] = ["train", "train", "validation", "test", "test"]
    table["path"] = list("vwxyz")
    with pytest.raises(StudyError, match="alone: b"):
        prepare.check_index(table)


@pytest.mark.fault(
    "data/one-class",
    "split with one class",
    "a table with such a split",
    "refused, split named",
)
def test_a_split_with_one_class_is_refused() -> None:
    rows = [(split, f"{split}{c}") for split in datasets.SPLITS for c in "ab" for _ in range(2)]
    table = pd.DataFrame(rows[:-2], columns=["split", "class_name"])
    table["label"] = pd.factorize(table["class_name"])[0]
    table["path"] = [f"{row}.jpg" for row in range(len(table))]
    with pytest.raises(StudyError, match="fewer than two classes in split test"):
        prepare.check_index(table)


def test_pools_of_the_papers_photographs_are_disjoint(home: Path) -> None:
    for part in ("train", "test"):
        for k in range(10):
            save(home / "raw" / "backgrounds" / part / f"{k}.png", k)
    store = backgrounds.prepare_backgrounds("s", "unsplash", 0, 0, 24)
    assert store.index["split"].value_counts().to_dict() == {
        "test": 10, "train": 8, "validation": 2,
    }  # fmt: skip
    photographs = store.index[store.index["split"] != "test"]["path"]
    assert not photographs.duplicated().any()


def test_no_backgrounds_says_how_to_get_them(home: Path) -> None:
    with pytest.raises(StudyError, match="background-bias-in-dml"):
        backgrounds.prepare_backgrounds("s", "unsplash", 0, 0, 24)


@pytest.mark.fault(
    "network/outside",
    "archive with ../ and absolute members",
    "tar and zip made so",
    "nothing is written outside: the member stays inside, or the archive is refused",
)
@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_cannot_write_outside(tmp_path: Path, name: str, kind: str) -> None:
    inside, archive = tmp_path / "x.txt", tmp_path / f"a.{kind}"
    inside.write_text("x")
    if kind == "tar":
        with tarfile.open(archive, "w:gz") as members:
            members.add(inside, name)
            members.getmembers()[0].name = name
            member = tarfile.TarInfo(name)
            members.addfile(member)
    else:
        with zipfile.ZipFile(archive, "w") as members:
            members.writestr(name, "x")
    target = tmp_path / "deep" / "out"
    if (kind, name) == ("tar", "../evil.txt"):
        with pytest.raises(StudyError, match="refused"):
            mirror.extract(archive, target)
        assert not target.exists()
    else:  # slashes and dots are stripped: it stays inside
        assert (mirror.extract(archive, target) / "evil.txt").exists()
    assert not (tmp_path / "evil.txt").exists() and not Path("/evil.txt").exists()


def test_a_wrong_checksum_names_both(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    with pytest.raises(StudyError, match="5d41402abc4b2a76b9719d911017c592.*expected 0000"):
        check(tmp_path / "a", "0000")


@pytest.mark.fault(
    "network/bomb",
    "zip bomb",
    "50 MB of zeros in a small zip",
    "refused before unpacking",
)
def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("zeros", bytes(50_000_000))
    with pytest.raises(StudyError, match="over a hundred times its own"):
        mirror.extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(
    "network/link",
    "archive with a link to the outside",
    "tar with a symbolic link",
    "refused",
)
def test_a_link_out_of_an_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as members:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        members.addfile(link)
    with pytest.raises(StudyError, match="refused"):
        mirror.extract(archive, tmp_path / "out")


@pytest.mark.fault(
    "network/half-archive",
    "cut archive",
    "tgz cut at two places",
    "refused, file named; nothing is left",
)
@pytest.mark.parametrize("cut", [10, 200])
def test_half_an_archive_is_refused(tmp_path: Path, cut: int) -> None:
    save(tmp_path / "x.png", 0)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as members:
        members.add(tmp_path / "x.png", "x.png")
    whole = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[:cut])
    with pytest.raises(StudyError, match="a.tgz is not a whole archive"):
        mirror.extract(tmp_path / "a.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(
    "disk/store-cut",
    "cut store",
    "five bytes taken off",
    "refused, file and both sizes named",
)
def test_a_cut_store_is_refused(tmp_path: Path) -> None:
    index = pd.DataFrame({"path": ["a", "b"], "label": [0, 1]})
    write_store(tmp_path / "s", index, [np.full((3, 4, 3), 7, np.uint8)] * 2)
    pixels = tmp_path / "s" / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes()[:-5])
    with pytest.raises(StudyError, match="pixels.u8 has 67 bytes, expected 72"):
        Store.open(tmp_path / "s")


@pytest.mark.fault(
    "parameters/classes-order",
    "a notebook run before its inputs exist",
    "inputs of each notebook absent",
    "says which notebook to run first",
)
def test_a_notebook_before_its_inputs_says_what_to_run(home: Path) -> None:
    with pytest.raises(StudyError, match="Run 01_data for study s first"):
        prepare.about("s")


def test_a_shrunken_copy_of_a_published_set_is_noted() -> None:
    note = prepare.copy_note(pd.Series([30, 30, 30]), official=True)
    assert "3 of 3 images read have a short side of exactly 30 pixels" in note
    assert prepare.copy_note(pd.Series([30, 30, 30]), official=False) == ""
    assert prepare.copy_note(pd.Series([30, 30, 30, 31]), official=True) == ""


@pytest.mark.fault(
    "killed/store",
    "store killed while it replaces another",
    "stopped between pixels and seal",
    "there is no store, not half of each",
)
def test_a_store_written_over_another_is_never_half_of_each(tmp_path: Path, monkeypatch) -> None:
    index = pd.DataFrame({"path": ["a", "b"], "label": [0, 1]})
    write_store(tmp_path / "s", index, [np.full((3, 4, 3), 7, np.uint8)] * 2)

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "lib.data.store.write_json", killed
    )  # after pixels and index, before the seal
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "s", index, [np.full((3, 4, 3), 9, np.uint8)] * 2)
    with pytest.raises(StudyError, match="holds no store"):
        Store.open(tmp_path / "s")
