"""What is left of a photograph without its object: filled, tiled or blurred.

Three ways to empty a place, because each leaves traces of its own: a fill leaves a smooth smear of
the object's shape, tiles leave seams but show only pixels that were never object.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d, pad

GROW = 7  # pixels by which a mask is widened first, so that the object's soft rim goes too
OUTSIDE = 0.1  # a widened mask below this is background
NARROW = 1 / 16  # a strip narrower than this share of the side is not worth tiling
BLUR = 10 / 224  # standard deviation as a share of the side (Fong & Vedaldi 2017)


def fill(image: Tensor, mask: Tensor) -> Tensor:
    """Paint the object out: known pixels spread inwards, coarse to fine (push-pull).

    Args:
        image: (B, 3, s, s).
        mask: (B, 1, s, s) in [0, 1], 1 on the object.
    """
    known = _background(mask)
    return _pull(image * known, known)


def tile(image: Tensor, mask: Tensor) -> Tensor:
    """Cover the picture with mirrored copies of its largest strip that the object does not touch.

    The strip (above, below, left or right of the object's bounding box) holds only pixels from
    outside the mask: nothing of the object, not even its shape, is left. Where the object leaves
    no strip of a sixteenth of the side, the picture is filled instead. Arguments as `fill`.

    After "Only-BG-T" of Xiao et al. 2021, which pastes objects onto such places.
    """
    known, side = _background(mask)[:, 0], image.shape[-1]
    made = fill(image, mask)
    for sample, picture in enumerate(image):
        top, bottom, left, right = _strip(known[sample])
        if min(bottom - top, right - left) >= NARROW * side:
            rows, columns = _mirrored(top, bottom, side), _mirrored(left, right, side)
            made[sample] = picture[:, rows][:, :, columns]
    return made


def blur(image: Tensor, mask: Tensor) -> Tensor:
    """The filled picture behind a Gaussian blur: layout and colour stay, texture goes.

    Filled first, so that the object's colours do not bleed into its surroundings. Standard
    deviation 10 pixels of 224, as the blur of Fong & Vedaldi 2017. Arguments as `fill`.
    """
    side = image.shape[-1]
    reach = min(int(3 * BLUR * side) + 1, side - 1)  # a mirrored edge is narrower than the side
    at = torch.arange(-reach, reach + 1, device=image.device)
    bell = torch.exp(-0.5 * (at / (BLUR * side)) ** 2)
    bell = (bell / bell.sum()).expand(3, 1, 1, -1)
    wide = pad(fill(image, mask), (reach,) * 4, mode="reflect")
    return conv2d(conv2d(wide, bell, groups=3), bell.transpose(2, 3), groups=3)


def _background(mask: Tensor) -> Tensor:
    """1 where no object is near (B, 1, s, s)."""
    wide = max_pool2d(mask, GROW, stride=1, padding=GROW // 2)
    return (wide < OUTSIDE).float()


def _pull(colour: Tensor, weight: Tensor) -> Tensor:
    """`colour` is premultiplied by `weight`; returns the picture without holes."""
    here = colour / weight.clamp(min=1e-6)
    if min(weight.shape[2:]) <= 1:
        return here
    coarse = _pull(
        avg_pool2d(colour, 2, ceil_mode=True, count_include_pad=False),
        avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False),
    )
    below = interpolate(coarse, size=weight.shape[2:], mode="bilinear", align_corners=False)
    return torch.lerp(below, here, weight.clamp(max=1))


def _strip(known: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the largest strip beside the object's bounding box."""
    side = known.shape[-1]
    inside = [torch.where(~known.bool().all(axis))[0].tolist() for axis in (1, 0)]
    if not inside[0]:
        return 0, side, 0, side
    (top, bottom), (left, right) = ((line[0], line[-1] + 1) for line in inside)
    strips = (0, top, 0, side), (bottom, side, 0, side), (0, side, 0, left), (0, side, right, side)
    return max(strips, key=lambda strip: (strip[1] - strip[0]) * (strip[3] - strip[2]))


def _mirrored(start: int, stop: int, side: int) -> list[int]:
    """`side` positions that run through start..stop-1 to and fro."""
    there = list(range(start, stop))
    return [(there + there[::-1])[at % (2 * len(there))] for at in range(side)]
