"""04_shift: every model under every condition, one row a query, then the summary tables."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core import hardware, paths
from lib.core.cache import kept
from lib.core.errors import StudyError
from lib.core.files import key_of, space_left
from lib.core.progress import say
from lib.evaluation.models import Model, models_of
from lib.images import conditions as test_conditions
from lib.images.scenes import Scenes
from lib.masks.sources import mask_source
from lib.models import embedding
from lib.retrieval import metrics

VERSION = 1  # raise when the making of test images changes: cached embeddings are then ignored
METRICS = list(metrics.METRICS)
SCORING = 1  # raise when the metrics change: cached scores are then ignored


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
            version=VERSION, model=self.model.identity, data=self.scenes.fingerprint,
            rows=len(self.rows), condition=condition, draw=draw, seed=self.seed,
            size=self.model.image_size, bits=self.model.precision,
        )  # fmt: skip

    def embeddings(self, condition: str, draw: int = 0) -> Tensor:
        """Embeddings (N, D) of the test images under a condition."""

        def make() -> dict[str, Tensor]:
            made = embedding.embed(
                self.model.load(), self.scenes, self.rows, condition, draw=draw, seed=self.seed,
                size=self.model.image_size, precision=self.model.precision,
            )  # fmt: skip
            return {"embeddings": made}

        return kept(self.study, "embeddings", self.key(condition, draw), make)["embeddings"]

    def scores(self, condition: str, draw: int = 0, sides: str = "both") -> dict[str, Tensor]:
        """Every metric per query (N,). A query's own photograph is never in its ranking.

        `both`: queries and gallery are changed, as in the paper. `query`: changed queries search
        the clean gallery.
        """

        def make() -> dict[str, Tensor]:
            moved, against = self.embeddings(condition, draw), (self.labels,)
            if sides == "query":
                against += (self.embeddings("clean"), self.labels)
            own = torch.arange(len(moved)) if sides == "query" else None
            found = metrics.evaluate(moved, *against, exclude=own)
            return {name: found[name].contiguous() for name in METRICS}

        gallery = self.key("clean", 0) if sides == "query" else ""
        key = key_of(scoring=SCORING, queries=self.key(condition, draw), gallery=gallery)
        return kept(self.study, "scores", key, make)

    def table(self, condition: str, draw: int, sides: str) -> pd.DataFrame:
        """One row a query: who, under what, and the metrics."""
        values = {name: x.numpy() for name, x in self.scores(condition, draw, sides).items()}
        return pd.DataFrame({"row": self.rows, "label": self.labels.numpy()}).assign(
            loss=self.model.loss, arm=self.model.arm, seed=self.model.seed, condition=condition,
            sides=sides, draw=draw, **{name: values[name] for name in METRICS},
        )  # fmt: skip


def plan(conditions: list[str], draws: int, draws_control: int) -> list[tuple[str, int]]:
    """Pairs (condition, draw): `draws` for random_background, `draws_control` for the others."""
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
    study: str, conditions: list[str], draws: int, draws_control: int, seed: int
) -> Iterator[pd.DataFrame]:
    """Rows of every model: one a query x condition x draw x sides (clean: both sides only)."""
    models, planned = models_of(study), plan(conditions, draws, draws_control)
    scenes = Scenes(study, mask_source(study), hardware.device())
    vectors = len(planned) * len(scenes.store.rows("test")) * sum(m.embedding for m in models)
    space_left(paths.StudyPaths(study).scratch / "embeddings", 4 * vectors)
    for number, model in enumerate(models, start=1):
        name = f"{model.loss} {model.arm} seed {model.seed}"
        say(f"{study}: model {number} of {len(models)} ({name})")
        view = View(study, model, scenes, seed)
        for condition, draw in planned:
            for sides in ("both",) if condition == "clean" else ("both", "query"):
                yield view.table(condition, draw, sides)


def queries(study: str) -> pd.DataFrame:
    """The rows that 04_shift wrote, one a query (`per_query`)."""
    file = paths.StudyPaths(study).shift / "per_query.parquet"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 04_shift for study {study} first.")
    return pd.read_parquet(file)
