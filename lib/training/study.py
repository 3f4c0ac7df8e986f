"""All models of a study: every loss, arm and seed, one after the other."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import atomic, digest, read_json, write_json, write_table
from lib.core.hardware import device, used
from lib.core.progress import say
from lib.data.prepare import about
from lib.images.scenes import Scenes
from lib.masks.sources import mask_source
from lib.training import fit as training
from lib.training import losses as loss_table
from lib.training.fit import fit, speed
from lib.training.recipe import Recipe, check

KEEP = "KEEP_MEASURED"  # environment variable: 1 lets a study grow over several machines


def measure(
    study: str, losses: list[str], arms: list[str], seeds: list[int], trunk: str, embedding: int,
    image_size: int, optimiser: str, lr_trunk: float, lr_head: float, lr_loss: float,
    weight_decay: float, batch: int, iterations: int, epochs: int, patience: int, precision: str,
) -> pd.DataFrame:  # fmt: skip
    """Train every model of a study; finished ones are found, interrupted ones go on.

    The arguments after `seeds` are fields of lib.training.recipe.Recipe; `lr_loss` 0 stands for the
    published learning rate of the loss's own weights.

    Returns:
        The histories: one row a loss, arm, seed, epoch and condition.
    """
    made = recipes(
        about(study)["dataset"], losses, arms, seeds, lr_loss, trunk=trunk, embedding=embedding,
        image_size=image_size, optimiser=optimiser, lr_trunk=lr_trunk, lr_head=lr_head,
        weight_decay=weight_decay, batch=batch, iterations=iterations, epochs=epochs,
        patience=patience, precision=precision,
    )  # fmt: skip
    return train_all(study, made, Scenes(study, mask_source(study), device()))


def recipes(
    dataset: str,
    losses: list[str],
    arms: list[str],
    seeds: list[int],
    lr_loss: float,
    **shared: Any,
) -> list[Recipe]:
    """The recipes of a study's models, each checked; needs no images.

    Raises:
        StudyError: a list that is empty or names something twice, or that nobody knows.
    """
    found = []
    for loss in names("losses", losses):
        loss_table.arguments(loss, dataset)
        own = lr_loss or loss_table.learning_rate(loss, dataset) or 0.0
        found += [
            check(Recipe(dataset=dataset, loss=loss, arm=arm, seed=seed, lr_loss=own, **shared))
            for seed in names("seeds", seeds)
            for arm in names("arms", arms)
        ]
    return found


def names(what: str, given: list) -> list:
    """`given`, if it is a list of one or more different entries."""
    if not given or len(set(given)) < len(given):
        raise StudyError(f"`{what}` is {given}; wanted: one or more, each once.")
    return given


def train_all(study: str, recipes: list[Recipe], scenes: Scenes) -> pd.DataFrame:
    """Train the recipes and put their weights where evaluation looks, a folder a loss.

    Models of losses that are no longer trained are removed.
    """
    where, histories = paths.StudyPaths(study), []
    for loss in dict.fromkeys(recipe.loss for recipe in recipes):
        models = []
        for recipe in (recipe for recipe in recipes if recipe.loss == loss):
            if (before := measured_before(study, recipe, scenes)) is not None:
                made, history = before
                models.append(made)
            else:
                weights, history = fit(recipe, scenes, where.scratch)
                for line in speed(weights.parent, recipe):
                    say(line)
                models.append(_delivered(weights, recipe, where.models / loss))
            key = {"loss": recipe.loss, "arm": recipe.arm, "seed": recipe.seed}
            histories.append(history.assign(study=study, **key))
        write_json(where.models / loss / "models.json", models)
    for folder in where.models.iterdir():
        if folder.is_dir() and folder.name not in {recipe.loss for recipe in recipes}:
            shutil.rmtree(folder)
    table = pd.concat(histories, ignore_index=True)
    write_table(where.models / "training.csv", table)
    orders = {f"{key}s": [getattr(recipe, key) for recipe in recipes] for key in ("arm", "seed")}
    orders["losses"] = [recipe.loss for recipe in recipes]
    write_json(
        where.models / "trained.json", {k: list(dict.fromkeys(v)) for k, v in orders.items()}
    )
    return table


def measured_before(
    study: str, recipe: Recipe, scenes: Scenes
) -> tuple[dict[str, Any], pd.DataFrame] | None:
    """A model that another machine trained and measured: its entry in models.json, its history.

    Only where KEEP_MEASURED=1 asks for it. The tables in git must come from this very recipe, data
    and training code; weights are not in git, so that whoever needs them is told to train again.
    None: train it.
    """
    where = paths.StudyPaths(study)
    folder = where.measured / "evaluation"
    manifest, history = folder / "models" / f"{recipe.name}.json", folder / "training.csv"
    key = training.key(recipe, scenes)
    if os.environ.get(KEEP) != "1" or not manifest.exists() or not history.exists():
        return None
    made, table = read_json(manifest), pd.read_csv(history)
    if made.get("training") != key or training.finished(recipe, scenes, where.scratch):
        return None
    table = table[(table["loss"] == recipe.loss) & (table["arm"] == recipe.arm)]
    table = table[table["seed"] == recipe.seed].drop(columns=["study", "loss", "arm", "seed"])
    say(f"  {recipe.name} was measured before: it is not trained again")
    facts = {name: made[name] for name in ("precision", "origin", "training", "recipe")}
    return _who(recipe) | facts | {"sha256": made["model"], "measured_before": True}, table


def _who(recipe: Recipe) -> dict[str, Any]:
    kept = ("loss", "arm", "seed", "trunk", "embedding", "image_size")
    weights = f"{recipe.arm}-{recipe.seed}.safetensors"
    return {name: getattr(recipe, name) for name in kept} | {"weights": weights}


def _delivered(weights: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Copy a model's weights to `folder`; returns its entry in models.json."""
    made = entry(weights, recipe)
    with atomic(folder / made["weights"]) as temporary:
        shutil.copyfile(weights, temporary)
    return made


def entry(weights: Path, recipe: Recipe) -> dict[str, Any]:
    """What models.json says of a model that `fit` has finished."""
    facts = {
        "precision": used(recipe.precision, device().type), "sha256": digest(weights),
        "origin": read_json(weights.parent / "seal.json")["origin"],
        "training": weights.parent.name.rpartition("-")[2],
    }  # fmt: skip
    return _who(recipe) | facts | {"recipe": asdict(recipe)}
