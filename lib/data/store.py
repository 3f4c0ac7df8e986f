"""Images decoded once: a memory-mapped uint8 store and its index table.

A store is a folder with `pixels.u8` (the images one after the other, height x width x channels),
`index.csv` (one row an image: where it starts, its size, its label) and `store.json`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from lib.core.errors import DamagedFile, StudyError
from lib.core.files import atomic, key_of, read_json, sealed, write_json
from lib.core.hardware import workers
from lib.core.progress import track
from lib.data.decode import open_image, shrink

AHEAD = 256  # files in memory at a time
TEXT = dict.fromkeys(("path", "class_name", "split"), str)  # a class may be called 007 or NA
Made = TypeVar("Made")


def in_order(work: Callable[[Path], Made], files: list[Path], title: str) -> Iterator[Made]:
    """`work` of every file, in threads and in order, AHEAD files at a time."""
    with ThreadPoolExecutor(workers()) as pool:
        for start in track(range(0, len(files), AHEAD), title, -(-len(files) // AHEAD)):
            yield from pool.map(work, files[start : start + AHEAD])


def decode_all(files: list[Path], side: int, title: str) -> Iterator[np.ndarray]:
    """Decode and shrink `files` in parallel, in order."""
    return in_order(lambda file: shrink(open_image(file), side), files, title)


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
        facts_file, file, table = (folder / n for n in ("store.json", "pixels.u8", "index.csv"))
        if not facts_file.exists():
            raise StudyError(f"{folder} holds no store. Run the notebook that writes it first.")
        remedy = "Delete the folder and run again the notebook that writes it."
        facts = read_json(facts_file)
        if facts.pop("seal", None) != key_of(**facts):
            raise DamagedFile(f"{facts_file} is damaged, or of an earlier version. {remedy}")
        if file.exists() and file.stat().st_size != facts["bytes"]:
            raise StudyError(
                f"{file} has {file.stat().st_size} bytes, expected {facts['bytes']}. {remedy}"
            )
        sealed([file, table], facts["fingerprint"], remedy)
        index = pd.read_csv(table, dtype=TEXT, keep_default_na=False)
        pixels = np.memmap(file, np.uint8, mode="c")  # writable view, file untouched
        return cls(index, pixels, facts["channels"], facts["fingerprint"])

    def __post_init__(self) -> None:
        self._geometry = self.index[["height", "width", "start"]].to_numpy()

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


def write_store(folder: Path, index: pd.DataFrame, arrays: Iterable[np.ndarray | None]) -> Store:
    """Write `arrays` (uint8, HxWxC or HxW, in the order of `index`) as a store; None drops its row.

    Adds the columns height, width, start (first pixel, counted over all images before) and
    fingerprints pixels and index together (sha256).
    """
    seal, sizes, channels, kept = hashlib.sha256(), [], 1, []
    with atomic(folder / "pixels.u8") as temporary, open(temporary, "wb") as target:
        for row, array in enumerate(arrays):
            if array is None:
                continue
            kept.append(row)
            sizes.append(array.shape[:2])
            channels = array.shape[2] if array.ndim == 3 else 1
            data = np.ascontiguousarray(array).tobytes()
            target.write(data)
            seal.update(data)
        # killed from here on, the folder holds no store, rather than new pixels under an old seal
        (folder / "store.json").unlink(missing_ok=True)
    index = index.iloc[kept].reset_index(drop=True)
    index[["height", "width"]] = np.array(sizes, int).reshape(-1, 2)
    ends = (index["height"] * index["width"]).cumsum()
    index["start"] = ends.shift(fill_value=0)
    text = index.to_csv(index=False, lineterminator="\n").encode()
    seal.update(text)
    with atomic(folder / "index.csv") as temporary:
        temporary.write_bytes(text)
    facts: dict[str, Any] = {"channels": channels, "fingerprint": seal.hexdigest()}
    facts["bytes"] = int(ends.iloc[-1]) * channels if len(ends) else 0
    write_json(folder / "store.json", facts | {"seal": key_of(**facts)})
    return Store.open(folder)


def sizes_of(files: list[Path]) -> list[int]:
    """Sizes in bytes, -1 for a file that is not to be had: a cheap sign that files are the same."""

    def size(file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError:
            return -1

    return [size(file) for file in files]


def finished(record: Path, request: str, folder: Path) -> Store | None:
    """The store in `folder` if it is whole and `record`, written last, names it and `request`."""
    try:
        facts, store = read_json(record), Store.open(folder)
    except StudyError:
        return None
    if facts.pop("seal", None) not in (None, key_of(**facts)):
        return None
    same = facts.get("request") == request and facts.get("store") == store.fingerprint
    return store if same else None
