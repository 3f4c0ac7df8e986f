"""A study's images with their masks, and its pools of background photographs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.core import paths
from lib.data.store import Store
from lib.images.crops import Sampler
from lib.masks import sources


class Scenes:
    """A study's images with masks, and its three pools of backgrounds.

    An image whose mask is not usable (nearly empty or full) is never composited: its
    mask counts as full, so that it keeps its own background instead of vanishing.
    """

    def __init__(self, study: str, mask_source: str, device: torch.device | str = "cpu"):
        home = paths.StudyPaths(study).prepared
        self.store = Store.open(home / "images")
        mask_store, areas = sources.load_masks(study, mask_source)
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

    def training(self, rows: np.ndarray, size: int, rng: np.random.Generator) -> "TrainingBatch":
        """Random training crops of images and masks, and the draws that an arm may use.

        The same generator gives every arm the same crops of the same images.
        """
        image, mask = self.split(self.images.random(rows, size, rng), rows)
        drawn = rng.choice(self.backgrounds_store.rows("train"), len(rows))
        return TrainingBatch(self, image, mask, rng.random(len(rows)), drawn, rng)


@dataclass(frozen=True)
class TrainingBatch:
    """A batch on its way into the network: what the arms (lib.training.arms) make images of.

    `images` (B, 3, s, s) on 0 to 255, `masks` (B, 1, s, s) in [0, 1] (1 everywhere where a mask is
    not usable), `chance` (B,) uniform in [0, 1), `drawn` (B,) rows of the backgrounds.
    """

    scenes: Scenes
    images: Tensor
    masks: Tensor
    chance: np.ndarray
    drawn: np.ndarray
    rng: np.random.Generator

    def photographs(self) -> Tensor:
        """The drawn photographs of the train pool, each in a random crop (B, 3, s, s)."""
        return self.scenes.backgrounds.random(self.drawn, self.images.shape[-1], self.rng)
