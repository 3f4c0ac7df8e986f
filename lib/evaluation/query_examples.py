"""What a searcher sees: nearest images before and after the shift, queries picked by a rule."""

import numpy as np
import pandas as pd
import torch

from lib.evaluation import embeddings
from lib.evaluation import models as trained_models
from lib.images import conditions
from lib.images.scenes import Scenes
from lib.retrieval import search


def gallery(study: str, queries: pd.DataFrame, scenes: Scenes, loss: str, seed: int) -> list[dict]:
    """Five nearest images before and after the shift (draw 0), base and BGAugment.

    The rule that picks the queries, on the base arm: the largest drop of average precision, the
    median of the changes, and the first that does not move at all although it finds something
    (where all move, the largest gain).
    """
    models = {m.arm: m for m in trained_models.models_of(study) if (m.loss, m.seed) == (loss, seed)}
    part = queries[
        (queries["loss"] == loss) & (queries["seed"] == seed) & (queries["arm"] == "base")
    ]
    part = part[(part["sides"] == "both") & (part["draw"] == 0)]
    wide = part.pivot(index="row", columns="condition", values="map_at_r")
    change = (wide["random_background"] - wide["clean"]).sort_values(kind="stable")
    picks = {"largest drop": change.index[0], "median": change.index[len(change) // 2]}
    unmoved = change[(change.abs() < 1e-9) & (wide["clean"].loc[change.index] > 0)]
    picks["no drop"] = unmoved.index[0] if len(unmoved) else change.index[-1]
    return [
        _entry(embeddings.View(study, model, scenes), rule, row, condition)
        for rule, row in picks.items()
        for model in models.values()
        for condition in ("clean", "random_background")
    ]


def _entry(view: embeddings.View, rule: str, row: int, condition: str) -> dict:
    """One line of the gallery: the query, its five nearest images, and which of them are right."""
    rows, labels = view.rows, view.scenes.store.labels
    position = int(np.flatnonzero(rows == row)[0])
    vectors = view.embeddings(condition)
    near = search.neighbours(vectors[[position]], vectors, k=5, exclude=torch.tensor([position]))[
        0
    ][0].numpy()
    shown, size = rows[[position, *near]], view.model.image_size
    made = conditions.specimen(view.scenes, shown, [condition], size, pool_rows=rows)
    hits = labels[shown] == labels[row]
    return {
        "rule": rule, "arm": view.model.arm, "condition": condition, "images": made[condition],
        "hits": hits,
    }  # fmt: skip
