"""What a searcher sees: nearest images before and after the shift, queries picked by a rule."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lib import evaluate, retrieval, shifts
from lib.compare import label_of
from lib.figures import LABELS, framed, headline, plt
from lib.scenes import Scenes


def gallery(study: str, queries: pd.DataFrame, scenes: Scenes, loss: str, seed: int) -> list[dict]:
    """Five nearest images before and after the shift (draw 0), base and BGAugment.

    The rule that picks the queries, on the base arm: the largest drop of average precision, the
    median of the changes, and the first that does not move at all although it finds something
    (where all move, the largest gain).
    """
    models = {m.arm: m for m in evaluate.models_of(study) if (m.loss, m.seed) == (loss, seed)}
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
        _entry(evaluate.View(study, model, scenes), rule, row, condition)
        for rule, row in picks.items()
        for model in models.values()
        for condition in ("clean", "random_background")
    ]


def _entry(view: evaluate.View, rule: str, row: int, condition: str) -> dict:
    """One line of the gallery: the query, its five nearest images, and which of them are right."""
    rows, labels = view.rows, view.scenes.store.labels
    position = int(np.flatnonzero(rows == row)[0])
    vectors = view.embeddings(condition)
    near = retrieval.neighbours(
        vectors[[position]], vectors, k=5, exclude=torch.tensor([position])
    )[0][0].numpy()
    shown, size = rows[[position, *near]], view.model.image_size
    made = shifts.specimen(view.scenes, shown, [condition], size, pool_rows=rows)
    hits = labels[shown] == labels[row]
    return {
        "rule": rule, "arm": view.model.arm, "condition": condition, "images": made[condition],
        "hits": hits,
    }  # fmt: skip


def gallery_finding(found: list[dict], loss: str) -> str:
    """Hits among the neighbours shown, before and after, per arm."""
    words = []
    for arm in ("base", "bgaugment"):
        before, after = (
            sum(int(f["hits"][1:].sum()) for f in found if (f["arm"], f["condition"]) == (arm, c))
            for c in ("clean", "random_background")
        )
        words.append(f"{LABELS[arm]} {before}\u00a0→\u00a0{after}")
    shown = sum(len(f["hits"]) - 1 for f in found) // 4
    return f"{label_of(loss)}: right neighbours among {shown}, before → after: " + ", ".join(words)


def gallery_figure(found: list[dict], title: str) -> Figure:
    """Rows: rule x arm x condition; first column the query, then its five nearest images."""
    figure, axes = plt.subplots(len(found), 6, figsize=(7.5, 1.2 * len(found) + 0.6))
    for line, entry in zip(axes, found, strict=True):
        for axis, image, hit in zip(line, entry["images"], entry["hits"], strict=True):
            framed(axis, image, None if axis is line[0] else hit)
        what = "clean" if entry["condition"] == "clean" else "shifted"
        line[0].set_ylabel(f"{entry['rule']}\n{LABELS[entry['arm']]}\n{what}", fontsize=7)
    headline(figure, title)
    return figure
