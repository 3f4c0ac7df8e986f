"""What a searcher can do without training: one table of remedies at inference.

A remedy changes what a trained model is shown (or what it pools), by a mask that is made from the
image as it arrives, which may have another background than the catalogue's. Adding one is adding an
entry to REMEDIES.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from lib.core import hardware
from lib.core.hardware import fixed_threads
from lib.core.progress import track
from lib.masks import rembg_models, sources
from lib.models.embedder import Embedder

GREY = 127
MARGIN = 0.1  # of the box's longer side, on every side of a box crop
INSIDE = 0.5  # from here on a pixel of a soft mask is object, where a box is wanted
CHUNK = 16  # images of a job of a thread that makes masks

Images = np.ndarray  # uint8 (N, H, W, 3)
Masks = np.ndarray  # float32 (N, H, W) in [0, 1], 1 on the object


@dataclass(frozen=True)
class Remedy:
    """A way to make a model look at the object at inference.

    `show(images, masks)` gives the images (uint8, same shape) that the model sees. `embed(model,
    pixels, masks)`, for a remedy that changes the model instead, gives vectors (N, D) of length 1
    of normalised images (N, 3, H, W) under masks (N, 1, H, W); it needs an embedder of this study.
    """

    label: str
    doing: str  # in words: "cropping every image to its object"
    source: str
    show: Callable[[Images, Masks], Images] | None = None
    embed: Callable[[Embedder, Tensor, Tensor], Tensor] | None = None


def cut_out(images: Images, masks: Masks) -> Images:
    """The object on plain grey."""
    soft = masks[..., None]
    return np.round(images * soft + GREY * (1 - soft)).astype(np.uint8)


def box_crop(images: Images, masks: Masks, margin: float = MARGIN) -> Images:
    """The square around the object's box, with a margin, resized to the whole image.

    A square, so that the object keeps its shape; where it would leave the image it is moved back
    in, and it is never larger than the image's short side. An image in whose mask no pixel is
    object stays whole.
    """
    made = images.copy()
    for sample, mask in enumerate(masks):
        if box := square(mask, margin):
            top, left, side = box
            part = Image.fromarray(images[sample, top : top + side, left : left + side])
            made[sample] = part.resize(images.shape[2:0:-1], Image.Resampling.BILINEAR)
    return made


def square(mask: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int] | None:
    """Top, left and side of the square that `box_crop` takes; None without an object.

    Args:
        mask: (H, W) in [0, 1].
    """
    rows, columns = (np.flatnonzero((mask >= INSIDE).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    (top, bottom), (left, right) = ((line[0], line[-1] + 1) for line in (rows, columns))
    side = round(max(bottom - top, right - left) * (1 + 2 * margin))
    side = max(2, min(side, *mask.shape))

    def start(first: int, last: int, extent: int) -> int:
        return int(np.clip((first + last - side) // 2, 0, extent - side))

    return start(top, bottom, mask.shape[0]), start(left, right, mask.shape[1]), side


def late_mask(model: Embedder, pixels: Tensor, masks: Tensor) -> Tensor:
    """The trunk's last feature map, averaged under the mask instead of over the whole image.

    A mask without weight on the coarse map counts as full.
    """
    features = model.trunk.features(pixels).float()
    weight = interpolate(masks.float(), features.shape[-2:], mode="area")
    weight = torch.where(weight.sum((2, 3), keepdim=True) > 1e-3, weight, 1.0)
    pooled = (features * weight).sum((2, 3)) / weight.sum((2, 3))
    return normalize(model.head(pooled), dim=1)


REMEDIES: dict[str, Remedy] = {
    "cut_out": Remedy(
        "object on grey",
        "putting every object on plain grey",
        "early masking, Aniraj et al. 2023 (arXiv 2308.12127)",
        show=cut_out,
    ),
    "box_crop": Remedy(
        "crop to the object",
        "cropping every image to its object",
        "usual in practice; margin of 10 %",
        show=box_crop,
    ),
    "late_mask": Remedy(
        "pooled under the mask",
        "averaging the last feature map over the object only",
        "late masking, Aniraj et al. 2023 (arXiv 2308.12127)",
        embed=late_mask,
    ),
}


@torch.inference_mode()
@fixed_threads()
def late_masked(model: Embedder, remedy: Remedy, images: Images, masks: Masks) -> Tensor:
    """Vectors (N, D) on the CPU of images under a remedy that changes the model."""
    where, parts = next(model.parameters()).device, []
    for start in range(0, len(images), 32):
        part = slice(start, start + 32)
        pixels = torch.from_numpy(images[part]).permute(0, 3, 1, 2).float().to(where)
        soft = torch.from_numpy(masks[part])[:, None].to(where)
        parts.append(remedy.embed(model, model.normalise(pixels), soft).float().cpu())
    return torch.cat(parts)


def usable(masks: Masks) -> np.ndarray:
    """Which masks show an object (N,), by the rule of lib.masks.sources."""
    areas = masks.reshape(len(masks), -1).mean(1)
    return (areas >= sources.EMPTY) & (areas <= sources.FULL)


def predicted(images: Images, source: str, title: str = "masks of shifted images") -> Masks:
    """Masks of images as a searcher would have them: made by a rembg model from the pixels alone.

    A mask that shows no object (`usable`) becomes full, so that the image stays as it is.

    Args:
        source: name of a rembg session, such as u2netp or u2netp@160.
    """
    rembg_models.fetch(source)
    mine = threading.local()

    def masks_of(part: Images) -> np.ndarray:
        if not hasattr(mine, "session"):  # a session serves one thread at a time
            mine.session = rembg_models.session.__wrapped__(source)
        return np.stack(
            [np.asarray(mine.session.predict(Image.fromarray(image))[0]) for image in part]
        )

    parts = [images[at : at + CHUNK] for at in range(0, len(images), CHUNK)]
    with ThreadPoolExecutor(hardware.workers()) as pool:  # faster than processes, which must start
        found = list(track(pool.map(masks_of, parts), f"{title} (by {CHUNK})", len(parts)))
    masks = np.concatenate(found).astype(np.float32) / 255
    masks[~usable(masks)] = 1.0
    return masks
