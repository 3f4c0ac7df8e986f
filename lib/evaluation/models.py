"""The models of a study: who they are, where their weights lie, how they are loaded."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import digest, read_json, sealed
from lib.models import embedder
from lib.models.embedder import Embedder
from lib.training import arms
from lib.training import study as training

MODEL = ["loss", "arm", "seed"]


@dataclass(frozen=True)
class Model:
    """A model to evaluate: who it is, and its weights (None: the untrained trunk)."""

    loss: str
    arm: str
    seed: int
    trunk: str
    embedding: int
    image_size: int
    precision: str
    weights: Path | None
    sha256: str = ""  # of the weights; they may lie on the machine that measured them, not here

    @property
    def identity(self) -> str:
        """Equal for equal weights."""
        if not self.weights:
            return f"untrained {self.trunk}"
        return self.sha256 or digest(self.weights)

    def load(self) -> Embedder:
        """The embedder, ready to embed."""
        if self.weights is None:
            model = Embedder(self.trunk, 0).to(hardware.device(), memory_format=torch.channels_last)
            return model.eval()
        if not self.weights.exists():
            raise StudyError(
                f"{self.weights} is needed and not here: the model was measured on another machine "
                "(KEEP_MEASURED=1). Run again without KEEP_MEASURED to train it here, or go back "
                "to the code and parameters that it was measured with."
            )
        return embedder.trained(self.weights, self.trunk, self.embedding)


def models_of(study: str) -> list[Model]:
    """All trained models of a study, the untrained trunk first; damaged weights are refused."""
    return [model for model, _ in described(study)]


def trained(study: str) -> dict[str, list]:
    """The losses, arms and seeds that were trained, each in the study's order."""
    file = paths.StudyPaths(study).models / "trained.json"
    if not file.exists():
        raise StudyError(
            f"no trained models in {file.parent}. Train study {study} first: 03_train."
        )
    return read_json(file)


def described(study: str) -> list[tuple[Model, dict[str, Any]]]:
    """`models_of`, each with the rest of its entry in models.json (recipe, origin, sha256)."""
    folder, found = paths.StudyPaths(study).models, []
    for loss in trained(study)["losses"]:
        for entry in read_json(folder / loss / "models.json"):
            weights = folder / loss / entry["weights"]
            if not entry.get("measured_before"):
                sealed([weights], entry["sha256"], f"Train study {study} again: `make repro`.")
            who = {field.name: entry[field.name] for field in fields(Model)}
            who["weights"] = weights
            found.append((Model(**who), entry))
    first = found[0][0]
    same = (first.trunk, 0, first.image_size, first.precision)
    trunk = Model("none", arms.UNTRAINED, 0, *same, weights=None)
    return [(trunk, {"trunk": trunk.trunk, "precision": trunk.precision}), *found]


def histories(
    study: str, losses: list[str], arms: list[str], seeds: list[int], **settings: Any
) -> pd.DataFrame:
    """The training histories of a study's models (lib.training.study.measure).

    Read from the tables in git where these very recipes were trained and measured; else trained
    here, for which images and masks are needed.
    """
    folder = paths.StudyPaths(study).measured / "evaluation"
    if (folder / "study.json").exists():
        dataset, given = read_json(folder / "study.json")["dataset"], dict(settings)
        made = training.recipes(dataset, losses, arms, seeds, given.pop("lr_loss"), **given)
        files = [folder / "models" / f"{recipe.name}.json" for recipe in made]
        kept = [read_json(file).get("recipe") if file.exists() else None for file in files]
        if kept == [json.loads(json.dumps(asdict(recipe))) for recipe in made]:
            table = pd.read_csv(folder / "training.csv")
            asked = pd.DataFrame([[r.loss, r.arm, r.seed] for r in made], columns=MODEL)
            return asked.merge(table, on=MODEL)[table.columns]
    return training.measure(study, losses, arms, seeds, **settings)
