"""A study again with another seed: trained, measured, and kept as small tables beside the first.

The tables are in git under `reports/repeats/<study>/`, so that seeds can be added one by one, on
any machine. Whoever reads a study's table of models through `joined` has all seeds.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import write_table
from lib.core.hardware import used
from lib.core.progress import say
from lib.data.prepare import about
from lib.evaluation import effects, embeddings
from lib.evaluation import models as trained_models
from lib.images.scenes import Scenes
from lib.training import arms, trainer

TABLES = ("retrieval", "effects", "training")
CONDITIONS = ["clean", "random_background"]  # the paper's; only these are measured again


def folder_of(folder: Path) -> Path:
    """Where the repeats of the study in `folder` (reports/<study>) are kept."""
    return folder.parent / "repeats" / folder.name


def files_of(folder: Path, table: str) -> list[Path]:
    """The file of a table of the study in `folder`, then those of its repeats."""
    return [folder / f"{table}.csv", *sorted(folder_of(folder).glob(f"{table}_*.csv"))]


def joined(folder: Path, table: str) -> pd.DataFrame:
    """A table of the study in `folder`, with the rows of its repeats below it."""
    return pd.concat(map(pd.read_csv, files_of(folder, table)), ignore_index=True)


def models_name(study: str, seed: int) -> str:
    """The folder name, below data/models and data/scratch, of the models of a repeat."""
    return f"{study}-seed-{seed}"


def train_again(
    study: str, seed: int, losses: list[str], scenes: Scenes, settings: dict[str, Any]
) -> pd.DataFrame:
    """Train both arms of every loss with `seed`; `settings` is the study's train section.

    Returns:
        The histories: one row a loss, arm, epoch and condition; `precision` is what this
        processor used (lib/core/hardware.py), which may be another than the study's.

    Raises:
        StudyError: the study itself has this seed.
    """
    recipe = {key: value for key, value in settings.items() if key not in ("seeds", "p")}
    if seed in settings["seeds"]:
        raise StudyError(f"study {study} itself has seed {seed}. Choose another one.")
    name, dataset = models_name(study, seed), about(study)["dataset"]
    parts = [
        trainer.train_study(name, loss, [seed], settings["p"], scenes, dataset=dataset, **recipe)
        for loss in losses
    ]
    bits = used(settings["precision"], hardware.device().type)
    told = {"study": study, "dataset": dataset, "precision": bits}
    return pd.concat(parts, ignore_index=True).assign(**told)


def learned(history: pd.DataFrame) -> pd.DataFrame:
    """Validation MAP@R in percent on the condition that picks the epoch: at the start, and kept."""
    chosen = history[history["condition"] == history["arm"].map(arms.selection)]
    chosen = chosen.assign(map_at_r=100 * chosen["map_at_r"]).set_index(["loss", "arm"])
    start = chosen.loc[chosen["epoch"] == 0, "map_at_r"].rename("start")
    kept = chosen.loc[chosen["epoch"] == chosen["best"], ["map_at_r", "epoch"]]
    return kept.rename(columns={"map_at_r": "kept"}).join(start)[["start", "kept", "epoch"]]


def measure(study: str, seed: int, draws: int, scenes: Scenes) -> pd.DataFrame:
    """One row a query, model, condition, draw and sides, as in `evaluate.per_query`."""
    name, parts = models_name(study, seed), []
    models = [model for model in trained_models.models_of(name) if model.weights]
    for number, model in enumerate(models, start=1):
        say(f"{name}: model {number} of {len(models)} ({model.loss} {model.arm})")
        view = embeddings.View(name, model, scenes)
        for condition, draw in embeddings.plan(CONDITIONS, draws, 1):
            for sides in ("both",) if condition == "clean" else ("both", "query"):
                parts.append(view.table(condition, draw, sides))
    return pd.concat(parts, ignore_index=True)


def write(study: str, seed: int, rows: pd.DataFrame, history: pd.DataFrame) -> None:
    """Write the tables of a repeat: retrieval, effects (Holm within the repeat), training."""
    told = {"study": study, "dataset": about(study)["dataset"]}
    made = {"retrieval": effects.summary(rows), "effects": effects.effects(rows)}
    made["training"] = history
    for table in TABLES:
        file = folder_of(paths.StudyPaths(study).reports) / f"{table}_{seed}.csv"
        write_table(file, made[table].assign(**told))
