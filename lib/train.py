"""Training one embedder: one loss, one arm, one seed; stops early, resumes, repeats exactly.

All randomness is a function of (seed, step), so a checkpoint needs no generator state and both
arms of a seed see the same images in the same crops.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions as pml_common
from torch import Tensor, nn

from lib import losses, paths, retrieval, shifts
from lib.embedder import Embedder, load_weights, save_weights
from lib.errors import StudyError
from lib.files import atomic, key_of, write_json, write_table
from lib.progress import say
from lib.scenes import Scenes

ARMS = {"base": 0.0, "bgaugment": 1.0}  # share of training images with a replaced background
VERSION = 1  # raise when the arithmetic of training changes: older checkpoints are then ignored


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of one model, besides the data."""

    dataset: str
    loss: str
    arm: str
    p: float
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


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def epoch_rows(labels: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """Positions (iterations, batch) into `labels` that an epoch visits, m per class."""
    m = losses.get(recipe.loss).per_class
    m = max(m, -(-recipe.batch // len(np.unique(labels))))  # few classes: more images of each
    pml_common.NUMPY_RANDOM = np.random.RandomState([recipe.seed, epoch])
    sampler = MPerClassSampler(
        labels, m, recipe.batch, length_before_new_iter=recipe.iterations * recipe.batch
    )
    picked = np.fromiter(iter(sampler), int)
    if len(picked) < recipe.iterations * recipe.batch:
        raise StudyError(
            f"the sampler gave {len(picked)} images, wanted {recipe.iterations * recipe.batch}: "
            f"batch {recipe.batch} does not go with m = {m} and {len(np.unique(labels))} classes. "
            "Choose a batch that is a multiple of m."
        )
    return picked.reshape(recipe.iterations, recipe.batch)


def _optimiser(recipe: Recipe, model: Embedder, criterion: nn.Module) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.trunk.parameters()), "lr": recipe.lr_trunk},
        {"params": list(model.head.parameters()), "lr": recipe.lr_head},
    ]
    own = list(criterion.parameters())
    if own:
        groups.append({"params": own, "lr": recipe.lr_loss})
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": lambda g: torch.optim.AdamW(g, weight_decay=recipe.weight_decay, fused=True),
        "rmsprop": lambda g: torch.optim.RMSprop(
            g, momentum=0.9, weight_decay=recipe.weight_decay, foreach=True
        ),
    }
    if recipe.optimiser not in kinds:
        raise StudyError(f"unknown optimiser {recipe.optimiser!r}; known: {', '.join(kinds)}")
    return kinds[recipe.optimiser](groups)


