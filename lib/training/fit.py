"""One model from start to finish: kept on disk after every epoch, resumed, sealed at the end."""

import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lib.core import run_log
from lib.core.code import fingerprint
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
from lib.core.hardware import device, used
from lib.core.progress import say
from lib.images.scenes import Scenes
from lib.models.embedder import save_weights
from lib.training.recipe import Recipe, check
from lib.training.trainer import Run

COPIES = 5  # of the weights on disk: best, its copy, and a checkpoint with two moments
ROOMS = ("retrieval", "images", "models", "training")  # other code, another model


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
    return scratch / f"{recipe.name}-{key(recipe, scenes)}"


def key(recipe: Recipe, scenes: Scenes) -> str:
    """Equal for the same recipe on the same data by the same code, at one precision."""
    made = asdict(recipe) | {"precision": used(recipe.precision, device().type)}
    return key_of(code=fingerprint(*ROOMS), data=scenes.fingerprint, **made)


def finished(recipe: Recipe, scenes: Scenes, scratch: Path) -> bool:
    """Whether `fit` would find the model done."""
    return (folder_of(recipe, scenes, scratch) / "seal.json").exists()


def fit(recipe: Recipe, scenes: Scenes, scratch: Path) -> tuple[Path, pd.DataFrame]:
    """Train one model, or go on with it, or return it if it is finished.

    Epoch 0 is the model before training. Training stops after `patience` epochs without a better
    validation MAP@R (the arm's `select_on`) or at `epochs`; the best epoch's weights are kept.

    Returns:
        Path of the best weights (safetensors) and the history (one row an epoch and condition).
    """
    folder = folder_of(check(recipe), scenes, scratch)
    best, last, done = folder / "best.safetensors", folder / "last.pt", folder / "history.csv"
    seal = folder / "seal.json"
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
        run.record(float("nan"), 0.0)
        _keep(run, best)
    while run.epoch < recipe.epochs and run.epoch - run.best[1] < recipe.patience:
        start = time.monotonic()
        loss = run.train_epoch(run.epoch + 1)
        trained = time.monotonic() - start
        run.epoch += 1
        run.check_weights()
        if run.record(loss, trained):
            _keep(run, best)
        _note_time(folder, run, trained, time.monotonic() - start - trained)
        with atomic(last) as temporary, open(temporary, "wb") as stream:
            torch.save(run.state(), stream)
    sealed([best], run.best_sha256, _afresh(folder))
    history = pd.DataFrame(run.history).assign(best=run.best[1])
    write_table(done, history)
    made = {"sha256": digest(best), "history": digest(done), "origin": run_log.origin()}
    write_json(seal, made)
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
