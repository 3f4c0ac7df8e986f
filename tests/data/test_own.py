"""A folder of one's own, however it came about: read, or named with the reason."""

import builtins
import errno
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.data import datasets, decode, listing, own, prepare, readers
from lib.evaluation import statistics
from tests.helpers import save


def fill(root: Path, *names: str) -> None:
    """Write an image of noise under every name."""
    for seed, name in enumerate(names):
        save(root / name, seed)


def classes(root: Path) -> dict[str, str]:
    """Path -> class."""
    table, _ = own.by_folders(root)
    return dict(zip(table["path"], table["class_name"], strict=True))


def left(root: Path) -> dict[str, str]:
    table = own.left_out(root)
    return dict(zip(table["path"], table["why"], strict=True))


def test_groups_and_folders_inside_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "Fruit/Apple/1.png", "Fruit/Pear/1.png", "Bus/1.png", "Bus/old/2.png",
         "Bus/old/deep/3.png", "stray.png")  # fmt: skip
    assert classes(tmp_path) == {
        "Bus/1.png": "Bus", "Bus/old/2.png": "Bus", "Bus/old/deep/3.png": "Bus",
        "Fruit/Apple/1.png": "Fruit/Apple", "Fruit/Pear/1.png": "Fruit/Pear",
    }  # fmt: skip
    assert left(tmp_path) == {"stray.png": own.LOOSE}