class Run:
    """The state of one training run: model, criterion, optimiser, history."""

    def __init__(self, recipe: Recipe, scenes: Scenes):
        self.recipe, self.scenes, self.device = recipe, scenes, device()
        self.rows = scenes.store.rows("train")
        kept = scenes.store.labels[self.rows]
        self.labels = np.unique(kept, return_inverse=True)[1]
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

    def step(self, positions: np.ndarray, number: int) -> float:
        """One update on the training images at `positions`; returns the loss."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, number])
        rows = self.rows[positions]
        images = self.scenes.training(rows, recipe.image_size, rng, recipe.p)
        images = self.model.normalise(images).contiguous(memory_format=torch.channels_last)
        labels = torch.as_tensor(self.labels[positions], device=self.device)
        with autocast(self.device, recipe.precision):
            embeddings = self.model(images)
        loss: Tensor = self.criterion(embeddings, labels)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise StudyError(
                f"the loss became {value} at step {number} (loss {recipe.loss}, arm {recipe.arm}, "
                f"seed {recipe.seed}, lr_trunk {recipe.lr_trunk}, rows {rows[:4]}...). Lower the "
                "learning rates in the study's train section."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return value

    def validate(self) -> dict[str, float]:
        """Validation MAP@R on clean images and on replaced backgrounds (validation pool)."""
        rows = self.scenes.store.rows("validation")
        labels = torch.as_tensor(self.scenes.store.labels[rows])
        scores = {}
        for condition in ("clean", "random_background"):
            vectors = shifts.embed(
                self.model, self.scenes, rows, condition, draw=0, seed=self.recipe.seed,
                size=self.recipe.image_size, precision=self.recipe.precision, pool="validation",
            )  # fmt: skip
            found = retrieval.evaluate(vectors, labels)["map_at_r"]
            scores[condition] = float(found.nanmean())
        return scores

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best = tuple(state["best"])


def autocast(where: torch.device, precision: str) -> torch.autocast:
    """bf16 where it is asked for; float32 otherwise."""
    return torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16")


def selection(arm: str) -> str:
    """The condition whose validation MAP@R picks the checkpoint (paper, section 4)."""
    return "clean" if arm == "base" else "random_background"


def _record(run: Run, loss: float, seconds: float) -> bool:
    """Validate, note the epoch, and say whether it is the best so far."""
    scores = run.validate()
    chosen = scores[selection(run.recipe.arm)]
    for condition, value in scores.items():
        run.history.append(
            {"epoch": run.epoch, "condition": condition, "map_at_r": value, "loss_value": loss}
        )
    say(
        f"  {run.recipe.loss} {run.recipe.arm} seed {run.recipe.seed} epoch {run.epoch}: loss "
        f"{loss:.4f}, validation MAP@R clean {scores['clean']:.4f}, replaced "
        f"{scores['random_background']:.4f} ({seconds:.0f} s)"
    )
    if chosen > run.best[0]:
        run.best = (chosen, run.epoch)
        return True
    return False


def fit(recipe: Recipe, scenes: Scenes, scratch: Path) -> tuple[Path, pd.DataFrame]:
    """Train one model, or go on with it, or return it if it is finished.

    Epoch 0 is the network before training. Training stops after `patience` epochs without a better
    validation MAP@R (`selection`) or at `epochs`; the best epoch's weights are kept.

    Returns:
        Path of the best weights (safetensors) and the history (one row an epoch and condition).
    """
    key = key_of(version=VERSION, data=scenes.fingerprint, **asdict(recipe))
    folder = scratch / f"{recipe.loss}-{recipe.arm}-{recipe.seed}-{key}"
    best, last, done = folder / "best.safetensors", folder / "last.pt", folder / "history.csv"
    if done.exists() and best.exists():
        return best, pd.read_csv(done)
    run = Run(recipe, scenes)
    if last.exists():
        run.restore(torch.load(last, weights_only=True, map_location=run.device))
        say(f"  resuming {folder.name} after epoch {run.epoch}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _record(run, float("nan"), 0.0)
        save_weights(run.model, best)
    while run.epoch < recipe.epochs and run.epoch - run.best[1] < recipe.patience:
        start = time.monotonic()
        run.model.train()
        run.epoch += 1
        first = (run.epoch - 1) * recipe.iterations
        batches = epoch_rows(run.labels, recipe, run.epoch)
        values = [run.step(batch, first + i) for i, batch in enumerate(batches)]
        if _record(run, float(np.mean(values)), time.monotonic() - start):
            save_weights(run.model, best)
        with atomic(last) as temporary:
            torch.save(run.state(), temporary)
    history = pd.DataFrame(run.history).assign(best=run.best[1])
    write_table(done, history)
    last.unlink(missing_ok=True)
    return best, pd.read_csv(done)


def train_study(
    study: str, loss: str, seeds: list[int], p: float, scenes: Scenes, **recipe: Any
) -> pd.DataFrame:
    """Train both arms of a loss for every seed and put the weights where the next notebook looks.

    Args:
        p: share of replaced backgrounds in the bgaugment arm (the base arm has none).
        recipe: the other fields of Recipe.

    Returns:
        The histories of all models: one row an arm, seed, epoch and condition.
    """
    where = paths.StudyPaths(study)
    folder, models, histories = where.models / loss, [], []
    recipe["lr_loss"] = recipe["lr_loss"] or losses.learning_rate(loss, recipe["dataset"]) or 0.0
    for seed in seeds:
        for arm in ARMS:
            share = p if arm == "bgaugment" else 0.0
            made = Recipe(loss=loss, arm=arm, seed=seed, p=share, **recipe)
            weights, history = fit(made, scenes, where.scratch)
            name = f"{arm}-{seed}.safetensors"
            with atomic(folder / name) as temporary:
                shutil.copyfile(weights, temporary)
            kept = ("loss", "arm", "seed", "trunk", "embedding", "image_size", "precision")
            models.append({key: getattr(made, key) for key in kept} | {"weights": name})
            histories.append(history.assign(study=study, loss=loss, arm=arm, seed=seed))
    table = pd.concat(histories, ignore_index=True)
    write_table(folder / "training.csv", table)
    write_json(folder / "models.json", models)
    return table


def trained(path: Path, recipe_trunk: str, embedding: int) -> Embedder:
    """A trained embedder in evaluation mode on the device."""
    model = Embedder(recipe_trunk, embedding, pretrained=False)
    load_weights(model, path)
    return model.to(device(), memory_format=torch.channels_last).eval()
