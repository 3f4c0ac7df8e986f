"""Names, bombs and masks that do not fit, through one's own folder."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.data import prepare
from lib.data.store import Store
from lib.masks import sources

NAMES = {
    "space": "two words",
    "quotes": "a \"quoted\" 'class'",
    "letters": "Käfer 甲虫 é",
    "newline": "two\nlines",
    "comma": "a,b;c",
    "number": "007",
    "nothing": "NA",
    "tag": "<script>alert(1)</script>".replace("/", "-"),
}


def pictures(root: Path, classes: list[str], name: str = "{k}.png") -> Path:
    """Two small pictures a class."""
    rng = np.random.default_rng(0)
    for label in classes:
        (root / label).mkdir(parents=True)
        for k in range(2):
            array = rng.integers(0, 255, (30, 40, 3), np.uint8)
            Image.fromarray(array).save(root / label / name.format(k=k))
    return root


@pytest.mark.fault(
    "data/names",
    "odd names of classes and files",
    "spaces, quotes, letters of other scripts, newline, comma, 007, NA, a tag",
    "every name comes back as it was, also from masks and tables",
)
def test_names_come_back_as_they_were(home: Path) -> None:
    for kind, name in NAMES.items():
        pictures(home / "mine", [name], f"{kind} {name} {{k}}.png")
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert sorted(set(store.index["class_name"])) == sorted(NAMES.values())
    assert all(file.is_file() for file in prepare.source_files("s"))
    made = sources.make_masks("s", "full")
    assert list(made.index["path"]) == list(store.index["path"])
    assert all(isinstance(name, str) for name in made.index["class_name"])


@pytest.mark.fault(
    "data/names-number",
    "classes that are all called by a number",
    "folders 001 to 008",
    "names stay text, zeros kept",
)
def test_numbers_stay_names(home: Path) -> None:
    pictures(home / "mine", [f"{c:03d}" for c in range(1, 9)])
    store = prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert sorted(store.index["class_name"].str[:]) == sorted(2 * [f"00{c}" for c in range(1, 9)])


@pytest.mark.fault(
    "data/names-bytes",
    "file name that is no UTF-8",
    "a name in another encoding",
    "refused, name told",
)
@pytest.mark.skipif(os.name != "posix", reason="names are bytes only there")
def test_a_name_in_another_encoding_is_refused(home: Path) -> None:
    folder = pictures(home / "mine", [f"c{c}" for c in range(8)]) / "c0"
    try:
        os.rename(bytes(folder / "0.png"), bytes(folder) + b"/\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(StudyError, match="no text in UTF-8.*Rename"):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})


def bomb(file: Path, side: int = 20_000) -> None:
    """A small PNG of side x side black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    squeezed = zlib.compressobj(1)
    row = bytes(1 + side // 8)
    body = b"".join(squeezed.compress(row) for _ in range(side)) + squeezed.flush()
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.fault(
    "data/bomb",
    "decompression bomb",
    "a PNG of 20,000 x 20,000 pixels in a small file",
    "refused by its head, before it is unpacked; picture named",
)
def test_a_picture_of_four_hundred_megapixels_is_refused(home: Path) -> None:
    bomb(pictures(home / "mine", [f"c{c}" for c in range(8)]) / "c0" / "1.png")
    assert (home / "mine" / "c0" / "1.png").stat().st_size < 500_000
    with pytest.raises(StudyError, match=r"cannot be decoded: c0/1.png \(Image size .*exceeds"):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})


@pytest.mark.fault(
    "data/one-class-set",
    "data set with one class, class with one picture",
    "such folders",
    "refused in words",
)
def test_one_class_and_one_picture_are_refused(home: Path) -> None:
    pictures(home / "one", ["only"])
    with pytest.raises(StudyError, match="1 classes cannot be split"):
        prepare.prepare_images("s", "folder", 20, {"folder": "one"})
    (pictures(home / "mine", [f"c{c}" for c in range(8)]) / "c3" / "1.png").unlink()
    with pytest.raises(StudyError, match="alone: c3"):
        prepare.prepare_images("s", "folder", 20, {"folder": "mine"})


@pytest.mark.fault(
    "data/mask-shape",
    "exact mask of another shape, or no picture",
    "a mask turned by 90 degrees; a text file; one of twice the size",
    "refused, file named; twice the size of the same shape is shrunk",
)
def test_exact_masks_of_another_shape_are_refused(home: Path) -> None:
    root = pictures(home / "mine" / "images", [f"c{c}" for c in range(6)]).parent
    lines = [f"images/c{c}/{k}.png,c{c},{s}" for c, s in enumerate(SPLITS) for k in range(2)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    for c in range(6):
        (root / "masks" / f"c{c}").mkdir(parents=True)
        for k in range(2):
            Image.new("L", (80, 60), 100).save(root / "masks" / f"c{c}" / f"{k}.png")
    prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
    assert sources.make_masks("s", "true").image(0).shape == (20, 26)
    odd = root / "masks" / "c2" / "1.png"
    Image.new("L", (30, 40), 100).save(odd)
    with pytest.raises(StudyError, match="c2/1.png is 30x40 pixels.*another shape"):
        sources.make_masks("s", "true")
    odd.write_text("no picture")
    with pytest.raises(StudyError, match="c2/1.png cannot be decoded"):
        sources.make_masks("s", "true")
    assert Store.open(paths.StudyPaths("s").masks / "true").image(0).shape == (20, 26)


SPLITS = ["train", "train", "validation", "validation", "test", "test"]
