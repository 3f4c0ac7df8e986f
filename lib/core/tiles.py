"""Small pictures kept for pages: one JPEG sheet of tiles, and a table with a row a tile.

Galleries and maps need photographs and weights, which are not in git. Measuring writes them as
tiles without any lettering; telling lays them out, titles and frames them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.core.files import atomic, write_table

ACROSS = 12  # tiles in a row of the sheet
QUALITY = 88


def write_tiles(path: Path, pictures: list[np.ndarray], table: pd.DataFrame) -> None:
    """Write `<path>.jpg` and `<path>.csv`.

    Args:
        path: without suffix.
        pictures: uint8, (h, w, 3) or (h, w), in the order of `table`'s rows. Each lies in the top
            left corner of a square tile; where they differ in size, the table keeps their sizes.
        table: whatever says what each picture is.
    """
    if len(pictures) != len(table):
        raise ValueError(f"{len(pictures)} pictures for {len(table)} rows of {path}")
    sizes = np.array([picture.shape[:2] for picture in pictures])
    side, down = int(sizes.max()), -(-len(pictures) // ACROSS)
    sheet = np.zeros((down * side, min(ACROSS, len(pictures)) * side, 3), np.uint8)
    for at, picture in enumerate(pictures):
        colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        short = side - sizes[at]  # edges are repeated, so that JPEG blurs no black into them
        tile = np.pad(colour, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
        top, left = at // ACROSS * side, at % ACROSS * side
        sheet[top : top + side, left : left + side] = tile
    with atomic(path.with_suffix(".jpg")) as temporary:
        Image.fromarray(sheet).save(temporary, "JPEG", quality=QUALITY)
    if (sizes != side).any():
        table = table.assign(height=sizes[:, 0], width=sizes[:, 1])
    write_table(path.with_suffix(".csv"), table.assign(side=side))


def read_tiles(path: Path) -> tuple[list[np.ndarray], pd.DataFrame]:
    """The pictures (h, w, 3) and their table, as `write_tiles` was given them (after JPEG)."""
    file = path.with_suffix(".csv")
    blank = {name: [""] for name in pd.read_csv(file, nrows=0) if name != "caption"}  # a class NA
    table = pd.read_csv(file, dtype={"caption": str}, keep_default_na=False, na_values=blank)
    side = int(table["side"].iloc[0])
    with Image.open(path.with_suffix(".jpg")) as image:
        sheet = np.asarray(image.convert("RGB"))
    whole = table.reindex(columns=["height", "width"]).fillna(side).astype(int).to_numpy()
    places = [(at // ACROSS * side, at % ACROSS * side) for at in range(len(table))]
    pictures = [sheet[y : y + h, x : x + w] for (y, x), (h, w) in zip(places, whole, strict=True)]
    return pictures, table.drop(columns=["side", "height", "width"], errors="ignore")


def small(picture: np.ndarray, most: int) -> np.ndarray:
    """A picture (uint8, (h, w, 3) or (h, w)) with its long side at `most` pixels or fewer."""
    scale = most / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
