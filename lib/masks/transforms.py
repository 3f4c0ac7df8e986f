"""Masks made worse on purpose: does a conclusion depend on how well the masks fit?"""

from collections.abc import Callable

import numpy as np

REACH = 0.03  # of the short side: about how far U2-Net's outlines are off on birds


def _disc(mask: np.ndarray) -> np.ndarray:
    radius = max(1, round(REACH * min(mask.shape)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def eroded(mask: np.ndarray) -> np.ndarray:
    """The object drawn in by 3 % of the short side; uint8 (H, W) in, uint8 out."""
    from scipy import ndimage

    return ndimage.grey_erosion(mask, footprint=_disc(mask), mode="nearest")


def dilated(mask: np.ndarray) -> np.ndarray:
    """The object widened by 3 % of the short side; uint8 (H, W) in, uint8 out."""
    from scipy import ndimage

    return ndimage.grey_dilation(mask, footprint=_disc(mask), mode="nearest")


def binarised(mask: np.ndarray) -> np.ndarray:
    """Hard edges: 255 from 128 on, else 0; uint8 (H, W) in, uint8 out."""
    return np.where(mask >= 128, np.uint8(255), np.uint8(0))


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "eroded": eroded,
    "dilated": dilated,
    "binarised": binarised,
}
