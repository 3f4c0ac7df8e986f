"""Images that are nearly the same: the same photograph with other bytes leaks between splits."""

import numpy as np
import pandas as pd
from PIL import Image

from lib.data.store import Store

BANDS = 4  # hashes of 64 bits in 4 bands: two that differ in at most 3 bits share a band
BITS = 3
THUMB = 16
ALIKE = 10.0  # mean difference of two thumbnails, of 255 grey levels


def _small(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def difference_hash(image: np.ndarray) -> np.uint64:
    """64 bits, one a place of an 8x8 grid: is it darker than its right neighbour?

    Args:
        image: uint8 (H, W, 3).
    """
    grey = _small(image, 9, 8).mean(axis=2)
    bits = (grey[:, :-1] < grey[:, 1:]).flatten()
    return np.packbits(bits).view(np.uint64)[0]


def _candidates(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows (a < b, sorted) whose hashes differ in at most BITS bits."""
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        for rows in pd.Series(range(len(part))).groupby(part).indices.values():
            for place, a in enumerate(rows[:-1]):
                rest = rows[place + 1 :]
                near = np.bitwise_count(hashes[rest] ^ hashes[a]) <= BITS
                pairs.update((int(a), int(b)) for b in rest[near])
    return sorted(pairs)


def near_copies(store: Store) -> pd.DataFrame:
    """Pairs of images that look alike, most alike first.

    Two images are near copies if their difference hashes differ in at most 3 of 64 bits and their
    16x16 thumbnails by less than 10 grey levels on average. Mirrored copies and small crops of an
    image are not found.

    Returns:
        Columns row_a, row_b, difference (mean of thumbnails, 0 to 255), same_class, across
        (True: the two lie in different splits).
    """
    hashes = np.array([difference_hash(store.image(row)) for row in range(len(store))], np.uint64)
    index, rows = store.index, []
    for a, b in _candidates(hashes):
        one, other = (_small(store.image(row), THUMB, THUMB).astype(float) for row in (a, b))
        rows.append((a, b, float(np.abs(one - other).mean())))
    table = pd.DataFrame(rows, columns=["row_a", "row_b", "difference"])
    table = table[table["difference"] < ALIKE]
    for name, column in (("same_class", "label"), ("across", "split")):
        values = index[column].to_numpy()
        equal = values[table["row_a"]] == values[table["row_b"]]
        table[name] = equal if name == "same_class" else ~equal
    return table.sort_values(["difference", "row_a"], ignore_index=True)
