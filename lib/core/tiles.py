"""Small pictures kept for pages: one JPEG sheet of equal tiles, and a table with a row a tile.

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
        pictures: uint8, all (s, s, 3) or (s, s), in the order of `table`'s rows.
        table: whatever says what each picture is.
    """
    if len(pictures) != len(table):
        raise ValueError(f"{len(pictures)} pictures for {len(table)} rows of {path}")
    side, down = pictures[0].shape[0], -(-len(pictures) // ACROSS)
    sheet = np.zeros((down * side, min(ACROSS, len(pictures)) * side, 3), np.uint8)
    for at, picture in enumerate(pictures):
        top, left = at // ACROSS * side, at % ACROSS * side
        colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        sheet[top : top + side, left : left + side] = colour
    with atomic(path.with_suffix(".jpg")) as temporary:
        Image.fromarray(sheet).save(temporary, "JPEG", quality=QUALITY)
    write_table(path.with_suffix(".csv"), table.assign(side=side))


def read_tiles(path: Path) -> tuple[list[np.ndarray], pd.DataFrame]:
    """The pictures (s, s, 3) and their table, as `write_tiles` was given them (after JPEG)."""
    table = pd.read_csv(path.with_suffix(".csv"))
    side = int(table["side"].iloc[0])
    with Image.open(path.with_suffix(".jpg")) as image:
        sheet = np.asarray(image.convert("RGB"))
    places = [(at // ACROSS * side, at % ACROSS * side) for at in range(len(table))]
    pictures = [sheet[y : y + side, x : x + side] for y, x in places]
    return pictures, table.drop(columns="side")
