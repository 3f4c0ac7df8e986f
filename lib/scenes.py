"""Batched crop, flip and composite: what the network sees, made on the device.

Every picture comes from a uint8 store; a batch is one `grid_sample` over image and mask together,
so that the mask follows the image exactly. Pixel values stay on the scale 0 to 255.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lib import masks, paths
from lib.errors import StudyError
from lib.progress import say
from lib.store import Store

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


def composite(image: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Put the object onto another background: image * mask + background * (1 - mask).

    Args:
        image, background: (B, 3, H, W) on any one scale.
        mask: (B, 1, H, W) soft, in [0, 1], 1 on the object.
    """
    if image.shape != background.shape or mask.shape != (len(image), 1, *image.shape[2:]):
        raise StudyError(
            f"composite: image {tuple(image.shape)}, mask {tuple(mask.shape)} and background "
            f"{tuple(background.shape)} do not belong together."
        )
    return torch.lerp(background, image, mask)


class Scenes:
    """A study's images with masks, and its three pools of backgrounds.

    An image whose mask is not usable (nearly empty or full, lib.masks) is never composited: its
    mask counts as full, so that it keeps its own background instead of vanishing.
    """

    def __init__(self, study: str, mask_source: str, device: torch.device | str = "cpu"):
        home = paths.StudyPaths(study).prepared
        self.store = Store.open(home / "images")
        mask_store, areas = masks.load_masks(study, mask_source)
        self.usable = areas["usable"].to_numpy()
        self.images = Sampler([self.store, mask_store], device)
        self.backgrounds_store = Store.open(home / "backgrounds")
        self.backgrounds = Sampler([self.backgrounds_store], device)
        self.fingerprint = f"{self.store.fingerprint[:16]}-{mask_store.fingerprint[:16]}"
        self.fingerprint += f"-{self.backgrounds_store.fingerprint[:16]}"

    def split(self, pixels: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Image (B, 3, s, s) on 0 to 255 and mask (B, 1, s, s) in [0, 1] of a sampled batch."""
        keep = torch.as_tensor(self.usable[rows], device=pixels.device)[:, None, None, None]
        return pixels[:, :3], torch.where(keep, pixels[:, 3:] / 255, 1.0)

    def training(self, rows: np.ndarray, size: int, rng: np.random.Generator, p: float) -> Tensor:
        """Augmented training images; a share `p` of them on a background of the train pool.

        The draws do not depend on `p`: both arms see the same crops of the same images.
        """
        image, mask = self.split(self.images.random(rows, size, rng), rows)
        pool = self.backgrounds_store.rows("train")
        drawn, replaced = rng.choice(pool, len(rows)), rng.random(len(rows)) < p
        if not replaced.any():
            return image
        moved = composite(image, mask, self.backgrounds.random(drawn, size, rng))
        if replaced.all():
            return moved
        which = torch.as_tensor(replaced, device=image.device)[:, None, None, None]
        return torch.where(which, moved, image)
