"""The test images as every model embeds them under every condition, and one row a query."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of
from lib.evaluation.models import MODEL, Model
from lib.images import conditions as test_conditions
from lib.images.scenes import Scenes
from lib.models import embedding
from lib.models.embedder import Embedder
from lib.models.openvino_forward import Forward
from lib.retrieval import metrics

METRICS = list(metrics.METRICS)
CLASS = [*MODEL, "condition", "sides", "draw", "label"]  # the keys of a row of `classes`
EMBEDDING = ("images", "models")  # rooms whose code decides an embedding
SCORING = ("retrieval",)
SIDES = {"clean": ("both",), "random_background": ("both", "query", "unshared")}


@lru_cache(maxsize=1)
def loaded(model: Model) -> tuple[Embedder, Forward]:
    """The embedder of a model, ready to embed; the last is kept for the conditions that follow."""
    embedder = model.load()
    return embedder, embedding.forward_of(embedder, model.precision)


@dataclass(frozen=True)
class View:
    """The test images as one model embeds them; computed once, then read from scratch.

    A changed weight, image, mask, condition, draw or seed gives another key, nothing else does.
    """

    study: str
    model: Model
    scenes: Scenes
    seed: int = 0

    @property
    def rows(self) -> np.ndarray:
        """Rows of the store, in the order of the embeddings."""
        return self.scenes.store.rows("test")

    @property
    def labels(self) -> Tensor:
        """Label of every test image."""
        return torch.as_tensor(self.scenes.store.labels[self.rows])

    def key(self, condition: str, draw: int) -> str:
        """Name of the embeddings under a condition."""
        return key_of(
            code=fingerprint(*EMBEDDING), model=self.model.identity, data=self.scenes.fingerprint,
            rows=len(self.rows), condition=condition, draw=draw, seed=self.seed,
            size=self.model.image_size, bits=self.model.precision,
        )  # fmt: skip

    def embeddings(self, condition: str, draw: int = 0) -> Tensor:
        """Embeddings (N, D) of the test images under a condition."""

        def make() -> dict[str, Tensor]:
            embedder, forward = loaded(self.model)
            made = embedding.embed(
                embedder, self.scenes, self.rows, condition, draw=draw, seed=self.seed,
                size=self.model.image_size, forward=forward,
            )  # fmt: skip
            return {"embeddings": made}

        return kept(self.study, "embeddings", self.key(condition, draw), make)["embeddings"]

    def scores(self, condition: str, draw: int = 0, sides: str = "both") -> dict[str, Tensor]:
        """Every metric per query (N,). A query's own photograph is never in its ranking.

        `both`: queries and gallery are changed, as in the paper. `query`: changed queries search
        the clean gallery. `unshared`: both are changed, and images on the query's photograph are
        left out of its ranking; a query that would have nothing left to find keeps its `both`.
        """

        def make() -> dict[str, Tensor]:
            moved, against = self.embeddings(condition, draw), (self.labels,)
            if sides == "unshared":
                apart = metrics.evaluate_apart(moved, self.labels, self._photographs(draw))
                both = self.scores(condition, draw)
                return {
                    name: torch.where(apart["r"] > 0, apart[name], both[name]) for name in METRICS
                }
            if sides == "query":
                against += (self.embeddings("clean"), self.labels)
            own = torch.arange(len(moved)) if sides == "query" else None
            found = metrics.evaluate(moved, *against, exclude=own)
            return {name: found[name].contiguous() for name in METRICS}

        gallery = self.key("clean", 0) if sides == "query" else ""
        key = key_of(
            scoring=fingerprint(*SCORING), queries=self.key(condition, draw), gallery=gallery,
            sides=sides,
        )  # fmt: skip
        return kept(self.study, "scores", key, make)

    def _photographs(self, draw: int) -> Tensor:
        """The photograph behind every test image under random_background."""
        chosen = test_conditions.choose(self.scenes, self.rows, "test", self.seed, draw)
        return torch.as_tensor(chosen.background[self.rows])

    def table(self, condition: str, draw: int, sides: str) -> pd.DataFrame:
        """One row a query: who, under what, and the metrics."""
        values = {name: x.numpy() for name, x in self.scores(condition, draw, sides).items()}
        return pd.DataFrame({"row": self.rows, "label": self.labels.numpy()}).assign(
            loss=self.model.loss, arm=self.model.arm, seed=self.model.seed, condition=condition,
            sides=sides, draw=draw, **{name: values[name] for name in METRICS},
        )  # fmt: skip


def plan(conditions: list[str], draws: int, draws_control: int) -> list[tuple[str, int]]:
    """Pairs (condition, draw): `draws` for random_background, `draws_control` for the others."""
    if len(set(conditions)) < len(conditions):
        raise StudyError(f"the conditions are {conditions}; name each once.")
    if "clean" not in conditions:
        raise StudyError("the conditions must hold 'clean': everything is compared with it.")
    if draws < 1 or draws_control < 1:
        raise StudyError(f"draws are {draws} and {draws_control} (control); both: 1 or more.")
    count = {name: draws if name == "random_background" else draws_control for name in conditions}
    return [
        (name, draw)
        for name in conditions
        for draw in range(count[name] if test_conditions.get(name).draws else 1)
    ]


def per_query(
    study: str, model: Model, scenes: Scenes, planned: list[tuple[str, int]], seed: int = 0
) -> Iterator[pd.DataFrame]:
    """Rows of a model: one a query x condition x draw x sides (clean: both sides only)."""
    view = View(study, model, scenes, seed)
    for condition, draw in planned:
        for sides in SIDES.get(condition, ("both", "query")):
            yield view.table(condition, draw, sides)


def by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a class of one row a query: `n` queries that have anything to find, mean metrics.

    Classes in which no query has anything to find (one image alone) are left out.
    """
    known = rows.dropna(subset=METRICS)
    grouped = known.groupby(CLASS, sort=False)[METRICS]
    return grouped.mean().assign(n=grouped.size()).reset_index()
