"""Is every picture what it should be? Each is opened once, looked at, and shrunk in one go."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from lib.core.errors import StudyError
from lib.core.progress import track
from lib.data.store import BROKEN, shrink, upright

AHEAD = 256  # pictures decoded at a time: memory stays small


@dataclass(frozen=True)
class Fault:
    """A way in which a picture can be odd; `stops`: the study cannot use it."""

    label: str
    found: Callable[[pd.DataFrame, int], pd.Series]
    what_happens: str
    stops: bool = False


def _mode(*modes: str) -> Callable[[pd.DataFrame, int], pd.Series]:
    return lambda table, _side: table["mode"].isin(modes)


def _copies(across: bool) -> Callable[[pd.DataFrame, int], pd.Series]:
    def found(table: pd.DataFrame, _side: int) -> pd.Series:
        splits = table.groupby("sha256")["split"].transform("nunique") > 1
        return splits if across else table["sha256"].duplicated(keep=False) & ~splits

    return found


FAULTS: dict[str, Fault] = {
    "broken": Fault(
        "cannot be decoded", lambda t, _: t["error"] != "", "stops the stage, or is left out", True
    ),
    "tiny": Fault(
        "short side under half of what is stored",
        lambda t, side: (t["error"] == "") & (t[["height", "width"]].min(axis=1) < side / 2),
        "enlarged",
    ),
    "grey": Fault("no colour", lambda t, _: t["grey"], "used as it is"),
    "cmyk": Fault("printing colours (CMYK)", _mode("CMYK"), "converted to RGB"),
    "deep": Fault("16 bits a pixel", lambda t, _: t["mode"].str.startswith("I"), "scaled to 8"),
    "alpha": Fault("transparent parts", _mode("RGBA", "LA", "PA"), "put on white"),
    "animated": Fault("several frames", lambda t, _: t["frames"] > 1, "the first is used"),
    "rotated": Fault("turned by its EXIF tag", lambda t, _: t["turned"], "set upright"),
    "copy": Fault("same bytes twice in a split", _copies(across=False), "used twice"),
    "leak": Fault("same bytes in two splits", _copies(across=True), "used twice: a leak"),
}


def look(file: Path, side: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """Facts of a picture and its pixels with the short side at `side` (None if broken)."""
    facts = {"mode": "", "height": 0, "width": 0, "frames": 0, "turned": False, "grey": False}
    if not file.exists():
        raise StudyError(f"{file} is listed in the data set's index but does not exist.")
    data = file.read_bytes()
    facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "error": ""}
    try:
        with Image.open(file) as image:
            facts |= {"mode": image.mode, "frames": getattr(image, "n_frames", 1)}
            facts["turned"] = image.getexif().get(0x0112, 1) != 1
            whole = upright(image)
    except BROKEN as error:
        return facts | {"error": str(error).replace(str(file), file.name) or "broken"}, None
    facts |= {"width": whole.width, "height": whole.height}
    pixels = shrink(whole, side)
    facts["grey"] = bool(np.ptp(pixels.astype(np.int16), axis=2).max() <= 2)
    return facts, pixels


def look_at_all(
    files: list[Path], side: int, title: str
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """`look` at every file, in parallel and in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(range(0, len(files), AHEAD), title, -(-len(files) // AHEAD)):
            yield from pool.map(lambda file: look(file, side), files[start : start + AHEAD])


def find_faults(table: pd.DataFrame, side: int) -> pd.DataFrame:
    """One row a picture and fault: path, split, class_name, fault, detail.

    `table` has the columns of `look` beside path, split and class_name.
    """
    parts = []
    for name, fault in FAULTS.items():
        part = table[fault.found(table, side).astype(bool)]
        detail = part["error"].where(part["error"] != "", fault.label)
        parts.append(part[["path", "split", "class_name"]].assign(fault=name, detail=detail))
    return pd.concat(parts, ignore_index=True)


def count_faults(faults: pd.DataFrame) -> pd.DataFrame:
    """One row a fault of FAULTS: what it is, how many pictures, what happens to them."""
    counts = faults["fault"].value_counts()
    rows = [(f.label, int(counts.get(name, 0)), f.what_happens) for name, f in FAULTS.items()]
    return pd.DataFrame(rows, columns=["fault", "pictures", "what happens to them"])


def refuse_broken(faults: pd.DataFrame, folder: Path) -> None:
    """Stop, naming the pictures that cannot be used."""
    stopping = [name for name, fault in FAULTS.items() if fault.stops]
    bad = faults[faults["fault"].isin(stopping)]
    if len(bad):
        names = "; ".join(f"{row.path} ({row.detail})" for row in bad.head(10).itertuples())
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise StudyError(
            f"{len(bad)} picture(s) in {folder} cannot be decoded: {names}{more}. Replace them, "
            "or leave them out with allow_broken: true in the study's data section."
        )
