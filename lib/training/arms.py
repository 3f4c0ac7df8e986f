"""The arms: one table of ways to train. Adding one is adding an entry.

An entry says what training images look like, what picks the checkpoint, what the arm is compared
with, and how it is called; everything else (training, contrasts, tables, figures) iterates over the
arms of a study (`arms:` in params.yaml). Colours are the report's matter (lib.report.style): an arm
without one there gets the next of the palette.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.errors import StudyError
from lib.images.composite import composite
from lib.images.scenes import TrainingBatch
from lib.training import terms
from lib.training.terms import GREY, Step

View = Callable[[TrainingBatch], Tensor]
UNTRAINED = "untrained"  # the trunk before training: a baseline beside the arms, not an arm


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        label: name in tables and figures.
        view: training images (B, 3, s, s) on 0 to 255, made of a batch of images with masks.
        select_on: the test condition (lib.images.conditions) whose validation MAP@R picks the
            checkpoint.
        reference: the arm that it is compared with; None for the arm that others start from.
        views: how often each image stands in a batch, every time with draws of its own; a batch
            then holds fewer images, so that a step costs the same.
        term: added to the loss of every step (lib.training.terms).
        extra: passes of the network for an image in its term, a forward pass as one and a backward
            pass as two; a plain step has 3.
        source: where the idea comes from.
    """

    label: str
    view: View
    select_on: str = "clean"
    reference: str | None = "base"
    views: int = 1
    term: Callable[[Step], Tensor] | None = None
    extra: float = 0.0
    source: str = ""

    @property
    def needs_masks(self) -> bool:
        """Whether training looks at the masks."""
        return self.view is not as_taken or self.term is not None


def as_taken(batch: TrainingBatch) -> Tensor:
    """The photographs as they are."""
    return batch.images


def replaced(fill: Callable[[TrainingBatch], Tensor], share: float = 1.0) -> View:
    """A `share` of the images has another background, made by `fill` for the whole batch."""

    def view(batch: TrainingBatch) -> Tensor:
        chosen = batch.chance < share
        if not chosen.any():
            return batch.images
        moved = composite(batch.images, batch.masks, fill(batch))
        which = torch.as_tensor(chosen, device=moved.device)[:, None, None, None]
        return torch.where(which, moved, batch.images)

    return view


def photographs(batch: TrainingBatch) -> Tensor:
    """A photograph of the train pool for every image, each in a random crop of its own."""
    return batch.photographs()


def grey(batch: TrainingBatch) -> Tensor:
    """One grey, as in the test condition `foreground_only`."""
    return torch.full_like(batch.images, GREY)


PAPER = "Kobs & Hotho 2022 (arXiv 2210.01615)"
MOVED = "random_background"
ARMS: dict[str, Arm] = {
    "base": Arm("base", as_taken, reference=None, source=PAPER),
    "bgaugment": Arm("BGAugment", replaced(photographs), MOVED, source=PAPER),
    # remedies beside the paper's (07_remedies)
    "greyaugment": Arm(
        "GreyAugment", replaced(grey), MOVED, source="control: removed instead of replaced"
    ),
    "pairs": Arm(
        "Pairs", replaced(photographs), MOVED, views=2,
        source="two backgrounds an image: CLAD (arXiv 2210.02748)",
    ),
    "guided": Arm(
        "Guided", as_taken, MOVED, term=terms.guide, extra=1,
        source="a teacher sees the object alone: after Guided DML (arXiv 2206.02029)",
    ),
    "attribution_penalty": Arm(
        "Attribution penalty", as_taken, MOVED, term=terms.background_relevance,
        extra=9 / terms.EXPLAINED,  # forward and gradient (3), and backward through both (6)
        source="gradient x input on the background: after Faster ISNet (arXiv 2401.08409)",
    ),
    "bgaugment_25": Arm("BGAugment, 25 %", replaced(photographs, 0.25), MOVED, source="dose"),
    "bgaugment_50": Arm("BGAugment, 50 %", replaced(photographs, 0.50), MOVED, source="dose"),
    "bgaugment_75": Arm("BGAugment, 75 %", replaced(photographs, 0.75), MOVED, source="dose"),
}  # fmt: skip


def get(name: str) -> Arm:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in ARMS:
        raise StudyError(f"unknown arm {name!r}; known: {', '.join(ARMS)}")
    return ARMS[name]


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Every (arm, its reference) of which both are among `names`, in their order."""
    return [(name, get(name).reference) for name in names if get(name).reference in names]


def labels(names: list[str]) -> dict[str, str]:
    """Name -> label, the untrained trunk among them."""
    return {name: "untrained trunk" if name == UNTRAINED else get(name).label for name in names}
