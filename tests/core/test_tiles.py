"""Sheets of small pictures: what is written comes back, whatever the sizes."""

import numpy as np
import pandas as pd

from lib.core import tiles


def test_pictures_of_different_sizes_come_back_at_their_size(tmp_path) -> None:
    sizes = [(16, 24), (24, 16), (24, 24), (8, 8)] * 4  # more than a row of the sheet
    pictures = [np.full((*size, 3), 15 * at, np.uint8) for at, size in enumerate(sizes)]
    pictures[2] = pictures[2][..., 0]  # grey
    names = pd.DataFrame({"caption": ["NA", "", "007", "x"] * 4, "at": range(16)})
    tiles.write_tiles(tmp_path / "sheet", pictures, names)
    back, table = tiles.read_tiles(tmp_path / "sheet")
    pd.testing.assert_frame_equal(table, names, check_dtype=False)
    for at, (mine, given, size) in enumerate(zip(back, pictures, sizes, strict=True)):
        assert mine.shape == (*size, 3), at
        assert np.abs(mine.astype(int).mean() - given.mean()) < 4


def test_equal_pictures_need_no_sizes(tmp_path) -> None:
    given = pd.DataFrame({"rule": ["a", "b"]})
    tiles.write_tiles(tmp_path / "s", [np.zeros((8, 8), np.uint8)] * 2, given)
    assert "height" not in (tmp_path / "s.csv").read_text()
    assert tiles.read_tiles(tmp_path / "s")[1].equals(given)


def test_small_keeps_the_shape_and_enlarges_nothing() -> None:
    picture = np.zeros((50, 100, 3), np.uint8)
    assert tiles.small(picture, 40).shape == (20, 40, 3)
    assert tiles.small(picture, 200) is picture
