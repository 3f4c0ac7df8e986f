"""Training one embedder: one loss, one arm, one seed, epoch by epoch.

All randomness is a function of (seed, step): the sampler's, the crops', the backgrounds', a
trunk's dropout. So a checkpoint holds sampler and generator by holding the number of its epoch,
and all arms of a seed see the same images in the same crops.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import StudyError
from lib.core.hardware import autocast, device, fixed_threads
from lib.core.progress import say
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder
from lib.models.embedding import forward_of
from lib.training import arms, losses
from lib.training.recipe import OPTIMISERS, Recipe, check
from lib.training.sampling import epoch_rows
from lib.training.validation import validation

ALWAYS = ("clean", "random_background")  # validated after every epoch, whatever the arm selects on


def _optimiser(recipe: Recipe, model: Embedder, criterion: nn.Module) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.trunk.parameters()), "lr": recipe.lr_trunk},
        {"params": list(model.head.parameters()), "lr": recipe.lr_head},
    ]
    own = list(criterion.parameters())
    if own:
        groups.append({"params": own, "lr": recipe.lr_loss})
    return OPTIMISERS[recipe.optimiser](groups, weight_decay=recipe.weight_decay)


def _large_enough(scenes: Scenes, size: int) -> None:
    """Refuse crops that would only be enlarged."""
    side = int(scenes.store.index[["height", "width"]].min(axis=None))
    if size > side:
        raise StudyError(
            f"image_size is {size} pixels, the stored images have a short side of {side}: crops "
            "would only be blown up. Lower image_size (train), or raise side (data) and run from "
            "01_data again."
        )


class Run:
    """The state of one training run: model, criterion, optimiser, history."""

    def __init__(self, recipe: Recipe, scenes: Scenes):
        self.recipe, self.scenes, self.device = check(recipe), scenes, device()
        self.arm = arms.get(recipe.arm)
        self.rows = scenes.store.rows("train")
        _large_enough(scenes, recipe.image_size)
        kept = scenes.store.labels[self.rows]
        self.labels = np.unique(kept, return_inverse=True)[1]
        self.targets = torch.as_tensor(self.labels, device=self.device)
        classes = int(self.labels.max()) + 1
        arguments = dict(recipe.loss_arguments) or losses.arguments(recipe.loss, recipe.dataset)
        self.model = Embedder(recipe.trunk, recipe.embedding, seed=recipe.seed)
        self.model.to(self.device, memory_format=torch.channels_last)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.criterion = losses.build(recipe.loss, arguments, classes, recipe.embedding)
        self.criterion.to(self.device)
        self.optimiser = _optimiser(recipe, self.model, self.criterion)
        self.epoch, self.history, self.best = 0, [], (-1.0, -1)
        self.best_sha256 = ""  # of the weights file of the best epoch

    def step(self, positions: np.ndarray, number: int) -> Tensor:
        """One update on the training images at `positions`; returns the loss, on the device."""
        recipe, arm = self.recipe, self.arm
        positions = np.tile(positions[: len(positions) // arm.views], arm.views)
        labels = self.targets[torch.as_tensor(positions)]
        rng = np.random.default_rng([recipe.seed, number])
        torch.manual_seed(number)  # dropout, if the trunk has any
        batch = self.scenes.training(self.rows[positions], recipe.image_size, rng)
        images = self.model.normalise(arm.view(batch))
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, recipe.precision):
            embeddings = self.model(images)
        loss: Tensor = self.criterion(embeddings, labels)
        if arm.term:
            loss = loss + arm.term(
                arms.Step(self.model, images, batch.masks, embeddings, labels, loss)
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def train_epoch(self, epoch: int) -> float:
        """One epoch of updates; returns the mean loss.

        The losses are read once an epoch, so that a GPU never waits for the host; the step at
        which one stopped being a number is still known.
        """
        self.model.train()
        first = (epoch - 1) * self.recipe.iterations
        batches = epoch_rows(self.labels, self.recipe, epoch)
        with fixed_threads():
            values = [self.step(batch, first + i) for i, batch in enumerate(batches)]
        values = torch.stack(values).double().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            self._refuse(values[bad[0]], first + bad[0], self.rows[batches[bad[0]]])
        return float(values.mean())

    def _refuse(self, value: float, number: int, rows: np.ndarray) -> None:
        epoch = number // self.recipe.iterations + 1
        raise StudyError(
            f"the loss became {value} at step {number} (epoch {epoch}; {self._rates()} Rows of the "
            f"store in this batch: {rows.tolist()}."
        )

    def _rates(self) -> str:
        recipe = self.recipe
        return (
            f"loss {recipe.loss}, arm {recipe.arm}, seed {recipe.seed}). Learning rates: lr_trunk "
            f"{recipe.lr_trunk:g}, lr_head {recipe.lr_head:g}, lr_loss {recipe.lr_loss:g}: lower "
            "them in the study's train section."
        )

    def check_weights(self) -> None:
        """Refuse weights that are no numbers: the last step of an epoch can make such ones."""
        bad = [n for n, w in self.model.named_parameters() if not torch.isfinite(w).all()]
        if bad:
            raise StudyError(
                f"weights became infinite or no number in epoch {self.epoch} ({len(bad)} of the "
                f"tensors, {bad[0]} among them; {self._rates()}"
            )

    def validate(self) -> dict[str, float]:
        """Validation MAP@R on clean images, on replaced backgrounds, and as the arm selects."""
        recipe, found = self.recipe, {}
        forward = forward_of(self.model, recipe.precision)
        for condition in dict.fromkeys((*ALWAYS, self.arm.select_on)):
            try:
                scores = validation(
                    self.model, self.scenes, condition, recipe.seed, recipe.image_size,
                    recipe.precision, forward,
                )  # fmt: skip
            except ValueError as error:  # embeddings that are no numbers, or zero
                raise StudyError(f"validation failed: {error} ({self._rates()}") from error
            found[condition] = float(scores.nanmean())
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "best_sha256": self.best_sha256,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best, self.best_sha256 = tuple(state["best"]), state["best_sha256"]

    def record(self, loss: float, seconds: float) -> bool:
        """Validate, note the epoch, and say whether it is the best so far."""
        scores, recipe = self.validate(), self.recipe
        for condition, value in scores.items():
            self.history.append(
                {"epoch": self.epoch, "condition": condition, "map_at_r": value, "loss_value": loss}
            )
        told = ", ".join(f"{condition} {value:.4f}" for condition, value in scores.items())
        say(
            f"  {recipe.loss} {recipe.arm} seed {recipe.seed} epoch {self.epoch}: loss {loss:.4f}, "
            f"validation MAP@R {told} ({seconds:.0f} s)"
        )
        chosen = scores[self.arm.select_on]
        if chosen > self.best[0]:
            self.best = (chosen, self.epoch)
            return True
        return False
