"""Batched crops of a store: random training crops and the test crop, image and mask together."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lib.core.progress import say
from lib.data.store import Store

TEST_CROP = 227 / 256  # share of the short side that the paper's centre crop keeps
SHARE = 0.5  # of a GPU's free memory that pixels may take: several runs can share one GPU
CACHED = 2  # images that the CPU resamples at once: more leave its cache and take twice as long


@dataclass(frozen=True)
class Boxes:
    """Crop windows in store pixels, one a sample: integer arrays (B,) and a flip flag (B,)."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray

    def at(self, rows: np.ndarray) -> "Boxes":
        """The windows of some of the samples."""
        return Boxes(*(getattr(self, field.name)[rows] for field in fields(self)))


def centre_boxes(heights: np.ndarray, widths: np.ndarray) -> Boxes:
    """The paper's test crop: the central square of 227/256 of the short side."""
    size = np.round(np.minimum(heights, widths) * TEST_CROP).astype(int)
    top, left = (heights - size) // 2, (widths - size) // 2
    return Boxes(top, left, size, size, np.zeros(len(size), bool))


def random_boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.16, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Boxes:
    """Random resized crops and flips for a batch, by torchvision's rule (ten tries, then centre).

    Args:
        heights, widths: (B,) sizes of the pictures in pixels.
        rng: source of all randomness; equal generators give equal boxes.
        area: least and greatest share of the picture that a crop covers.
        ratio: least and greatest width / height of a crop.
    """
    shape = (len(heights), 10)
    pixels = (heights * widths)[:, None] * rng.uniform(*area, shape)
    aspect = np.exp(rng.uniform(*np.log(ratio), shape))
    width = np.round(np.sqrt(pixels * aspect)).astype(int)
    height = np.round(np.sqrt(pixels / aspect)).astype(int)
    place, flip = rng.random((2, len(heights))), rng.random(len(heights)) < 0.5
    fits = (width > 0) & (height > 0) & (width <= widths[:, None]) & (height <= heights[:, None])
    first, rows = fits.argmax(1), np.arange(len(heights))
    width, height = width[rows, first], height[rows, first]
    none = ~fits.any(1)
    width[none] = np.minimum(widths, np.round(heights * ratio[1]))[none]
    height[none] = np.minimum(heights, np.round(widths / ratio[0]))[none]
    place[:, none] = 0.5
    top = np.floor(place[0] * (heights - height + 1)).astype(int)
    left = np.floor(place[1] * (widths - width + 1)).astype(int)
    return Boxes(top, left, height, width, flip)


def _grid(boxes: Boxes, size: int, canvas: tuple[int, int], device: torch.device) -> Tensor:
    """Where in the canvas each output pixel lies, (B, size, size, 2) in [-1, 1]."""

    def axis(length: np.ndarray, extent: int, flip: np.ndarray) -> Tensor:
        step = torch.arange(size, device=device, dtype=torch.float32) + 0.5
        long = torch.as_tensor(length, device=device, dtype=torch.float32)[:, None]
        turned = torch.as_tensor(flip, device=device)[:, None]
        step = torch.where(turned, size - step, step)  # a flip reads the same window backwards
        at = (step * long / size - 0.5).clamp(min=0).minimum(long - 1)
        return (2 * at + 1) / extent - 1

    none = np.zeros(len(boxes.top), bool)
    y = axis(boxes.height, canvas[0], none)[:, :, None].expand(-1, -1, size)
    x = axis(boxes.width, canvas[1], boxes.flip)[:, None, :].expand(-1, size, -1)
    return torch.stack([x, y], dim=-1)


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a GPU; without limit on the CPU, where a store is only mapped."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def home_of(needed: int, device: torch.device) -> torch.device:
    """Where stores of `needed` bytes lie: on the device if they take at most SHARE of its memory.

    Otherwise they stay mapped from the disk, and the windows of each batch travel.
    """
    if needed <= SHARE * free_memory(device):
        return device
    say(f"{needed / 2**30:.1f} GiB of pixels do not fit on {device}: they stay on the disk")
    return torch.device("cpu")


class Sampler:
    """Reads windows of one or two stores of the same geometry (images, and their masks)."""

    def __init__(self, stores: list[Store], device: torch.device | str = "cpu"):
        self.stores, self.device = stores, torch.device(device)
        self.home = home_of(sum(store.pixels.nbytes for store in stores), self.device)
        self.flat = [torch.from_numpy(np.asarray(store.pixels)).to(self.home) for store in stores]
        table = stores[0].index
        self.heights, self.widths = table["height"].to_numpy(), table["width"].to_numpy()
        self.starts = table["start"].to_numpy()

    def _copied(self, rows: np.ndarray, boxes: Boxes) -> Tensor:
        """Canvas (B, H, W, C) with each window in its upper left corner; one copy a window."""
        channels = [store.channels for store in self.stores]
        extent = (len(rows), int(boxes.height.max()), int(boxes.width.max()), sum(channels))
        canvas = torch.zeros(extent, dtype=torch.uint8, device=self.home)
        for sample, row in enumerate(rows):
            high, wide, first = self.heights[row], self.widths[row], 0
            top, left = int(boxes.top[sample]), int(boxes.left[sample])
            bottom, right = top + int(boxes.height[sample]), left + int(boxes.width[sample])
            for flat, depth in zip(self.flat, channels, strict=True):
                start = self.starts[row] * depth
                picture = flat[start : start + high * wide * depth].view(high, wide, depth)
                target = canvas[sample, : bottom - top, : right - left, first : first + depth]
                target.copy_(picture[top:bottom, left:right])
                first += depth
        return canvas

    def _gathered(self, rows: np.ndarray, boxes: Boxes) -> Tensor:
        """The same canvas by one gather a store: a GPU waits for launches, not for bytes."""

        def column(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=self.home)[:, None, None]

        y = torch.arange(int(boxes.height.max()), device=self.home)[:, None]
        x = torch.arange(int(boxes.width.max()), device=self.home)
        inside = (y < column(boxes.height)) & (x < column(boxes.width))
        at = (column(boxes.top) + y) * column(self.widths[rows]) + column(boxes.left) + x
        at = torch.where(inside, at + column(self.starts[rows]), 0)
        found = [
            flat.view(-1, store.channels)[at]
            for flat, store in zip(self.flat, self.stores, strict=True)
        ]
        return torch.cat(found, -1) * inside[..., None]

    def sample(self, rows: np.ndarray, boxes: Boxes, size: int) -> Tensor:
        """Resized crops, float (B, C, size, size) on the scale 0 to 255; C over all stores."""
        read = self._copied if self.home.type == "cpu" else self._gathered
        canvas = read(rows, boxes).to(self.device).permute(0, 3, 1, 2)
        grid = _grid(boxes, size, tuple(canvas.shape[2:]), self.device)
        made = torch.empty((len(rows), canvas.shape[1], size, size), device=self.device)
        step = CACHED if self.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            pixels = canvas[part].to(torch.float32, memory_format=torch.contiguous_format)
            made[part] = grid_sample(pixels, grid[part], mode="bilinear", align_corners=False)
        return made

    def centre(self, rows: np.ndarray, size: int) -> Tensor:
        """The test crop of each row."""
        return self.sample(rows, centre_boxes(self.heights[rows], self.widths[rows]), size)

    def random(self, rows: np.ndarray, size: int, rng: np.random.Generator) -> Tensor:
        """A random training crop of each row."""
        return self.sample(rows, random_boxes(self.heights[rows], self.widths[rows], rng), size)