@pytest.mark.parametrize("wrapper", ["", "archive/", "archive/images/"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST")])
def test_split_folders_are_honoured(tmp_path: Path, wrapper: str, names: tuple) -> None:
    for number, split in enumerate(names):
        fill(tmp_path, *(f"{wrapper}{split}/c{2 * number + k}/{i}.png" for k in (0, 1)
                         for i in (0, 1)))  # fmt: skip
    save(tmp_path / wrapper / names[0] / "loose.png", 1)
    table = datasets.read("folder", tmp_path)
    assert table.groupby("split")["class_name"].unique().map(list).to_dict() == {
        "train": ["c0", "c1"], "validation": ["c2", "c3"], "test": ["c4", "c5"],
    }  # fmt: skip
    assert left(tmp_path) == {f"{wrapper}{names[0]}/loose.png": own.LOOSE}
    prepare.check_index(table)


def test_a_split_that_is_missing_is_dealt_out(tmp_path: Path) -> None:
    fill(tmp_path, *(f"train/a{k}/{i}.png" for k in range(8) for i in (0, 1)))
    fill(tmp_path, *(f"test/b{k}/{i}.png" for k in range(3) for i in (0, 1)))
    table = datasets.read("folder", tmp_path, {"folder": str(tmp_path), "seed": 2})
    counts = table.groupby("split")["class_name"].nunique().to_dict()
    assert counts == {"train": 6, "validation": 2, "test": 3}
    assert table[table["split"] == "test"]["class_name"].str.startswith("b").all()
    prepare.check_index(table)


def test_the_same_classes_in_every_split_are_named_and_can_be_dealt_out(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{s}/c{k}/{i}.png" for s in ("train", "val", "test") for k in range(8)
                     for i in (0, 1)))  # fmt: skip
    with pytest.raises(StudyError, match=r"8 classes.*c0 in train and validation and test.*drawn"):
        prepare.check_index(datasets.read("folder", tmp_path))
    options = {"folder": str(tmp_path), "splits": "drawn"}
    table = datasets.read("folder", tmp_path, options)
    prepare.check_index(table)
    assert len(table) == 48 and table["label"].nunique() == 8


def test_splits_beside_other_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "test/b/1.png", "Banana/1.png")
    with pytest.raises(StudyError, match="splits .test, train. and beside them Banana"):
        own.by_folders(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"), ("train_set", "train"), ("training set", "train"),
        ("TrainSet", "train"), ("train2017", "train"), ("images_train", "train"),
        ("val", "validation"), ("VALID", "validation"), ("test-images", "test"),
        ("testdata", "test"), ("Trains", None),
        ("train station", None), ("train (class)", None), ("test苹果", None), ("set", None),
        ("test 1", None), ("苹果", None), ("2017", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert own.split_of(name) == split


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "train/1.png", "bus/1.png", "land/train/1.png", "land/coach/1.png")
    assert set(classes(tmp_path).values()) == {"train", "bus", "land/train", "land/coach"}


@pytest.mark.parametrize(
    "names",
    [
        ("test/1", "Apple/1", "Pear/1"), ("train/1", "test/1", "Apple/1"), ("train_set/1", "a/1"),
        ("valid/1", "Apple/1"), ("train/Apple/1", "Banana/1"), ("val/Apple/1", "Banana/1"),
        ("Fruit/test/1", "Fruit/Apple/1", "Bus/1"), ("all/test/1", "all/Apple/1"),
    ],
)  # fmt: skip
def test_a_split_beside_classes_is_refused(tmp_path: Path, names: tuple) -> None:
    fill(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(StudyError, match="holds splits .*beside them.*labels.csv"):
        own.by_folders(tmp_path)


@pytest.mark.parametrize(
    "names", [("test/1", "train/1"), ("train/1",), ("all/train/1", "all/val/1", "all/test/1"),
              ("test/1", "train_set/1", "Train/1", "valid/1", "training/1", "val/1")]
)  # fmt: skip
def test_splits_without_classes_are_refused(tmp_path: Path, names: tuple) -> None:
    fill(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(StudyError, match="splits .*no class folders"):
        own.by_folders(tmp_path)


def test_a_test_without_classes_is_left_out(tmp_path: Path) -> None:
    """As competitions publish theirs."""
    fill(tmp_path, *(f"train/c{k}/{i}.png" for k in range(8) for i in (0, 1)), "test/1.png")
    table = datasets.read("folder", tmp_path)
    prepare.check_index(table)
    assert set(table["class_name"]) == {f"c{k}" for k in range(8)}
    assert left(tmp_path) == {"test/1.png": own.LOOSE}


@pytest.mark.parametrize("group", ["", "Fruit/"])
def test_splits_inside_classes_are_merged_and_told(home: Path, group: str) -> None:
    names = [f"{group}c{k}/{part}/{i}.png" for k in range(8) for part in ("Train", "test_set")
             for i in (0, 1)]  # fmt: skip
    fill(home / "mine", *names, "Bus/1.png", "Bus/2.png")
    assert set(classes(home / "mine").values()) == {f"{group}c{k}" for k in range(8)} | {"Bus"}
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert len(store) == 34 and (store.index.groupby("class_name")["split"].nunique() == 1).all()
    faults = pd.read_csv(paths.StudyPaths("s").prepared / "faults.csv")
    assert sorted(faults.loc[faults["fault"] == "merged", "path"]) == sorted(names)


@pytest.mark.parametrize("pattern", ["{c}/{s}/{i}.png", "all/{c}/{s}/{i}.png", "g/{s}/{c}/{i}.png"])
def test_splits_inside_classes_are_used_where_no_class_has_two(
    tmp_path: Path, pattern: str
) -> None:
    splits = ["train", "train", "val", "val", "test", "test"]
    fill(tmp_path, *(pattern.format(c=f"c{k}", s=s, i=i) for k, s in enumerate(splits)
                     for i in (0, 1)))  # fmt: skip
    table = datasets.read("folder", tmp_path)
    prepare.check_index(table)
    assert table.groupby("split")["class_name"].unique().map(list).to_dict() == {
        "train": ["c0", "c1"], "validation": ["c2", "c3"], "test": ["c4", "c5"],
    }  # fmt: skip
    assert "merged" not in table


def test_a_split_inside_a_class_with_images_is_of_the_class(tmp_path: Path) -> None:
    fill(tmp_path, "Apple/1.png", "Apple/test/2.png", "Apple/old/3.png", "Pear/1.png")
    assert set(classes(tmp_path).values()) == {"Apple", "Pear"}


def test_hidden_and_system_files_are_no_classes_and_no_images(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    hidden = [
        "a/._1.png", ".ipynb_checkpoints/1.png", ".Trash-1000/files/1.png", "a/.thumb/1.png",
        "@eaDir/1.png", "__MACOSX/a/._1.png", "$RECYCLE.BIN/1.png",
    ]  # fmt: skip
    fill(tmp_path, *hidden)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "b" / "desktop.ini").write_bytes(b"x")
    assert classes(tmp_path) == {"a/1.png": "a", "b/1.png": "b"}
    found = left(tmp_path)
    assert set(found.values()) == {own.HIDDEN} and len(found) == 9
    assert found[".Trash-1000/"] == own.HIDDEN  # the folder, not each of its files
    assert [file.name for file in readers.pictures(tmp_path / "a")] == ["1.png"]


SYSTEMS = [
    "@Recycle", "@eaDir", "@__thumb", "@Recently-Snapshot", "#recycle", "#snapshot", "_MACOSX",
    "__MACOSX", "FOUND.000", "found.012", "Network Trash Folder", "Temporary Items",
    "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "lost+found",
    "LOST.DIR", ".Trash-1000", ".Trashes", ".@__thumb", ".thumbnails", "__pycache__",
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_folders_of_systems_are_no_classes_at_any_depth(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", f"{name}/1.png", f"{name}/sub/2.png", f"a/{name}/3.png")
    assert classes(tmp_path) == {"a/1.png": "a", "b/1.png": "b"}
    assert left(tmp_path) == {f"{name}/": own.HIDDEN, f"a/{name}/": own.HIDDEN}
    assert set(listing.listing(tmp_path)["path"]) == {"a/1.png", "b/1.png"}


@pytest.mark.parametrize("name", ["@natgeo", "#1", "$5", "found", "found.object", "recycling bin"])
def test_names_that_only_look_like_it_stay_classes(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "a/1.png", f"{name}/1.png")
    assert set(classes(tmp_path).values()) == {"a", name}


# ------------------------------------------------------------------------------------------ links


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(tmp_path, "mine/a/1.png", "else/b/1.png", "mine/.store/c/1.png", "far/old/2.png")
    (root / "b").symlink_to(tmp_path / "else" / "b")
    (root / "c").symlink_to(root / ".store" / "c")
    (root / "a" / "more").symlink_to(tmp_path / "far")
    assert classes(root) == {
        "a/1.png": "a", "a/more/old/2.png": "a", "b/1.png": "b", "c/1.png": "c",
    }  # fmt: skip
    assert left(root) == {".store/": own.HIDDEN}
    assert set(listing.listing(root)["path"]) == set(classes(root))


@pytest.mark.parametrize("alias", ["A", "z"])  # before and after the folder, in order of names
def test_a_link_to_a_folder_that_is_there_anyway_is_named(tmp_path: Path, alias: str) -> None:
    fill(tmp_path, "m/1.png", "n/1.png")
    (tmp_path / alias).symlink_to(tmp_path / "m")
    assert classes(tmp_path) == {"m/1.png": "m", "n/1.png": "n"}
    assert left(tmp_path) == {f"{alias}/": own.AGAIN}


def test_loops_of_links_end_and_are_named(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(tmp_path, "mine/a/1.png", "mine/b/1.png", "else/2.png", "elsewhere/3.png")
    (root / "a" / "up").symlink_to(tmp_path)  # holds the folder itself
    (root / "b" / "out").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "back").symlink_to(root)
    (tmp_path / "else" / "self").symlink_to(tmp_path / "else")
    (root / "b" / "twice").symlink_to(tmp_path / "else")
    (root / "c").symlink_to(root / "c")
    assert classes(root) == {"a/1.png": "a", "b/1.png": "b", "b/out/2.png": "b"}
    again = ["a/up/", "b/out/back/", "b/out/self/", "b/twice/"]
    assert left(root) == dict.fromkeys(again, own.AGAIN) | {"c": own.NOWHERE}


# -------------------------------------------------------------------------- no right to read them


def locked(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make files and folders of these names unreadable, for root too."""

    def guarded(real):
        def open_or_refuse(file, *rest, **more):
            if isinstance(file, (str, Path)) and Path(file).name in names:
                raise PermissionError(errno.EACCES, "Permission denied", str(file))
            return real(file, *rest, **more)

        return open_or_refuse

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", guarded(open))


def test_a_file_without_the_right_to_read_it_is_a_broken_image(home: Path, monkeypatch) -> None:
    root = home / "mine"
    fill(root, *(f"c{k}/{i}.png" for k in range(8) for i in range(3)), "c1/locked.png",
         "c2/locked 2.png", "c1/bare.png")  # fmt: skip
    (root / "c1" / "bare.png").rename(root / "c1" / "locked")
    locked(monkeypatch, "locked.png", "locked 2.png", "locked")
    options = {"folder": "mine"}
    with pytest.raises(StudyError, match="c1/locked.png .*Permission denied.*allow_broken"):
        prepare.prepare_images("s", "folder", 20, options)
    store = prepare.prepare_images("s", "folder", 20, options, allow_broken=True)
    assert len(store) == 24
    faults = pd.read_csv(paths.StudyPaths("s").prepared / "faults.csv")
    found = faults[faults["path"].str.contains("locked")]
    assert found[["path", "fault"]].to_numpy().tolist() == [
        ["c1/locked.png", "broken"], ["c2/locked 2.png", "broken"],
    ]  # fmt: skip
    assert own.left_out(root).to_numpy().tolist() == [["c1/locked", own.UNREADABLE]]
    with pytest.raises(StudyError, match="locked.png cannot be decoded"):
        decode.open_image(root / "c1" / "locked.png")
    locked(monkeypatch, "0.png")  # since then
    with pytest.raises(StudyError, match="0.png cannot be read"):
        prepare.source_files("s")


@pytest.mark.parametrize("name", ["shut", "mine"])
def test_a_folder_without_the_right_to_read_it_is_named(home: Path, monkeypatch, name) -> None:
    fill(home / "mine", *(f"c{k}/{i}.png" for k in range(8) for i in (0, 1)), "c1/shut/1.png")
    locked(monkeypatch, name)
    for reading in (
        lambda: prepare.prepare_images("s", "folder", 20, {"folder": "mine"}),
        lambda: listing.listing(home / "mine"),
        lambda: own.look(home / "mine"),
    ):
        with pytest.raises(StudyError, match=f"{name} cannot be read"):
            reading()


def test_labels_without_the_right_to_read_them_are_named(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, "a/1.png")
    (tmp_path / "labels.csv").write_text("path,label\na/1.png,a\n")
    locked(monkeypatch, "labels.csv")
    with pytest.raises(StudyError, match="labels.csv cannot be read"):
        own.look(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
def test_rights_of_the_file_system_raise_in_words(home: Path, mode: int) -> None:
    root = home / "mine"
    fill(root, *(f"c{k}/{i}.png" for k in range(8) for i in range(3)))
    for place in (root / "c1", root):
        place.chmod(mode)
        try:
            for reading in (
                lambda: prepare.prepare_images("s", "folder", 20, {"folder": "mine"}),
                lambda: own.look(root),
                lambda: listing.listing(root),
            ):
                with pytest.raises(StudyError, match=f"{place.name}.*(cannot be read|denied)"):
                    reading()
                if mode == 0o400 and place.name == "c1":
                    break  # its names can be listed: each image in it is broken
        finally:
            place.chmod(0o700)
    (root / "c1" / "0.png").chmod(0)
    with pytest.raises(StudyError, match="c1/0.png .*Permission denied"):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})


def test_pipes_are_no_images(tmp_path: Path) -> None:
    """Opening one waits for ever."""
    fill(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    os.mkfifo(tmp_path / "a" / "3")
    assert set(left(tmp_path)) == {"a/2.png", "a/3"}


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".HEIC", "HEIF"), (".heif", "HEIF"), (".avif", "AVIF"), (".jfif", "JPEG"),
        (".jpe", "JPEG"), (".jp2", "JPEG2000"), ("", "PNG"), (".JPG", "HEIF"), (".dat", "WEBP"),
        (".tga", "TGA"), (".ppm", "PPM"), (".x y", "GIF"),
    ],
)  # fmt: skip
def test_every_format_is_read_whatever_its_suffix(home: Path, suffix: str, kind: str) -> None:
    root = home / "mine"
    for k in range(8):
        for i in (0, 1):
            (root / f"c{k}").mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (40, 30), (30 * k, 200, 100 * i))
            image.save(root / f"c{k}" / f"{i}{suffix}", format=kind)
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert len(store) == 16 and not len(own.left_out(root))
    for row, path in enumerate(store.index["path"]):
        expected = (30 * int(path[1]), 200, 100 * int(path[3]))
        if kind != "GIF":  # a palette is close enough
            np.testing.assert_allclose(store.image(row)[5, 5], expected, atol=6)


def test_everything_else_is_named(home: Path) -> None:
    root = home / "mine"
    fill(root, *(f"c{k}/{i}.png" for k in range(8) for i in (0, 1)))
    (root / "c0" / "notes.txt").write_text("P3 is no image")
    (root / "c1" / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    (root / "c2" / "raw.NEF").write_bytes((root / "c0/0.png").read_bytes())
    (root / "c3" / "gone.jpg").symlink_to(root / "nowhere")
    (root / "c4" / "loop").symlink_to(root)
    prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    table = pd.read_csv(paths.StudyPaths("s").prepared / "left_out.csv")
    assert dict(table.to_numpy()) == {
        "c0/notes.txt": own.NO_IMAGE, "c1/film.mp4": own.NO_IMAGE, "c2/raw.NEF": own.CAMERA,
        "c3/gone.jpg": own.NOWHERE, "c4/loop/": own.AGAIN,
    }  # fmt: skip
    assert prepare.about("s")["left_out"] == 5


def test_images_without_classes_are_told(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    (tmp_path / "empty class").mkdir()
    with pytest.raises(StudyError, match="2 images lie directly in .*<class>/<image>.jpg"):
        own.by_folders(tmp_path)
    (tmp_path / "1.png").unlink(), (tmp_path / "2.png").unlink()
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(StudyError, match="holds no images .1 not an image."):
        own.by_folders(tmp_path)


@pytest.mark.parametrize("images", ["", "images/"])
def test_exact_masks_beside_the_classes_are_no_images(tmp_path: Path, images: str) -> None:
    fill(tmp_path, *(f"{top}{c}/1.png" for top in (images, "masks/") for c in "ab"))
    assert set(classes(tmp_path).values()) == {"a", "b"}
    assert left(tmp_path) == {"masks/a/1.png": own.TRUTH, "masks/b/1.png": own.TRUTH}


def test_a_class_may_be_called_masks(tmp_path: Path) -> None:
    fill(tmp_path, "masks/1.png", "a/1.png", "b/1.png")
    assert set(classes(tmp_path).values()) == {"masks", "a", "b"}


NAMES = ["$x^2$", "{0}", "a\\b", "苹果", "<b>", "100 %", "007", "NA", "né"]


def test_names_stay_as_they_are(home: Path) -> None:
    fill(home / "mine", *(f"{name}/{i}.png" for name in NAMES for i in (0, 1)))
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert sorted(store.index["class_name"].unique()) == sorted(NAMES)
    assert sorted(prepare.Store.open(paths.StudyPaths("s").prepared / "images")
                  .index["class_name"].unique()) == sorted(NAMES)  # fmt: skip


# ------------------------------------------------------------------------------------- labels.csv

LINES = ["a/1.png,A", "a/2.png,A", "b/1.png,B"]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n" + "\n".join(LINES),
        "\ufeffPath, Label\r\n" + "\r\n".join(LINES) + "\r\n\r\n",
        "path;label\n" + "\n".join(LINES).replace(",", ";"),
        "label\tpath\n" + "\n".join("\t".join(line.split(",")[::-1]) for line in LINES),
        "path,label\n" + "\n".join(LINES).replace("/", "\\"),
        'path,label\n"{root}/a/1.png",A\n a/2.png ,A \nb/1.png,"B"',
    ],
)
def test_labels_in_the_ways_that_tables_are_written(tmp_path: Path, text: str) -> None:
    fill(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/forgotten.png")
    (tmp_path / "labels.csv").write_text(text.replace("{root}", str(tmp_path)), "utf-8")
    table, rest = own.by_labels(tmp_path)
    assert dict(zip(table["path"], table["class_name"], strict=True)) == {
        "a/1.png": "A", "a/2.png": "A", "b/1.png": "B",
    }  # fmt: skip
    assert rest.left_out == [("b/forgotten.png", own.UNLISTED)]


def test_splits_of_labels_are_named_in_many_ways(tmp_path: Path) -> None:
    splits = {"Train": "train", "train_set": "train", "VAL": "validation", "test ": "test"}
    rows = [f"{number}.png,{number},{name}" for number, name in enumerate(splits)]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows))
    assert own.by_labels(tmp_path)[0]["split"].tolist() == list(splits.values())
    (tmp_path / "labels.csv").write_text("path,label,split\na.png,a,neither\n")
    with pytest.raises(StudyError, match="split 'neither'; known: train"):
        own.by_labels(tmp_path)


def test_labels_of_windows_keep_their_letters(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,label\na.png,Äpfel".encode("cp1252"))
    assert own.by_labels(tmp_path)[0]["class_name"].tolist() == ["Äpfel"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the column label"),
        ("path,label\n", "lists no images"),
        ("path,label\na,b,c\n", "line 2 has 3 fields"),
        ('path,label\n"a,b\n', "is no table"),
        ("path,label\n../x.png,a\n", "not below"),
        ("path,label\n/x.png,a\n", "not below"),
    ],
)
def test_labels_that_are_none_are_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(StudyError, match=words):
        own.by_labels(tmp_path)


def test_classes_in_two_splits_are_named_with_reason_and_remedy() -> None:
    rows = [(f"{k}{s}{i}", k, f"class {k}", s) for k in range(6) for i in (0, 1)
            for s in (("train", "test") if k == 3 else ("train",))]  # fmt: skip
    table = pd.DataFrame(rows, columns=prepare.COLUMNS)
    with pytest.raises(StudyError, match="1 classes.*class 3 in train and test.*Give every class"):
        prepare.check_index(table)


# ------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize("number", [*range(6, 61), 100, 200])
def test_every_number_of_classes_is_split(number: int) -> None:
    split = readers.split_classes(pd.Series(np.repeat(np.arange(number), 2)), seed=number)
    count = split.value_counts() // 2
    assert count.min() >= 2 and count.sum() == number
    assert readers.FIVE == statistics.MIN_CLASSES
    if number >= 9:
        assert count["test"] >= readers.FIVE
    if number >= 20:
        assert count["validation"] >= readers.FIVE
    if number >= 40:
        assert count["validation"] == round(number / 8)


@pytest.mark.parametrize(
    "options",
    [{"folder": 3}, {"folder": "x", "sead": 1}, {"folder": "x", "splits": "honoured"},
     {"folder": "x", "seed": "one"}],
)  # fmt: skip
def test_options_that_nobody_knows_are_refused(options: dict) -> None:
    with pytest.raises(StudyError, match="options of data set 'folder'"):
        datasets.check_own(options)


def test_shares_outside_the_range_are_refused() -> None:
    with pytest.raises(StudyError, match="each between 0 and 1"):
        readers.split_classes(pd.Series([1, 2, 3]), shares={"test": 1.5})


def test_a_change_of_a_file_changes_the_listing(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "a/2.png", ".git/x.png")
    first = listing.listing(tmp_path)
    assert first["path"].tolist() == ["a/1.png", "a/2.png"]
    one, two = tmp_path / "a/1.png", tmp_path / "a/2.png"
    one.rename(tmp_path / "x"), two.rename(one), (tmp_path / "x").rename(two)
    assert not listing.listing(tmp_path).equals(first)
    assert decode.is_image(one)


def test_the_listing_of_a_study_holds_its_own_folders_and_nothing_else(home: Path, monkeypatch):
    data = {"dataset": "folder", "backgrounds": "places or rendered", "options": {"folder": "mine"}}
    monkeypatch.setattr(listing.params, "section", lambda study, part: data)
    fill(home / "mine", "a/1.png", "b/1.png")
    fill(home / "places", "1.png")
    assert listing.main(["--study", "s"]) == 0
    written = pd.read_csv(home / "data" / "files" / "s.csv")
    assert written[["folder", "path"]].to_numpy().tolist() == [
        ["mine", "a/1.png"], ["mine", "b/1.png"], ["places", "1.png"],
    ]  # fmt: skip
    before = (home / "data" / "files" / "s.csv").read_bytes()
    assert listing.main(["--study", "s"]) == 0
    assert (home / "data" / "files" / "s.csv").read_bytes() == before
    data |= {"dataset": "cub200", "backgrounds": "unsplash"}
    assert listing.main(["--study", "s"]) == 0
    assert len(pd.read_csv(home / "data" / "files" / "s.csv")) == 0
