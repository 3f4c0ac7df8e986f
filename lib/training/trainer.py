"""Training one embedder: one loss, one arm, one seed; stops early, resumes, repeats exactly.

All randomness is a function of (seed, step): the sampler's, the crops', the backgrounds', a
trunk's dropout. So a checkpoint holds sampler and generator by holding the number of its epoch,
and both arms of a seed see the same images in the same crops.
"""

import shutil
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import (
    atomic,
    digest,
    key_of,
    read_json,
    sealed,
    space_left,
    write_json,
    write_table,
)
from lib.core.hardware import autocast, device, fixed_threads, used
from lib.core.progress import say
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder, save_weights
from lib.training import losses
from lib.training.arms import ARMS, selection
from lib.training.recipe import OPTIMISERS, Recipe, check
from lib.training.sampling import epoch_rows
from lib.training.validation import validation

COPIES = 5  # of the weights on disk: best, its copy, and a checkpoint with two moments
VERSION = 2  # raise when the arithmetic of training changes: older checkpoints are then ignored


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
            f"image_size is {size} pixels, the stored pictures have a short side of {side}: crops "
            "would only be blown up. Lower image_size (train), or raise side (data) and run from "
            "01_data again."
        )


class Run:
    """The state of one training run: model, criterion, optimiser, history."""

    def __init__(self, recipe: Recipe, scenes: Scenes):
        self.recipe, self.scenes, self.device = check(recipe), scenes, device()
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
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, number])
        torch.manual_seed(number)  # dropout, if the trunk has any
        images = self.scenes.training(self.rows[positions], recipe.image_size, rng, recipe.p)
        images = self.model.normalise(images).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, recipe.precision):
            embeddings = self.model(images)
        loss: Tensor = self.criterion(embeddings, self.targets[torch.as_tensor(positions)])
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
        """Validation MAP@R on clean images and on replaced backgrounds (validation pool)."""
        recipe, found = self.recipe, {}
        for condition in ("clean", "random_background"):
            try:
                scores = validation(
                    self.model, self.scenes, condition, recipe.seed, recipe.image_size,
                    recipe.precision,
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
        self.best, self.best_sha256 = tuple(state["best"]), state.get("best_sha256", "")


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


def _note_time(folder: Path, run: Run, training: float, validation: float) -> None:
    file = folder / "seconds.json"  # not among the results: these must be the same at every run
    noted = read_json(file) if file.exists() else {}
    noted[str(run.epoch)] = {"training": training, "validation": validation}
    write_json(file, noted)


def speed(folder: Path, recipe: Recipe) -> list[str]:
    """How fast a model was trained, in words; nothing if its times are not known."""
    file = folder / "seconds.json"
    if not file.exists():
        return []
    table = pd.DataFrame(read_json(file)).T
    images = len(table) * recipe.iterations * recipe.batch
    spent = table.sum()
    return [
        f"  {recipe.loss} {recipe.arm} seed {recipe.seed}: {images:,} training images in "
        f"{spent['training']:.0f} s ({images / spent['training']:.1f} images/s), "
        f"{spent['validation']:.0f} s of validation"
    ]


def folder_of(recipe: Recipe, scenes: Scenes, scratch: Path) -> Path:
    """Where a model is while it is trained; another recipe or other data, another folder."""
    made = asdict(recipe) | {"precision": used(recipe.precision, device().type)}
    key = key_of(version=VERSION, data=scenes.fingerprint, **made)
    return scratch / f"{recipe.loss}-{recipe.arm}-{recipe.seed}-{key}"


def fit(recipe: Recipe, scenes: Scenes, scratch: Path) -> tuple[Path, pd.DataFrame]:
    """Train one model, or go on with it, or return it if it is finished.

    Epoch 0 is the network before training. Training stops after `patience` epochs without a better
    validation MAP@R (`selection`) or at `epochs`; the best epoch's weights are kept.

    Returns:
        Path of the best weights (safetensors) and the history (one row an epoch and condition).
    """
    folder = folder_of(check(recipe), scenes, scratch)
    best, last, done = folder / "best.safetensors", folder / "last.pt", folder / "history.csv"
    seal = folder / "seal.json"
    if done.exists() and best.exists():
        if seal.exists():
            sealed([best], read_json(seal)["sha256"], _afresh(folder))
            sealed([done], read_json(seal)["history"], _afresh(folder))
        return best, pd.read_csv(done)
    run = Run(recipe, scenes)
    if last.exists():
        run.restore(_checkpoint(last, run.device))
        say(f"  resuming {folder.name} after epoch {run.epoch}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        weights = sum(value.nbytes for value in run.model.state_dict().values())
        space_left(best, COPIES * weights)
        _record(run, float("nan"), 0.0)
        _keep(run, best)
    while run.epoch < recipe.epochs and run.epoch - run.best[1] < recipe.patience:
        start = time.monotonic()
        loss = run.train_epoch(run.epoch + 1)
        trained = time.monotonic() - start
        run.epoch += 1
        run.check_weights()
        if _record(run, loss, trained):
            _keep(run, best)
        _note_time(folder, run, trained, time.monotonic() - start - trained)
        with atomic(last) as temporary, open(temporary, "wb") as stream:
            torch.save(run.state(), stream)
    if run.best_sha256:  # a checkpoint of an earlier version has none
        sealed([best], run.best_sha256, _afresh(folder))
    history = pd.DataFrame(run.history).assign(best=run.best[1])
    write_table(done, history)
    write_json(seal, {"sha256": digest(best), "history": digest(done)})
    last.unlink(missing_ok=True)
    return best, pd.read_csv(done)


def _keep(run: Run, best: Path) -> None:
    save_weights(run.model, best)
    run.best_sha256 = digest(best)


def _afresh(folder: Path) -> str:
    return f"Delete {folder}; the model is then trained from its beginning."


def _checkpoint(last: Path, where: torch.device) -> dict[str, Any]:
    """A checkpoint, if it is whole; torch itself does not look at the checksums in the file."""
    problem: Any = None
    try:
        with zipfile.ZipFile(last) as members:
            problem = members.testzip()
        state = torch.load(last, weights_only=True, map_location=where)
    except Exception as error:  # zipfile, pickle and torch raise their own
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
    if problem:
        raise StudyError(f"{last} is no whole checkpoint ({problem}). {_afresh(last.parent)}")
    return state


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
    if not seeds or len(set(seeds)) < len(seeds):
        raise StudyError(f"seeds are {seeds}; wanted: one or more, each once.")
    for seed in seeds:
        for arm in ARMS:
            share = p if arm == "bgaugment" else 0.0
            made = Recipe(loss=loss, arm=arm, seed=seed, p=share, **recipe)
            weights, history = fit(made, scenes, where.scratch)
            for line in speed(weights.parent, made):
                say(line)
            name = f"{arm}-{seed}.safetensors"
            with atomic(folder / name) as temporary:
                shutil.copyfile(weights, temporary)
            kept = ("loss", "arm", "seed", "trunk", "embedding", "image_size")
            ran = used(made.precision, device().type)
            facts = {"precision": ran, "weights": name, "sha256": digest(weights)}
            models.append({key: getattr(made, key) for key in kept} | facts)
            histories.append(history.assign(study=study, loss=loss, arm=arm, seed=seed))
    table = pd.concat(histories, ignore_index=True)
    write_table(folder / "training.csv", table)
    write_json(folder / "models.json", models)
    return table
