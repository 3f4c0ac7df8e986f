"""The test conditions: one table of ways to change the background. Adding one is adding an entry.

A condition is a function from a batch of test images to what the network sees. Everything random
is decided by (seed, draw, image), so all models see the same pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lib.core.errors import StudyError
from lib.images.composite import composite
from lib.images.inpainting import blur, fill, tile
from lib.images.scenes import Scenes


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
        return self.pictures_of(self.rows)

    def pictures_of(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The same for other images than the batch's own."""
        return self.scenes.split(self.scenes.images.centre(rows, self.size), rows)


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


def _clean(batch: Batch) -> Tensor:
    return batch.pictures()[0]


def _random_background(batch: Batch) -> Tensor:
    image, mask = batch.pictures()
    photograph = batch.scenes.backgrounds.centre(batch.choice.background, batch.size)
    return composite(image, mask, photograph)


def _place_of(kind: str, empty: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Batch], Tensor]:
    """The object on the emptied picture of the mate or stranger drawn for it."""

    def make(batch: Batch) -> Tensor:
        image, mask = batch.pictures()
        other = batch.pictures_of(getattr(batch.choice, kind))
        return composite(image, mask, empty(*other))

    return make


def _on_colour(*colour: float) -> Callable[[Batch], Tensor]:
    """The object on one colour (red, green, blue, each 0 to 255)."""

    def make(batch: Batch) -> Tensor:
        image, mask = batch.pictures()
        plain = image.new_tensor(colour)[:, None, None].expand_as(image)
        return composite(image, mask, plain)

    return make


def _background_only(batch: Batch) -> Tensor:
    return fill(*batch.pictures())


def _on_own(empty: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Batch], Tensor]:
    """The object back on its own place, which was emptied first."""

    def make(batch: Batch) -> Tensor:
        image, mask = batch.pictures()
        return composite(image, mask, empty(image, mask))

    return make


PAPER = "Kobs & Hotho 2022"
IN9 = "ImageNet-9 (arXiv 2006.09994)"  # Xiao et al. 2021, Noise or Signal
BLURRED = "XIMAGENET-12 (arXiv 2310.08182)"  # Li et al. 2023
# The mean colour of ImageNet. An image's own mean colour would tell of its background.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
CONDITIONS: dict[str, Condition] = {
    "clean": Condition("clean", _clean, False, PAPER),
    "random_background": Condition("random photograph", _random_background, True, PAPER),
    "same_class_background": Condition(
        "same-class place", _place_of("mate", fill), True, f"{IN9}, Mixed-Same"
    ),
    "other_class_background": Condition(
        "other-class place", _place_of("stranger", fill), True, f"{IN9}, Mixed-Rand"
    ),
    "same_class_tiled": Condition(
        "same-class tiles", _place_of("mate", tile), True, f"{IN9}, Mixed-Same"
    ),
    "other_class_tiled": Condition(
        "other-class tiles", _place_of("stranger", tile), True, f"{IN9}, Mixed-Rand"
    ),
    "own_background": Condition("cut out, own place", _on_own(fill), False, "artefact control"),
    "blurred_background": Condition(
        "own place, blurred", _on_own(blur), False, BLURRED
    ),
    "foreground_only": Condition("object on grey", _on_colour(127.0), False, f"{IN9}, Only-FG"),
    "foreground_on_black": Condition("object on black", _on_colour(0.0), False, f"{IN9}, Only-FG"),
    "foreground_on_mean": Condition(
        "object on mean colour", _on_colour(*IMAGENET_MEAN), False, f"{IN9}, Only-FG"
    ),
    "background_only": Condition("object painted out", _background_only, False, f"{IN9}, No-FG"),
}  # fmt: skip
# Pairs whose difference is ImageNet-9's BG-gap: a place of the own class, one of another class.
GAPS = {
    "filled": ("same_class_background", "other_class_background"),
    "tiled": ("same_class_tiled", "other_class_tiled"),
}


def get(name: str) -> Condition:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in CONDITIONS:
        raise StudyError(f"unknown condition {name!r}; known: {', '.join(CONDITIONS)}")
    return CONDITIONS[name]


def choose(scenes: Scenes, rows: np.ndarray, pool: str, seed: int, draw: int) -> Choice:
    """Draw for every image of `rows`: a photograph of `pool`, a mate, a stranger (row numbers).

    Photographs are drawn with replacement, so a pool may be smaller than the images are many. Only
    usable masks give a place; an image without a mate (or stranger) gets its own place.
    """
    photographs = scenes.backgrounds_store.rows(pool)
    if not len(photographs):
        known = ", ".join(sorted(scenes.backgrounds_store.index["split"].unique()))
        raise StudyError(f"no photograph in the background pool {pool!r}; there are: {known}.")
    rng = np.random.default_rng([seed, draw, 7])
    size, labels = len(scenes.store), scenes.store.labels
    chosen = Choice(*(np.full(size, -1) for _ in range(3)))
    chosen.background[rows] = rng.choice(photographs, len(rows))
    usable = rows[scenes.usable[rows]]
    for row, pick in zip(rows, rng.random((len(rows), 2)), strict=True):
        same = labels[usable] == labels[row]
        mates, strangers = usable[same & (usable != row)], usable[~same]
        chosen.mate[row] = mates[int(pick[0] * len(mates))] if len(mates) else row
        chosen.stranger[row] = strangers[int(pick[1] * len(strangers))] if len(strangers) else row
    return chosen


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
