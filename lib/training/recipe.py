"""Everything that decides the weights of one model, besides the data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from lib.core.errors import StudyError
from lib.training import arms

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.9, foreach=True),  # torch has no fused one
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of one model, besides the data."""

    dataset: str
    loss: str
    arm: str
    seed: int
    trunk: str
    embedding: int
    image_size: int
    optimiser: str
    lr_trunk: float
    lr_head: float
    lr_loss: float
    weight_decay: float
    batch: int
    iterations: int
    epochs: int
    patience: int
    precision: str
    loss_arguments: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The name of the model's files."""
        return f"{self.loss}-{self.arm}-{self.seed}"


def check(recipe: Recipe) -> Recipe:
    """Return `recipe` if it can be trained; else say which value is wrong and what is possible."""
    arms.get(recipe.arm)
    wrong = {
        f"precision is {recipe.precision!r}, not bf16 or f32": recipe.precision
        not in ("bf16", "f32"),
        f"optimiser is {recipe.optimiser!r}; known: {', '.join(OPTIMISERS)}": recipe.optimiser
        not in OPTIMISERS,
    }
    counts = ("embedding", "image_size", "batch", "iterations", "epochs", "patience")
    wrong |= {f"{name} is not a positive number": getattr(recipe, name) < 1 for name in counts}
    rates = ("lr_trunk", "lr_head", "lr_loss", "weight_decay")
    wrong |= {f"{name} is negative": not getattr(recipe, name) >= 0 for name in rates}
    if any(wrong.values()):
        found = "; ".join(text for text, is_wrong in wrong.items() if is_wrong)
        raise StudyError(f"this cannot be trained: {found}. Change the study's train section.")
    return recipe
