"""Images decoded once: a memory-mapped uint8 store and its index table.

A store is a folder with `pixels.u8` (the images one after the other, height x width x channels),
`index.csv` (one row an image: where it starts, its size, its label) and `store.json`.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from lib.core.errors import StudyError
from lib.core.files import atomic, read_json, sealed, write_json
from lib.core.progress import track


def shrunk_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height after the shorter one is brought to `side` (torchvision's rule)."""
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def upright(image: Image.Image) -> Image.Image:
    """A picture as people see it: turned by its EXIF tag, RGB, 8 bits, the first frame.

    Transparent parts are put on white; 16 bits are scaled to 8 (Pillow alone would cut them off).
    """
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.uint32).clip(0, 65535)
        image = Image.fromarray((deep // 257).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        solid = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(solid, image.convert("RGBA"))
    return image.convert("RGB")


def open_image(path: Path) -> Image.Image:
    """Decode a picture to upright RGB; a broken or missing file raises with its name."""
    try:
        with Image.open(path) as image:
            return upright(image)
    except FileNotFoundError as error:
        raise StudyError(f"{path} is listed in the index but does not exist.") from error
    except BROKEN as error:
        raise StudyError(f"{path} cannot be decoded ({error}). Replace or remove it.") from error


def shrink(image: Image.Image, side: int) -> np.ndarray:
    """Bring the shorter side to `side` with an antialiased bilinear filter; uint8 HxWxC."""
    size = shrunk_size(*image.size, side)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


TEXT = dict.fromkeys(("path", "class_name", "split"), str)  # a class may be called 007 or NA


@dataclass
class Store:
    """A readable store. `index` has one row an image, in the order of the pixels."""

    index: pd.DataFrame
    pixels: np.ndarray
    channels: int
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open the store in `folder`; a missing, cut or damaged one raises and says what to run."""
        if not (folder / "store.json").exists():
            raise StudyError(f"{folder} holds no store. Run the notebook that writes it first.")
        facts = read_json(folder / "store.json")
        remedy = "Delete the folder and run again the notebook that writes it."
        file, table = folder / "pixels.u8", folder / "index.csv"
        if file.exists() and file.stat().st_size != facts["bytes"]:
            raise StudyError(
                f"{file} has {file.stat().st_size} bytes, expected {facts['bytes']}. {remedy}"
            )
        sealed([file, table], facts["fingerprint"], remedy)
        index = pd.read_csv(table, dtype=TEXT, keep_default_na=False)
        pixels = np.memmap(file, np.uint8, mode="c")  # writable view, file untouched
        return cls(index, pixels, facts["channels"], facts["fingerprint"])

    def __len__(self) -> int:
        return len(self.index)

    def image(self, row: int) -> np.ndarray:
        """Image number `row` as a view, height x width x channels (channels left out if 1)."""
        height, width, start = self._geometry[row]
        shape = (height, width, self.channels) if self.channels > 1 else (height, width)
        stop = start * self.channels + height * width * self.channels
        return self.pixels[start * self.channels : stop].reshape(shape)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split."""
        return np.flatnonzero(self.index["split"] == split)

    @property
    def labels(self) -> np.ndarray:
        """Label of every row."""
        return self.index["label"].to_numpy()

    def __post_init__(self) -> None:
        self._geometry = self.index[["height", "width", "start"]].to_numpy()


def write_store(folder: Path, index: pd.DataFrame, arrays: Iterable[np.ndarray | None]) -> Store:
    """Write `arrays` (uint8, HxWxC or HxW, in the order of `index`) as a store; None drops its row.

    Adds the columns height, width, start (first pixel, counted over all images before) and
    fingerprints pixels and index together (sha256).
    """
    seal, shapes, channels, start, starts, kept = hashlib.sha256(), [], 1, 0, [], []
    with atomic(folder / "pixels.u8") as temporary, open(temporary, "wb") as target:
        for row, array in enumerate(arrays):
            if array is None:
                continue
            kept.append(row)
            channels = array.shape[2] if array.ndim == 3 else 1
            data = np.ascontiguousarray(array).tobytes()
            target.write(data)
            seal.update(data)
            shapes.append(array.shape[:2])
            starts.append(start)
            start += array.shape[0] * array.shape[1]
        # killed from here on, the folder holds no store, rather than new pixels under an old seal
        (folder / "store.json").unlink(missing_ok=True)
    sizes = pd.DataFrame(shapes, columns=["height", "width"])
    index = (
        index.iloc[kept]
        .reset_index(drop=True)
        .assign(height=sizes["height"], width=sizes["width"], start=starts)
    )
    text = index.to_csv(index=False, lineterminator="\n").encode()
    seal.update(text)
    with atomic(folder / "index.csv") as temporary:
        temporary.write_bytes(text)
    facts = {"bytes": start * channels, "channels": channels, "fingerprint": seal.hexdigest()}
    write_json(folder / "store.json", facts)
    return Store.open(folder)


def decode_all(files: list[Path], side: int, title: str) -> Iterable[np.ndarray]:
    """Decode and shrink `files` in parallel, in order."""

    def read(file: Path) -> np.ndarray:
        return shrink(open_image(file), side)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(range(0, len(files), 256), title, -(-len(files) // 256)):
            yield from pool.map(read, files[start : start + 256])  # bounded: memory stays small
