"""Controls: maps whose score is known beforehand, models that should not know where to look.

A score or a method is believable if it gives the uniform map 0, the true mask 1, and if it changes
when the model's weights are randomised. Deletion and insertion ask the model itself.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torchvision.transforms.functional import gaussian_blur


def uniform(images: Tensor, masks: Tensor) -> Tensor:
    """The same everywhere."""
    return torch.ones_like(masks)


def centred_gaussian(images: Tensor, masks: Tensor) -> Tensor:
    """A bump in the middle, std a quarter of each side: photographers centre their objects."""
    bump = torch.outer(*(_bell(side) for side in masks.shape[-2:]))
    return bump.to(masks).expand_as(masks).clone()


def sobel(images: Tensor, masks: Tensor) -> Tensor:
    """Strength of the edges of the mean over colours: what needs no model at all."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([kernel, kernel.T]).unsqueeze(1).to(images)
    grey = pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return conv2d(grey, kernels).norm(dim=1)


def true_mask(images: Tensor, masks: Tensor) -> Tensor:
    """The mask itself: the best that an image allows."""
    return masks.clone()


@dataclass(frozen=True)
class Control:
    """Raw maps (B, H, W) of images (B, 3, H, W) with masks (B, H, W) in [0, 1], of no model."""

    label: str
    function: Callable[[Tensor, Tensor], Tensor]


CONTROLS: dict[str, Control] = {
    "uniform": Control("uniform map", uniform),
    "centred_gaussian": Control("centred Gaussian", centred_gaussian),
    "sobel": Control("Sobel edges", sobel),
    "true_mask": Control("true mask", true_mask),
}


def randomised(embed: nn.Module, seed: int, images: Tensor | None = None) -> nn.Module:
    """A copy of `embed` with every layer drawn anew from `seed`; see `cascade`."""
    *_, (_, model) = cascade(embed, seed, steps=1, images=images)
    return model


def cascade(
    embed: nn.Module, seed: int, steps: int = 6, images: Tensor | None = None
) -> Iterator[tuple[float, nn.Module]]:
    """Yield (share of layers randomised, model) from (0, as trained) to (1, all random).

    Layers go from the top (the head, registered last) downwards; a layer drawn once keeps its
    weights in all later steps. Weights: normal with std sqrt(2 / fan in); scales 1, biases 0.
    With `images` the BatchNorm statistics of the drawn layers are measured on them: without, a
    deep random network maps all images to almost one embedding and its gradient is rounding.
    Source: Adebayo et al. 2018, Sanity Checks for Saliency Maps.
    """
    layers = [
        name
        for name, module in embed.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ][::-1]
    if steps < 1 or not layers:
        raise ValueError(f"steps is {steps}, layers with weights {len(layers)}; both must be >= 1")
    original = copy.deepcopy(embed).eval()
    for step in range(min(steps, len(layers)) + 1):
        count = round(step / min(steps, len(layers)) * len(layers))
        model = copy.deepcopy(original)
        drawn = layers[:count]
        for place, name in enumerate(drawn):
            _draw(model.get_submodule(name), torch.Generator().manual_seed(seed * 100_003 + place))
        if images is not None and drawn:
            _measure_statistics(model, drawn, images)
            _insist_on_change(original, model, images)
        yield count / len(layers), model


class Curves(NamedTuple):
    """Similarity to the original embedding while pixels go (deletion) or come (insertion)."""

    deletion: Tensor  # (B, steps + 1), starts at 1; falls early for a faithful map
    insertion: Tensor  # (B, steps + 1), ends at 1; rises early for a faithful map
    deletion_area: Tensor  # (B,) lower is better
    insertion_area: Tensor  # (B,) higher is better


@torch.no_grad()
def deletion_insertion(
    embed: nn.Module,
    images: Tensor,
    orders: Mapping[str, Tensor],
    steps: int = 10,
    batch: int = 50,
) -> dict[str, Curves]:
    """Blur the most attended pixels first, or bring them back first into a blurred image.

    `images` (B, 3, H, W) normalised, `orders` raw maps (B, H, W) by name; ties go to the lower
    pixel index. The areas lie under the curves (trapezoids, width 1). The blur (std a tenth of the
    shorter side) takes the shapes and keeps the mean colour. `embed` should be in evaluation mode.
    Source: Petsiuk et al. 2018 (RISE), with embedding similarity in place of a class probability.
    """

    def alike(changed: Tensor) -> Tensor:
        return (_embed(embed, changed, batch) * original).sum(dim=1)

    deviation = min(images.shape[-2:]) / 10
    reach = min(int(3 * deviation), min(images.shape[-2:]) - 1)
    blurred = gaussian_blur(images, 2 * reach + 1, deviation)
    original = _embed(embed, images, batch)
    whole, gone = (original * original).sum(dim=1), alike(blurred)
    shares, found = torch.linspace(0, 1, steps + 1, device=images.device), {}
    for name, maps in orders.items():
        if maps.shape != (len(images), *images.shape[-2:]):
            raise ValueError(f"images {tuple(images.shape)} and maps {tuple(maps.shape)} differ")
        ranks = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        ranks = ranks.view(len(maps), 1, *maps.shape[1:])
        tops = [ranks < share * maps[0].numel() for share in shares[1:-1]]
        fall = [whole, *(alike(torch.where(top, blurred, images)) for top in tops), gone]
        rise = [gone, *(alike(torch.where(top, images, blurred)) for top in tops), whole]
        curves = [torch.stack(curve, dim=1) for curve in (fall, rise)]
        found[name] = Curves(*curves, *(torch.trapezoid(c, shares, dim=1) for c in curves))
    return found


def _embed(embed: nn.Module, images: Tensor, batch: int) -> Tensor:
    return torch.cat([embed(part).float() for part in images.split(batch)])


def _bell(size: int) -> Tensor:
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-0.5 * (place / (size / 4)) ** 2)


@torch.no_grad()
def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    for name, value in layer.named_parameters(recurse=False):
        if value.ndim > 1:
            deviation = (2 / value[0].numel()) ** 0.5
            value.copy_(torch.randn(value.shape, generator=generator) * deviation)
        else:
            value.fill_(0.0 if name.endswith("bias") else 1.0)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.reset_running_stats()


@torch.no_grad()
def _measure_statistics(model: nn.Module, drawn: list[str], images: Tensor) -> None:
    layers = [model.get_submodule(name) for name in drawn]
    norms = [m for m in layers if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean of what is seen
        norm.train()
    model(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def _insist_on_change(original: nn.Module, model: nn.Module, images: Tensor) -> None:
    """A module that keeps a reference to its original's layers would be copied in name only."""
    if torch.equal(original(images[:1]), model(images[:1])):
        raise ValueError("randomising changed nothing: the copied model still uses the original's")
