"""A tiny catalogue with known answers: colours for objects and places, and models that see one."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

SIDE = 32
MODULE = __name__  # for package.module:callable


def border(images: torch.Tensor) -> torch.Tensor:
    """A model that looks at the background only: the colours of the rim."""
    rim = torch.cat([images[:, :, :3].flatten(2), images[:, :, -3:].flatten(2)], dim=2)
    return rim.mean(2) - 127.5


def middle(images: torch.Tensor) -> torch.Tensor:
    """A model that looks at the object only: the colours of the middle."""
    return images[:, :, 13:19, 13:19].mean((2, 3)) - 127.5


class Rim(nn.Module):
    """`border` as a network, on normalised images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean colours of the upper and the lower rim."""
        return torch.cat([images[:, :, :3], images[:, :, -3:]], dim=2).mean((2, 3))


class Middle(nn.Module):
    """`middle` as a network, on normalised images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean colours of the middle."""
        return images[:, :, 13:19, 13:19].mean((2, 3))


def colours(count: int, seed: int) -> np.ndarray:
    """Colours that lie far apart in direction from grey."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + seed
    ring = np.stack([np.cos(angle), np.sin(angle), rng.choice([-1.0, 1.0], count)], 1)
    return 127.5 + 90 * ring / np.linalg.norm(ring, axis=1, keepdims=True)


def catalogue(root: Path, classes: int = 6, images: int = 4, area: float = 0.2, seed: int = 0):
    """labels.csv, images/, masks/: a square object of the class's colour on the class's place.

    Colours of places are not those of objects of the same class. Returns the table.
    """
    rng, rows = np.random.default_rng(seed), []
    objects, places = colours(classes, 1), colours(classes, 2)
    for label in range(classes):
        for number in range(images):
            height, width = 44, 40 + 4 * (number % 3)
            pixels = np.zeros((height, width, 3)) + places[label] + rng.normal(0, 6, 3)
            mask, half = np.zeros((height, width), np.uint8), int(np.sqrt(area) * 20)
            y, x = height // 2, width // 2
            mask[y - half : y + half, x - half : x + half] = 255
            pixels[mask > 0] = objects[label] + rng.normal(0, 6, 3)
            for folder, data in (("images", pixels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
                file = root / folder / f"class {label}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(data).save(file)
            rows.append((f"images/class {label}/{number}.png", f"class {label}"))
    table = pd.DataFrame(rows, columns=["path", "label"])
    table.to_csv(root / "labels.csv", index=False)
    return table


def photographs(root: Path, count: int = 9) -> Path:
    """A folder of plain backgrounds of any colour."""
    rng = np.random.default_rng(5)
    for pool in ("train", "validation", "test"):
        for number in range(count):
            file = root / pool / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            plain = np.zeros((40, 50, 3)) + rng.integers(0, 256, 3)
            Image.fromarray(plain.astype(np.uint8)).save(file)
    return root


def predicted(images: np.ndarray, _source: str, _title: str = "") -> np.ndarray:
    """Perfect masks of shifted images: the object stands in the middle, 0.2 of the side wide."""
    masks = np.zeros(images.shape[:3], np.float32)
    masks[:, 10:22, 10:22] = 1
    return masks
