"""The test conditions: one table of ways to change the background. Adding one is adding an entry.

A condition is a function from a batch of test images to what the network sees. Everything random
is decided by (seed, draw, image), so all models see the same pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from lib.embedder import Embedder
from lib.errors import StudyError
from lib.scenes import Scenes, composite


@dataclass(frozen=True)
class Batch:
    """One batch of test images: the study's scenes, its rows, and this draw's random choices."""

    scenes: Scenes
    rows: np.ndarray
    size: int
    pool: str
    choice: "Choice"

    def pictures(self) -> tuple[Tensor, Tensor]:
        """Image on 0 to 255 and mask in [0, 1] at the test crop."""
        return self.scenes.split(self.scenes.images.centre(self.rows, self.size), self.rows)

    def emptied(self, rows: np.ndarray) -> Tensor:
        """The backgrounds of other images: their object filled in from around it."""
        image, mask = self.scenes.split(self.scenes.images.centre(rows, self.size), rows)
        return fill(image, mask)


@dataclass(frozen=True)
class Choice:
    """What was drawn for every image of the store: a photograph, a class mate, a stranger."""

    background: np.ndarray
    mate: np.ndarray
    stranger: np.ndarray


@dataclass(frozen=True)
class Condition:
    """A way to make the test image; `draws` says whether chance is in it."""

    label: str
    make: Callable[[Batch], Tensor]
    draws: bool
    source: str


def fill(image: Tensor, mask: Tensor, grow: int = 7) -> Tensor:
    """Paint the object out: known pixels spread inwards, coarse to fine (push-pull).

    Args:
        image: (B, 3, s, s).
        mask: (B, 1, s, s) in [0, 1], 1 on the object.
        grow: the mask is first widened by this many pixels, so that its soft rim goes too.
    """
    wide = torch.nn.functional.max_pool2d(mask, grow, stride=1, padding=grow // 2)
    known = (wide < 0.1).float()
    return _pull(image * known, known)


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


def _clean(batch: Batch) -> Tensor:
    return batch.pictures()[0]


def _random_background(batch: Batch) -> Tensor:
    image, mask = batch.pictures()
    photograph = batch.scenes.backgrounds.centre(batch.choice.background, batch.size)
    return composite(image, mask, photograph)


def _background_of(kind: str) -> Callable[[Batch], Tensor]:
    def make(batch: Batch) -> Tensor:
        image, mask = batch.pictures()
        return composite(image, mask, batch.emptied(getattr(batch.choice, kind)))

    return make


def _on_colour(value: float) -> Callable[[Batch], Tensor]:
    def make(batch: Batch) -> Tensor:
        image, mask = batch.pictures()
        return composite(image, mask, torch.full_like(image, value))

    return make


def _background_only(batch: Batch) -> Tensor:
    return fill(*batch.pictures())


def _own_background(batch: Batch) -> Tensor:
    image, mask = batch.pictures()
    return composite(image, mask, fill(image, mask))


PAPER = "Kobs & Hotho 2022, section 3"
IN9 = "Xiao et al. 2021, Noise or Signal (ImageNet-9)"
CONDITIONS: dict[str, Condition] = {
    "clean": Condition("clean", _clean, False, PAPER),
    "random_background": Condition("random photograph", _random_background, True, PAPER),
    "same_class_background": Condition("same-class place", _background_of("mate"), True, IN9),
    "other_class_background": Condition("other-class place", _background_of("stranger"), True, IN9),
    "own_background": Condition("cut out, own place", _own_background, False, "artefact control"),
    "foreground_only": Condition("object on grey", _on_colour(127.0), False, IN9),
    "background_only": Condition("object painted out", _background_only, False, IN9),
}


def get(name: str) -> Condition:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in CONDITIONS:
        raise StudyError(f"unknown condition {name!r}; known: {', '.join(CONDITIONS)}")
    return CONDITIONS[name]


def choose(scenes: Scenes, rows: np.ndarray, pool: str, seed: int, draw: int) -> Choice:
    """Draw for every image of `rows`: a photograph of `pool`, a mate, a stranger (row numbers).

    Only usable masks give a place; an image without a mate (or stranger) gets its own place.
    """
    rng = np.random.default_rng([seed, draw, 7])
    size, labels = len(scenes.store), scenes.store.labels
    chosen = Choice(*(np.full(size, -1) for _ in range(3)))
    chosen.background[rows] = rng.choice(scenes.backgrounds_store.rows(pool), len(rows))
    usable = rows[scenes.usable[rows]]
    for row, pick in zip(rows, rng.random((len(rows), 2)), strict=True):
        same = labels[usable] == labels[row]
        mates, strangers = usable[same & (usable != row)], usable[~same]
        chosen.mate[row] = mates[int(pick[0] * len(mates))] if len(mates) else row
        chosen.stranger[row] = strangers[int(pick[1] * len(strangers))] if len(strangers) else row
    return chosen


@torch.inference_mode()
def embed(
    model: Embedder,
    scenes: Scenes,
    rows: np.ndarray,
    condition: str,
    *,
    draw: int,
    seed: int,
    size: int,
    precision: str = "bf16",
    pool: str = "test",
    batch: int = 32,  # larger ones leave the CPU's cache: 128 takes twice as long
) -> Tensor:
    """Embeddings (len(rows), D) of images under a condition, float32, on the CPU.

    Args:
        rows: rows of the study's store.
        draw, seed: which of the random draws; ignored by conditions without chance.
        pool: the pool of background photographs.
    """
    make, choice = get(condition).make, choose(scenes, rows, pool, seed, draw)
    where, parts = next(model.parameters()).device, []
    model.eval()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        drawn = Choice(choice.background[part], choice.mate[part], choice.stranger[part])
        images = model.normalise(make(Batch(scenes, part, size, pool, drawn)))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            parts.append(model(images).float().cpu())
    return torch.cat(parts)


def specimen(
    scenes: Scenes,
    rows: np.ndarray,
    conditions: list[str],
    size: int,
    pool_rows: np.ndarray,
    draw: int = 0,
    seed: int = 0,
) -> dict[str, list[np.ndarray]]:
    """What the networks see of some test images under some conditions, uint8 (size, size, 3).

    `pool_rows` are all test rows: the choices are drawn over them, as in `embed`.
    """
    choice = choose(scenes, pool_rows, "test", seed, draw)
    drawn = Choice(choice.background[rows], choice.mate[rows], choice.stranger[rows])
    batch = Batch(scenes, rows, size, "test", drawn)
    made = {name: get(name).make(batch).permute(0, 2, 3, 1) for name in conditions}
    return {name: list(images.round().byte().cpu().numpy()) for name, images in made.items()}
