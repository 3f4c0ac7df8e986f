"""Putting an object onto another background."""

import torch
from torch import Tensor

from lib.core.errors import StudyError


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
