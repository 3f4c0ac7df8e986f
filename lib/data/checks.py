"""Is every image what it should be? Each is opened once, looked at, and shrunk in one go."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core.errors import StudyError
from lib.data.decode import depth, fault, frames, opened, orientation, shrink, upright

DIM = 64  # of 255: the most that is left where the upper two of 16 bits are empty


@dataclass(frozen=True)
class Fault:
    """A way in which an image can be odd: `found(table)` says which rows of `look` have it."""

    label: str
    found: Callable[[pd.DataFrame], pd.Series]
    what_happens: str


def _merged(table: pd.DataFrame) -> pd.Series:
    return table["merged"] if "merged" in table else pd.Series(False, table.index)


def _leaks(table: pd.DataFrame) -> pd.Series:
    return (table.groupby("sha256")["split"].transform("nunique") > 1) & (table["sha256"] != "")


FAULTS: dict[str, Fault] = {
    "broken": Fault(
        "cannot be decoded", lambda t: t["error"] != "", "stops the stage, or is left out"
    ),
    "tiny": Fault("short side under half of what is stored", lambda t: t["tiny"], "enlarged"),
    "grey": Fault("no colour", lambda t: t["grey"], "used as it is"),
    "cmyk": Fault("printing colours (CMYK)", lambda t: t["mode"] == "CMYK", "converted to RGB"),
    "deep": Fault("more than 8 bits", lambda t: t["bits"] > 8, "scaled to 8"),
    "dim": Fault(
        "more than 8 bits, of which the upper two or more are empty",
        lambda t: t["dim"],
        "used as dark as it says (10 to 14 bits in a file of 16? Save it with 8)",
    ),
    "alpha": Fault(
        "transparent parts", lambda t: t["mode"].isin(["RGBA", "LA", "PA"]), "put on white"
    ),
    "animated": Fault("several frames", lambda t: t["frames"] > 1, "the first is used"),
    "rotated": Fault("turned by its EXIF tag", lambda t: t["turned"], "set upright"),
    "copy": Fault(
        "same bytes twice in a split",
        lambda t: t["sha256"].duplicated(keep=False) & ~_leaks(t) & (t["sha256"] != ""),
        "used twice",
    ),
    "merged": Fault("in a split folder inside its class", _merged, "its split is not used"),
    "leak": Fault("same bytes in two splits", _leaks, "used twice: a leak"),
}


def look(file: Path, side: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """Facts of an image and its pixels with the short side at `side` (None if broken).

    A file that cannot be read has the checksum "".
    """
    facts = {"mode": "", "height": 0, "width": 0, "frames": 0, "bytes": 0, "error": ""}
    facts |= {"turned": False, "grey": False, "tiny": False, "bits": 0, "dim": False, "sha256": ""}
    pixels = None
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise StudyError(f"{file} is listed in the data set's index but does not exist.") from error
    except OSError as error:
        return facts | {"error": fault(error, file)}, None
    facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        with opened(file) as image:
            facts |= {"mode": image.mode, "turned": orientation(image) != 1, "bits": depth(image)}
            whole = upright(image)
            facts["frames"] = frames(image)
        pixels = shrink(whole, side)
    except Exception as error:  # a decoder raises whatever it likes
        facts |= {"error": fault(error, file), "turned": False, "frames": 0, "mode": "", "bits": 0}
    else:
        facts |= {"width": whole.width, "height": whole.height, "tiny": min(whole.size) < side / 2}
        high = np.max(whole.getextrema())
        facts["dim"] = facts["bits"] > 8 and facts["mode"] != "F" and bool(high <= DIM)
        facts["grey"] = bool(np.ptp(pixels.astype(np.int16), axis=2).max() <= 2)
    return facts, pixels


def find_faults(table: pd.DataFrame) -> pd.DataFrame:
    """One row an image and fault: path, split, class_name, fault, detail.

    `table` has the columns of `look` beside path, split and class_name.
    """
    parts = []
    for name, kind in FAULTS.items():
        part = table[kind.found(table).astype(bool)]
        detail = part["error"].where(part["error"] != "", kind.label)
        parts.append(part[["path", "split", "class_name"]].assign(fault=name, detail=detail))
    return pd.concat(parts, ignore_index=True)


def count_faults(faults: pd.DataFrame) -> pd.DataFrame:
    """One row a fault of FAULTS: what it is, how many images, what happens to them."""
    counts = faults["fault"].value_counts()
    rows = [(f.label, int(counts.get(name, 0)), f.what_happens) for name, f in FAULTS.items()]
    return pd.DataFrame(rows, columns=["fault", "images", "what happens to them"])


def refuse_broken(faults: pd.DataFrame, folder: Path) -> None:
    """Stop, naming the images that cannot be used."""
    bad = faults[faults["fault"] == "broken"]
    if len(bad):
        names = "; ".join(f"{row.path} ({row.detail})" for row in bad.head(10).itertuples())
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise StudyError(
            f"{len(bad)} image(s) in {folder} cannot be decoded: {names}{more}. Replace them, "
            "or leave them out with allow_broken: true in the study's data section."
        )
