"""A study again with another seed: trained, measured, and kept as small tables beside the first.

The tables are in git under `reports/repeats/<study>/`, so that seeds can be added one by one, on
any machine. Whoever reads a study's table of models through `joined` has all seeds.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from lib import compare, evaluate, paths, stats, train
from lib.errors import StudyError
from lib.figures import LABELS
from lib.files import write_table
from lib.precision import used
from lib.prepare import about
from lib.progress import say
from lib.rounding import rounded
from lib.scenes import Scenes

CONDITIONS = ["clean", "random_background"]  # the paper's; only these are measured again
TABLES = ("retrieval", "effects", "training")


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
        processor used (lib/precision.py), which may be another than the study's.

    Raises:
        StudyError: the study itself has this seed.
    """
    recipe = {key: value for key, value in settings.items() if key not in ("seeds", "p")}
    if seed in settings["seeds"]:
        raise StudyError(f"study {study} itself has seed {seed}. Choose another one.")
    name, dataset = models_name(study, seed), about(study)["dataset"]
    parts = [
        train.train_study(name, loss, [seed], settings["p"], scenes, dataset=dataset, **recipe)
        for loss in losses
    ]
    bits = used(settings["precision"], train.device().type)
    told = {"study": study, "dataset": dataset, "precision": bits}
    return pd.concat(parts, ignore_index=True).assign(**told)


def learned(history: pd.DataFrame) -> pd.DataFrame:
    """Validation MAP@R in percent on the condition that picks the epoch: at the start, and kept."""
    chosen = history[history["condition"] == history["arm"].map(train.selection)]
    chosen = chosen.assign(map_at_r=100 * chosen["map_at_r"]).set_index(["loss", "arm"])
    start = chosen.loc[chosen["epoch"] == 0, "map_at_r"].rename("start")
    kept = chosen.loc[chosen["epoch"] == chosen["best"], ["map_at_r", "epoch"]]
    return kept.rename(columns={"map_at_r": "kept"}).join(start)[["start", "kept", "epoch"]]


def measure(study: str, seed: int, draws: int, scenes: Scenes) -> pd.DataFrame:
    """One row a query, model, condition, draw and sides, as in `evaluate.per_query`."""
    name, parts = models_name(study, seed), []
    models = [model for model in evaluate.models_of(name) if model.weights]
    for number, model in enumerate(models, start=1):
        say(f"{name}: model {number} of {len(models)} ({model.loss} {model.arm})")
        view = evaluate.View(name, model, scenes)
        for condition, draw in evaluate.plan(CONDITIONS, draws, 1):
            for sides in ("both",) if condition == "clean" else ("both", "query"):
                parts.append(view.table(condition, draw, sides))
    return pd.concat(parts, ignore_index=True)


def write(study: str, seed: int, rows: pd.DataFrame, history: pd.DataFrame) -> None:
    """Write the tables of a repeat: retrieval, effects (Holm within the repeat), training."""
    told = {"study": study, "dataset": about(study)["dataset"]}
    made = {"retrieval": evaluate.summary(rows), "effects": evaluate.effects(rows)}
    made["training"] = history
    for table in TABLES:
        file = folder_of(paths.StudyPaths(study).reports) / f"{table}_{seed}.csv"
        write_table(file, made[table].assign(**told))


def by_seed(effects: pd.DataFrame) -> pd.DataFrame:
    """Change of MAP@R in points under a new background, mean over losses: a row a seed, an arm
    a column, and the gain of BGAugment over base under the new background."""
    down = compare.select(effects, "shifted-clean", "random_background", "both")
    up = compare.select(effects, "bgaugment-base", "random_background", "both")
    both = pd.concat([down, up.assign(arm="gain")])
    wide = 100 * both.pivot_table(index="seed", columns="arm", values="value", aggfunc="mean")
    return wide[["base", "bgaugment", "gain"]]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each column of `by_seed` with its 95 % t interval over seeds (none for one)."""
    found = {column: stats.over_draws(values) for column, values in table.items()}
    rows = {name: [x.mean, x.low, x.high, x.n] for name, x in found.items()}
    return pd.DataFrame(rows, index=["mean", "low", "high", "seeds"]).T


def finding(table: pd.DataFrame, seed: int) -> str:
    """What the seed says, beside the mean of the others."""
    others = table.drop(index=seed).mean()
    words = [
        f"{LABELS[arm]} {-table[arm][seed]:.1f} points of MAP@R (other seeds: {-others[arm]:.1f})"
        for arm in ("base", "bgaugment")
    ]
    return f"Trained again with seed {seed}, a new background costs {', '.join(words)}"


def seeds_finding(table: pd.DataFrame) -> str:
    """How far the seeds lie apart (`by_seed`), in words."""
    names = {arm: f"change of {LABELS[arm]}" for arm in ("base", "bgaugment")}
    names["gain"] = "gain of BGAugment over base"
    words = []
    for name, values in table.items():
        low, high = (rounded(end, sign="+") for end in (values.min(), values.max()))
        words.append(f"{names[name]} {low}" + ("" if low == high else f" to {high}"))
    return f"Over {len(table)} seeds, points of MAP@R under a new background: {', '.join(words)}."
