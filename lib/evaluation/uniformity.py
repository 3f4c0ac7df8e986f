"""How alike the backgrounds of a class are, and with it how much they give away of the class."""

import numpy as np
import pandas as pd
import torch

from lib.images.scenes import Scenes

SIDE = 64  # pixels of the crop whose colours are counted: thousands, for shares of 64 colours
LEVELS = 4  # a colour channel: 64 colours in all


@torch.inference_mode()
def background_colours(scenes: Scenes, rows: np.ndarray) -> np.ndarray:
    """Share of each of 64 colours among the background pixels of clean images (N, 64).

    A pixel counts by how little it belongs to the object, 1 - mask, in the test crop. Rows of NaN
    where the mask is not usable (nothing is known of the background) or covers all of the crop.
    """
    found = []
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        image, mask = scenes.split(scenes.images.centre(part, SIDE), part)
        level = (image.cpu() * LEVELS / 256).long().clamp(0, LEVELS - 1)
        code = (level * torch.tensor([LEVELS**2, LEVELS, 1])[:, None, None]).sum(1).flatten(1)
        counts = torch.zeros(len(part), LEVELS**3).scatter_add_(1, code, 1 - mask.cpu().flatten(1))
        total = counts.sum(1, keepdim=True)
        found.append(torch.where(total > 0, counts / total, torch.nan))
    return torch.cat(found).numpy()


def class_uniformity(colours: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """How alike the backgrounds of each class are, 0 to 1: label, uniformity, images.

    The mean, over all pairs of different images of the class, of the share of colours that they
    have in common (histogram intersection, Swain & Ballard 1991). 1: the same colours behind all;
    0: never a common colour. It looks at colour alone, not at texture or layout. NaN for a class
    with fewer than two known backgrounds.

    Args:
        colours: (N, C) shares as `background_colours` gives them; rows of NaN are left out.
        labels: (N,).
    """
    known, out = ~np.isnan(colours).any(1), []
    for label in np.unique(labels):
        mine = colours[known & (labels == label)]
        shared = [np.minimum(one, mine).sum(1) for one in mine]
        n = len(mine)
        # every image has all its colours in common with itself: n of the n x n pairs
        mean = (np.sum(shared) - n) / (n * (n - 1)) if n > 1 else np.nan
        out.append([label, mean, n])
    return pd.DataFrame(out, columns=["label", "uniformity", "images"])
