"""Does a map look at the object? The paper's attention score and four measures beside it.

All of them take maps A (B, H, W) and soft masks M (B, H, W) in [0, 1] (1 = object), give one value
an image, and leave out by one rule the images on which "on the object" means nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

EDGE = 1e-6  # a mask counts as empty (full) below (above) this share: a share, not the maximum,
# because U2-Net masks are stretched per image and always have a fully-on pixel


class Score(NamedTuple):
    """`score` (B,) float64, never NaN, 0 where undefined; `defined` (B,) bool: use `[defined]`."""

    score: Tensor
    defined: Tensor


def scale_map(raw: Tensor, percentile: float = 0.99) -> Tensor:
    """Raw maps (B, H, W), non-negative, to A in [0, 1]: image minimum to 0, percentile to 1.

    Subtracting the minimum is what the authors' code does and the paper does not mention. Where
    the percentile equals the minimum (their 0/0): all pixels above the minimum are 1; a constant
    map becomes all ones, an all-zero map stays zero.
    Source: Kobs & Hotho 2022 (arXiv 2210.01615) and `analysis.py` of their repository.
    """
    flat = _finite(raw).flatten(1)
    low = flat.amin(dim=1, keepdim=True)
    spread = _quantile(flat, percentile) - low
    scaled = ((flat - low) / spread.where(spread > 0, 1)).clamp(0, 1)
    constant = flat.amax(dim=1, keepdim=True) == low
    flat_case = torch.where(constant, flat > 0, flat > low).to(flat.dtype)
    return torch.where(spread > 0, scaled, flat_case).view_as(raw)


def attention_score(maps: Tensor, masks: Tensor) -> Score:
    """(sum(A*M)/sum(A) - mean(M)) / (1 - mean(M)): 0 = a uniform map, 1 = all on the object.

    `maps` are A of `scale_map`. It is chance-corrected relevance mass and can be negative: its
    minimum, -mean(M)/(1 - mean(M)), is a map wholly on the background. Undefined where the mask is
    empty or full or A is all zero. Source: Kobs & Hotho 2022, arXiv 2210.01615.
    """
    share, defined = relevance_mass(maps, masks)
    area = _area(masks)
    score = (share - area) / (1 - area).where(defined, 1)
    return Score(score.where(defined, 0), defined)


def relevance_mass(maps: Tensor, masks: Tensor) -> Score:
    """Share of the map that lies on the object, sum(A*M)/sum(A) (Arras et al. 2022, RMA)."""
    a, m, defined = _pair(maps, masks)
    total = a.sum(dim=1)
    share = (a * m).sum(dim=1) / total.where(total > 0, 1)
    return Score(share.where(defined, 0), defined)


def relevance_rank(maps: Tensor, masks: Tensor) -> Score:
    """Mask weight under the k highest pixels over the most that k pixels can hold.

    k = round(sum(M)), at least 1; ties go to the lower pixel index. On a binary mask this is the
    relevance rank accuracy of Arras et al. 2022: the share of the top k that is on the object.
    """
    a, m, defined = _pair(maps, masks)
    order = a.argsort(dim=1, descending=True, stable=True)
    k = _object_pixels(m)
    found = m.gather(1, order).cumsum(1).gather(1, k - 1).squeeze(1)
    return Score((found / _best(m, k)).where(defined, 0), defined)


def energy_pointing_game(maps: Tensor, masks: Tensor) -> Score:
    """Share of the map inside the object's bounding box (Wang et al. 2020, Score-CAM).

    The box spans the pixels with M >= 0.5. Undefined also where no pixel reaches 0.5 or the box is
    the whole image.
    """
    boxes = _boxes(masks)
    share, defined = relevance_mass(maps, boxes)
    defined = defined & _pair(maps, masks)[2]
    return Score(share.where(defined, 0), defined)


def pointing_game(maps: Tensor, masks: Tensor) -> Score:
    """Mask value under the highest pixel, the lowest index among equals (Zhang et al. 2018)."""
    a, m, defined = _pair(maps, masks)
    highest = a.argsort(dim=1, descending=True, stable=True)[:, :1]
    return Score(m.gather(1, highest).squeeze(1).where(defined, 0), defined)


@dataclass(frozen=True)
class Measure:
    """One score: how to read it, what a map without knowledge gets, on which map it works."""

    label: str
    function: Callable[[Tensor, Tensor], Score]
    chance: Callable[[Tensor], Tensor]  # masks (B, H, W) -> expected value (B,), float64
    scaled: bool  # True: on A; False: on the raw map, for clipping makes the top 1 % all equal
    reference: str
    direction: str = "higher"
    low: float = 0.0
    high: float = 1.0


def _zero(masks: Tensor) -> Tensor:
    return torch.zeros(len(masks), dtype=torch.float64, device=masks.device)


def _area(masks: Tensor) -> Tensor:
    return masks.double().flatten(1).mean(dim=1)


def _rank_chance(masks: Tensor) -> Tensor:
    m = masks.double().flatten(1)
    k = _object_pixels(m)
    return k.squeeze(1) * m.mean(dim=1) / _best(m, k).clamp_min(EDGE)


def _box_area(masks: Tensor) -> Tensor:
    return _area(_boxes(masks))


SCORES: dict[str, Measure] = {
    "attention_score": Measure(
        "attention score", attention_score, _zero, True, "Kobs & Hotho 2022", low=float("-inf")
    ),
    "relevance_mass": Measure(
        "relevance mass accuracy", relevance_mass, _area, True, "Arras et al. 2022"
    ),
    "relevance_rank": Measure(
        "relevance rank accuracy", relevance_rank, _rank_chance, False, "Arras et al. 2022"
    ),
    "energy_pointing_game": Measure(
        "energy in the object's box", energy_pointing_game, _box_area, True, "Wang et al. 2020"
    ),
    "pointing_game": Measure("pointing game", pointing_game, _area, False, "Zhang et al. 2018"),
}


def score_table(raw: Tensor, masks: Tensor) -> pd.DataFrame:
    """Every score of every image: columns row, metric, value, chance, defined.

    `raw` are maps of `attribution.attribute`, `masks` (B, H, W) in [0, 1]. `value` is 0 where
    `defined` is false: filter on `defined`, and report how many rows that leaves out.
    """
    scaled = scale_map(raw)
    parts = []
    for name, measure in SCORES.items():
        score, defined = measure.function(scaled if measure.scaled else raw, masks)
        columns = {"value": score, "chance": measure.chance(masks), "defined": defined}
        values = {key: value.cpu().numpy() for key, value in columns.items()}
        parts.append(pd.DataFrame({"row": range(len(raw)), "metric": name, **values}))
    return pd.concat(parts, ignore_index=True)


def pick_images(labels: Tensor, count: int, seed: int) -> Tensor:
    """Rows of `count` images spread over the classes as evenly as they go, ascending, seeded.

    Every class gives one image before any gives a second; which classes and which images is drawn
    from `seed`. `labels` (N,) int; all N rows if `count` is at least N.
    """
    if count < 1:
        raise ValueError(f"count is {count}; give at least 1 image")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    turn = torch.empty_like(shuffled)  # how many images of its class come before this one
    for label in labels.unique().tolist():
        own = shuffled[labels.cpu()[shuffled] == label]
        turn[own] = torch.arange(len(own))
    order = shuffled[turn[shuffled].argsort(stable=True)]
    return order[:count].sort().values


def _finite(maps: Tensor) -> Tensor:
    if maps.ndim != 3:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; expected (images, height, width)")
    bad = (~maps.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"maps of images {bad[:10]} hold NaN or infinity; use precision f32")
    if bool((maps < 0).any()):
        raise ValueError("maps hold negative values; take the absolute value or clip first")
    return maps


def _pair(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both as (B, H*W) float64, and which images have an object, a background and a map."""
    a = _finite(maps).double().flatten(1)
    if masks.shape != maps.shape:
        raise ValueError(f"masks are {tuple(masks.shape)}, maps {tuple(maps.shape)}; must be equal")
    m = masks.double().flatten(1)
    if m.numel() and not (m.min() >= 0 and m.max() <= 1):
        raise ValueError("masks must lie in [0, 1]; divide uint8 masks by 255")
    area = m.mean(dim=1)
    return a, m, (area > EDGE) & (area < 1 - EDGE) & (a.sum(dim=1) > 0)


def _quantile(flat: Tensor, q: float) -> Tensor:
    """Linear-interpolated quantile of every row; torch.quantile refuses over 2**24 values."""
    ordered = flat.sort(dim=1).values
    place = q * (flat.shape[1] - 1)
    low = int(place)
    high = min(low + 1, flat.shape[1] - 1)
    return torch.lerp(ordered[:, low], ordered[:, high], place - low).unsqueeze(1)


def _object_pixels(m: Tensor) -> Tensor:
    return m.sum(dim=1, keepdim=True).round().long().clamp_min(1)


def _best(m: Tensor, k: Tensor) -> Tensor:
    best = m.sort(dim=1, descending=True).values.cumsum(1).gather(1, k - 1).squeeze(1)
    return best.where(best > 0, 1)


def _boxes(masks: Tensor) -> Tensor:
    solid = masks >= 0.5
    return (_span(solid.any(dim=2)).unsqueeze(2) & _span(solid.any(dim=1)).unsqueeze(1)).double()


def _span(on: Tensor) -> Tensor:
    """True from the first to the last True of every row."""
    started = on.long().cumsum(1) > 0
    ended = on.long().flip(1).cumsum(1).flip(1) > 0
    return started & ended
