"""The test conditions: one table of ways to change the background. Adding one is adding an entry.

A condition is a function from a batch of test images to what the network sees. Everything random
is decided by (seed, draw, image), so all models see the same pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lib.core.errors import StudyError
from lib.images.composite import composite
from lib.images.crops import Boxes, random_boxes
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
    """What was drawn for every image of the store (arrays over its rows, -1 where nothing was).

    A photograph (`background`, a row of the backgrounds) with a crop of its own; a class mate, a
    stranger of another class; a place of another split (`elsewhere`), seen in a mirror or not.
    """

    background: np.ndarray
    crop: Boxes
    mate: np.ndarray
    stranger: np.ndarray
    elsewhere: np.ndarray
    mirrored: np.ndarray

    def at(self, rows: np.ndarray) -> "Choice":
        """What was drawn for some rows."""
        parts = (getattr(self, field.name) for field in fields(self))
        return Choice(*(part.at(rows) if isinstance(part, Boxes) else part[rows] for part in parts))


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
    choice, backgrounds = batch.choice, batch.scenes.backgrounds
    return composite(image, mask, backgrounds.sample(choice.background, choice.crop, batch.size))


def _unshared_background(batch: Batch) -> Tensor:
    image, mask = batch.pictures()
    place = tile(*batch.pictures_of(batch.choice.elsewhere))
    mirrored = torch.as_tensor(batch.choice.mirrored, device=place.device)[:, None, None, None]
    return composite(image, mask, torch.where(mirrored, place.flip(3), place))


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
    "unshared_background": Condition(
        "place of a training image", _unshared_background, True, "control: shared by no other image"
    ),
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
    """Draw for every image of `rows` what its conditions need (`Choice`).

    Photographs of `pool` are drawn with replacement, each in a random crop and flip, as in the
    paper's code, so that two images that share a photograph do not share its pixels. Places of
    other splits are dealt out: none is used twice before all were used once, and the second time
    it is mirrored. Only usable masks give a place; an image without a mate (stranger, place
    elsewhere) gets its own.
    """
    backgrounds = scenes.backgrounds_store
    photographs = backgrounds.rows(pool)
    if not len(photographs):
        known = ", ".join(sorted(backgrounds.index["split"].unique()))
        raise StudyError(f"no photograph in the background pool {pool!r}; there are: {known}.")
    rng, size = np.random.default_rng([seed, draw, 7]), len(scenes.store)
    sampler, drawn = scenes.backgrounds, rng.choice(photographs, len(rows))
    boxes = random_boxes(sampler.heights[drawn], sampler.widths[drawn], rng)
    mate, stranger = _others(scenes, rows, rng.random((len(rows), 2)))
    elsewhere, mirrored = _elsewhere(scenes, rows, rng)

    def spread(values: np.ndarray) -> np.ndarray:
        """Values of `rows` as an array over the whole store."""
        whole = np.full(size, -1, int) if values.dtype != bool else np.zeros(size, bool)
        whole[rows] = values
        return whole

    crop = Boxes(*(spread(getattr(boxes, field.name)) for field in fields(boxes)))
    return Choice(
        spread(drawn), crop, *(spread(part) for part in (mate, stranger, elsewhere, mirrored))
    )


def _others(scenes: Scenes, rows: np.ndarray, picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A usable class mate and a usable image of another class for every row (itself if none).

    `picks` (len(rows), 2) in [0, 1) decide which.
    """
    labels = scenes.store.labels
    usable = rows[scenes.usable[rows]]
    usable = usable[np.argsort(labels[usable], kind="stable")]
    mate, stranger = rows.copy(), rows.copy()
    for at, (row, (one, two)) in enumerate(zip(rows, picks, strict=True)):
        first, last = np.searchsorted(labels[usable], [labels[row], labels[row] + 1])
        mates = usable[first:last][usable[first:last] != row]
        if len(mates):
            mate[at] = mates[int(one * len(mates))]
        if others := len(usable) - (last - first):
            place = int(two * others)
            stranger[at] = usable[place if place < first else place + last - first]
    return mate, stranger


def _elsewhere(
    scenes: Scenes, rows: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A training or validation image for every row, and whether it is mirrored."""
    pool = np.concatenate([scenes.store.rows("train"), scenes.store.rows("validation")])
    pool = np.setdiff1d(pool[scenes.usable[pool]], rows)
    if not len(pool):
        return rows.copy(), np.zeros(len(rows), bool)
    dealt = np.resize(rng.permutation(pool), len(rows))
    return dealt, np.arange(len(rows)) // len(pool) % 2 == 1


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
    batch = Batch(scenes, rows, size, "test", choice.at(rows))
    made = {name: get(name).make(batch).permute(0, 2, 3, 1) for name in conditions}
    return {name: list(images.round().byte().cpu().numpy()) for name, images in made.items()}
