"""What a searcher sees: nearest test images of a few queries, kept as small pictures.

Two sheets: `gallery` (before and after the background is changed) and `neighbours` (before and
after training). Queries are picked by a rule or drawn, never by hand.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from lib.core.tiles import write_tiles
from lib.evaluation.embeddings import View
from lib.evaluation.learning import untrained
from lib.evaluation.models import Model
from lib.images import conditions
from lib.images.scenes import Scenes
from lib.retrieval import search

NEAREST = 5
SHIFTED = "random_background"
Line = tuple[dict, View, str, int]  # what a line is called; model, condition and query it shows


def picked(queries: pd.DataFrame) -> dict[str, int]:
    """Rows of three queries of a model: largest drop of average precision, median, no drop.

    The last is the first that does not move at all although it finds something; where all move, the
    one that gains most. `queries` are both conditions of one model, both sides, one draw. Where the
    random background was not measured: lowest, median and highest clean average precision.
    """
    wide = queries.pivot(index="row", columns="condition", values="map_at_r")
    if SHIFTED not in wide:
        order = wide["clean"].dropna().sort_values(kind="stable").index
        return {"lowest": order[0], "median": order[len(order) // 2], "highest": order[-1]}
    change = (wide[SHIFTED] - wide["clean"]).dropna().sort_values(kind="stable")
    unmoved = change[(change.abs() < 1e-9) & (wide["clean"].loc[change.index] > 0)]
    still = unmoved.index[0] if len(unmoved) else change.index[-1]
    middle = change.index[len(change) // 2]
    return {"largest drop": change.index[0], "median": middle, "no drop": still}


def gallery(study: str, models: list[Model], queries: pd.DataFrame, scenes: Scenes) -> list[Line]:
    """Lines of the sheet: the queries picked on the first of `models` (the arms of a loss)."""
    first = models[0]
    mine = queries[(queries["loss"] == first.loss) & (queries["seed"] == first.seed)]
    mine = mine[(mine["arm"] == first.arm) & (mine["sides"] == "both") & (mine["draw"] == 0)]
    return [
        ({"rule": rule, "condition": condition}, View(study, model, scenes), condition, int(row))
        for rule, row in picked(mine).items()
        for model in models
        for condition in ("clean", SHIFTED)
        if condition in set(mine["condition"])
    ]


def neighbours(study: str, models: list[Model], scenes: Scenes, count: int = 3) -> list[Line]:
    """Lines of the sheet: `count` drawn queries before training and under each of `models`."""
    rows = scenes.store.rows("test")
    drawn = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    return [
        ({"rule": f"query {number}", "condition": "clean"}, View(study, m, scenes), "clean", row)
        for number, row in enumerate(drawn.tolist(), start=1)
        for m in [untrained(models[0]), *models]
    ]


def write(path, lines: list[Line], size: int) -> None:
    """Write a sheet: of each line the query, then its nearest images, at `size` pixels.

    Its table has a row an image: rule, arm, loss, seed, condition, place (0: the query), right (of
    the query's class), label.
    """
    pictures, rows = [], []
    for line in lines:
        for picture, row in _shown(*line, size):
            pictures.append(picture)
            rows.append(row)
    write_tiles(path, pictures, pd.DataFrame(rows))


def _shown(told: dict, view: View, condition: str, row: int, size: int) -> Iterator[tuple]:
    rows, labels = view.rows, view.scenes.store.labels
    at = int(np.flatnonzero(rows == row)[0])
    vectors = view.embeddings(condition)
    most = min(NEAREST, len(rows) - 1)
    found = search.neighbours(vectors[[at]], vectors, k=most, exclude=torch.tensor([at]))
    shown = rows[[at, *found[0][0].tolist()]]
    made = conditions.specimen(view.scenes, shown, [condition], size, pool_rows=rows)[condition]
    names = {"loss": view.model.loss, "arm": view.model.arm, "seed": view.model.seed}
    for place, (picture, image) in enumerate(zip(made, shown, strict=True)):
        right = bool(labels[image] == labels[row])
        yield picture, {**told, **names, "place": place, "right": right, "label": labels[image]}
