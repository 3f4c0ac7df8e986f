"""Measure a study: every model under every condition, written as compact tables (measured.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.files import read_json, space_left, write_json, write_table
from lib.core.hardware import device
from lib.core.progress import say
from lib.core.tiles import write_tiles
from lib.data.prepare import about
from lib.evaluation import (
    embeddings,
    learning,
    mask_robustness,
    query_examples,
    uniformity,
)
from lib.evaluation.measured import Measured, name_of, read, write_compact
from lib.evaluation.models import MODEL, Model, described, trained
from lib.images.conditions import specimen
from lib.images.scenes import Scenes
from lib.masks.sources import mask_source
from lib.training import arms

PAPER = ("clean", "random_background")  # conditions of which every query is kept
# What decides a model's tables, beside its weights and the data: other code, measured again.
CODE = ("retrieval", "images", "models", "evaluation/embeddings", "evaluation/measure",
        "evaluation/learning", "evaluation/statistics")  # fmt: skip
FIRST = (*CODE, "masks", "evaluation/mask_robustness", "evaluation/query_examples")
SHOWN = 8  # test images on the sheet of conditions, and training images an arm
TILE = 112  # pixels of a small picture at most


def measure(
    study: str, conditions: list[str], draws: int, draws_control: int, mask_variants: list[str]
) -> Measured:
    """Every model under every condition; a model that is measured already is not measured again.

    Args:
        conditions: keys of lib.images.conditions; `clean` must be among them.
        draws: of random_background. draws_control: of the other conditions with chance in them.
        mask_variants: the study's masks made worse, or other mask sources (mask_robustness).
    """
    planned = embeddings.plan(conditions, draws, draws_control)
    scenes, models = Scenes(study, mask_source(study), device()), described(study)
    folder = read(study).folder
    vectors = len(planned) * len(scenes.store.rows("test")) * sum(m.embedding for m, _ in models)
    space_left(paths.StudyPaths(study).scratch / "embeddings", 4 * vectors)
    write_json(folder / "study.json", _facts(study, scenes, models[0][0]))
    history = pd.read_csv(paths.StudyPaths(study).models / "training.csv")
    write_table(folder / "training.csv", history)
    for number, (model, entry) in enumerate(models, start=1):
        say(f"{study}: model {number} of {len(models)} ({name_of(*_who(model))})")
        measure_model(study, model, entry, scenes, planned, history, folder)
    write_table(folder / "labels.csv", _labels(scenes))
    _sweep(folder, {name_of(*_who(model)) for model, _ in models})
    made, file = _of_the_first_loss(study, scenes, conditions, mask_variants), folder / "first.json"
    if not file.exists() or read_json(file) != made:
        file.unlink(missing_ok=True)
        _pictures(study, scenes, conditions, folder)
        table = mask_robustness.sensitivity(study, mask_variants)
        write_compact(folder / "mask_robustness.parquet", table, exact=embeddings.METRICS)
        write_json(file, made)
    return read(study)


def _of_the_first_loss(
    study: str, scenes: Scenes, conditions: list[str], mask_variants: list[str]
) -> dict[str, Any]:
    """first.json: what decides small pictures and mask_robustness.parquet, made of one loss."""
    models = {name_of(*_who(m)): m.identity for m in mask_robustness.first_loss(study)}
    return {
        "models": models, "data": scenes.fingerprint, "conditions": conditions,
        "masks": mask_robustness.names(study, mask_variants), "code": fingerprint(*FIRST),
    }  # fmt: skip


def _who(model: Model) -> tuple[str, str, int]:
    return model.loss, model.arm, model.seed


def _facts(study: str, scenes: Scenes, trunk: Model) -> dict[str, Any]:
    """study.json: what a page must know of the data and of what was trained."""
    data, test = about(study), scenes.store.rows("test")
    images = {split: len(scenes.store.rows(split)) for split in ("train", "validation", "test")}
    return {
        "dataset": data["dataset"], "note": data["note"], "masks": mask_source(study),
        "data": scenes.fingerprint, "images": images, "classes": _classes(scenes),
        "usable": float(scenes.usable[test].mean()), "image_size": trunk.image_size,
        "trunk": trunk.trunk, **trained(study),
    }  # fmt: skip


def _classes(scenes: Scenes) -> dict[str, int]:
    index = scenes.store.index
    return {split: int(labels.nunique()) for split, labels in index.groupby("split")["label"]}


def measure_model(
    study: str,
    model: Model,
    entry: dict[str, Any],
    scenes: Scenes,
    planned: list[tuple[str, int]],
    history: pd.DataFrame,
    folder: Path,
) -> None:
    """Measure one model and write its files; its manifest last, as the sign that it is done."""
    name = name_of(*_who(model))
    made = {
        "loss": model.loss, "arm": model.arm, "seed": model.seed, "model": model.identity,
        "data": scenes.fingerprint, "planned": [list(pair) for pair in planned],
        "code": fingerprint(*CODE), "precision": model.precision,
    }  # fmt: skip
    made |= {key: entry[key] for key in ("recipe", "origin", "training") if key in entry}
    file = folder / "models" / f"{name}.json"
    if file.exists() and read_json(file) == made:
        return
    file.unlink(missing_ok=True)
    rows = [table for table in embeddings.per_query(study, model, scenes, planned)]
    classes = pd.concat([embeddings.by_class(table) for table in rows], ignore_index=True)
    write_compact(folder / "classes" / f"{name}.parquet", classes, exact=embeddings.METRICS)
    queries = pd.concat([t for t in rows if t["condition"].iloc[0] in PAPER], ignore_index=True)
    half = ("map_at_r", "p_at_1")
    write_compact(folder / "queries" / f"{name}.parquet", queries.drop(columns="r_precision"), half)
    if model.weights:
        who = (history[key] == value for key, value in zip(MODEL, _who(model), strict=True))
        own = history[np.logical_and.reduce(list(who))]
        found = learning.gain(study, model, scenes, own, entry["recipe"]["patience"])
        write_json(folder / "learning" / f"{name}.json", found)
    write_json(file, made)


def _labels(scenes: Scenes) -> pd.DataFrame:
    """The test classes, and how alike the backgrounds of each are."""
    rows = scenes.store.rows("test")
    colours = uniformity.background_colours(scenes, rows)
    alike = uniformity.class_uniformity(colours, scenes.store.labels[rows])
    names = scenes.store.index.drop_duplicates("label")[["label", "class_name"]]
    return alike.merge(names, on="label")


def _sweep(folder: Path, names: set[str]) -> None:
    """Remove the files of models that the study no longer has."""
    for kind in ("models", "classes", "queries", "learning"):
        for file in (folder / kind).glob("*.*"):
            if file.stem not in names:
                file.unlink()


def _pictures(study: str, scenes: Scenes, conditions: list[str], folder: Path) -> None:
    """The sheets of small pictures: conditions, training images, neighbours, gallery."""
    models = [model for model, _ in described(study)]
    first = mask_robustness.first_loss(study)
    size, rows = models[0].image_size, scenes.store.rows("test")
    tile = min(TILE, size)
    eight = rows[:: max(1, len(rows) // SHOWN)][:SHOWN]
    made = specimen(scenes, eight, conditions, tile, pool_rows=rows)
    table = [[name, row] for name in conditions for row in eight]
    pictures = [picture for name in conditions for picture in made[name]]
    write_tiles(folder / "conditions", pictures, pd.DataFrame(table, columns=["condition", "row"]))
    _seen(scenes, [model.arm for model in first], tile, folder)
    queries = read(study).queries
    lines = query_examples.neighbours(study, first, scenes)
    query_examples.write(folder / "neighbours", lines, tile)
    query_examples.write(
        folder / "gallery", query_examples.gallery(study, first, queries, scenes), tile
    )


def _seen(scenes: Scenes, names: list[str], size: int, folder: Path) -> None:
    """Training images as every arm sees them: the same crops of the same images."""
    pool = scenes.store.rows("train")
    rows = np.random.default_rng(0).choice(pool, min(2 * SHOWN, len(pool)), replace=False)
    pictures, table = [], []
    for name in names:
        batch = scenes.training(rows, size, np.random.default_rng(1))
        made = arms.get(name).view(batch).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        pictures += list(made)
        table += [[name, row] for row in rows]
    write_tiles(folder / "seen", pictures, pd.DataFrame(table, columns=["arm", "row"]))
