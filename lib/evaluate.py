"""04_shift: every model under every condition, one row a query, then the summary tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import paths, retrieval, shifts, stats, train
from lib.embedder import Embedder
from lib.errors import StudyError
from lib.files import digest, key_of, read_json, sealed, space_left
from lib.keep import kept
from lib.progress import say
from lib.scenes import Scenes

VERSION = 1  # raise when the making of test images changes: cached embeddings are then ignored
MODEL = ["loss", "arm", "seed"]
METRICS = list(retrieval.METRICS)
SCORING = 1  # raise when the metrics change: cached scores are then ignored
FLIPS = 99_999  # sign patterns: the least p-value, times the tests of a grid, stays below 0.05


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

    @property
    def identity(self) -> str:
        """Equal for equal weights."""
        return digest(self.weights) if self.weights else f"untrained {self.trunk}"

    def load(self) -> Embedder:
        """The embedder, ready to embed."""
        if self.weights is None:
            model = Embedder(self.trunk, 0).to(train.device(), memory_format=torch.channels_last)
            return model.eval()
        return train.trained(self.weights, self.trunk, self.embedding)


def models_of(study: str) -> list[Model]:
    """All trained models of a study, the untrained trunk first; damaged weights are refused."""
    folder = paths.StudyPaths(study).models
    files = sorted(folder.glob("*/models.json"))
    if not files:
        raise StudyError(f"no trained models in {folder}. Run 03_train for study {study} first.")
    found = []
    for file in files:
        for entry in read_json(file):
            weights, sha256 = file.parent / entry.pop("weights"), entry.pop("sha256", None)
            if sha256:  # models of earlier versions carry no checksum
                sealed([weights], sha256, f"Run 03_train for study {study} and {entry['loss']}.")
            found.append(Model(**entry, weights=weights))
    first = found[0]
    same = (first.trunk, 0, first.image_size, first.precision)
    return [Model("none", "untrained", 0, *same, weights=None), *found]


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
            made = shifts.embed(
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
            found = retrieval.evaluate(moved, *against, exclude=own)
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
        for draw in range(count[name] if shifts.get(name).draws else 1)
    ]


def per_query(
    study: str, conditions: list[str], draws: int, draws_control: int, seed: int
) -> Iterator[pd.DataFrame]:
    """Rows of every model: one a query x condition x draw x sides (clean: both sides only)."""
    models, planned = models_of(study), plan(conditions, draws, draws_control)
    scenes = Scenes(study, mask_source(study), train.device())
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


def mask_source(study: str) -> str:
    """The mask source that 02_masks made last for the study."""
    file = paths.StudyPaths(study).masks / "source.json"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 02_masks for study {study} first.")
    return read_json(file)["source"]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric per model x condition x sides x draw, 95 % interval over classes."""
    out = []
    keys = [*MODEL, "condition", "sides", "draw"]
    for names, part in rows.groupby(keys, sort=False):
        for metric in METRICS:
            found = stats.mean_by_class_bootstrap(part[metric].to_numpy(), part["label"].to_numpy())
            out.append([*names, metric, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, "metric", "value", "low", "high", "n"])


def over_draws(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a query: the mean over draws, wide over condition and sides."""
    keys = [*MODEL, "condition", "sides", "row", "label"]
    return rows.groupby(keys, sort=False)[METRICS].mean().reset_index()


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired differences with 95 % intervals over classes and a sign-flip p (Holm-adjusted).

    `contrast` is shifted-clean (same model), bgaugment-base (same loss, seed, condition) or
    same-other (same model; the BG-gap of the pairs in lib.shifts.GAPS, named by its first).
    Holm's family is the grid of one contrast and metric: all models, conditions and sides.
    """
    keys = [*MODEL, "condition", "sides"]
    wide = over_draws(rows).pivot(index=["label", "row"], columns=keys, values=METRICS)
    classes, out = wide.index.get_level_values("label").to_numpy(), []
    for metric in METRICS:
        level = wide[metric]
        pairs = contrasts(list(level.columns))
        if not pairs:
            continue
        moved = np.stack([level[a].to_numpy() - level[b].to_numpy() for _, a, b in pairs], axis=1)
        p = stats.sign_flips(moved, classes, flips=FLIPS)
        for (contrast, name, _), values, chance in zip(pairs, moved.T, p, strict=True):
            found = stats.mean_by_class_bootstrap(values, classes)
            numbers = [found.mean, found.low, found.high, chance, found.n]
            out.append([contrast, *name, metric, *numbers])
    columns = ["contrast", *keys, "metric", "value", "low", "high", "p", "n"]
    table = pd.DataFrame(out, columns=columns)
    family = table.groupby(["contrast", "metric"])["p"]
    table["p_holm"] = family.transform(lambda p: stats.holm(p.to_numpy()))
    return table


def contrasts(levels: list[tuple]) -> list[tuple[str, tuple, tuple]]:
    """All (contrast, a, b) with a - b to be tested, among (loss, arm, seed, condition, sides)."""
    other_place = dict(shifts.GAPS.values())
    found: dict[str, list] = {"shifted-clean": [], "bgaugment-base": [], "same-other": []}
    for loss, arm, seed, condition, sides in levels:
        level, model = (loss, arm, seed, condition, sides), (loss, arm, seed)
        found["shifted-clean"].append((level, (*model, "clean", "both")))
        found["same-other"].append((level, (*model, other_place.get(condition), sides)))
        if arm == "bgaugment":
            found["bgaugment-base"].append((level, (loss, "base", seed, condition, sides)))
    return [
        (name, a, b) for name, pairs in found.items() for a, b in pairs if b in levels and a != b
    ]


def intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """The same mean with a 95 % interval for each thing that could have come out otherwise.

    `covers` names it: `classes` (bootstrap by class; other classes with their images), `draws`
    (t; other backgrounds on these images), `seeds` (t; other trainings; `seed` is then "all").
    `n` is how many of them there were; the ends are missing where one is too few.
    """
    out, setting = [], ["condition", "sides"]
    for names, part in rows.groupby([*MODEL, *setting], sort=False):
        for metric in METRICS:
            query = part.groupby(["row", "label"])[metric].mean().dropna()
            label = query.index.get_level_values("label")
            found = stats.mean_by_class_bootstrap(query, label)
            numbers = [found.mean, found.low, found.high, label.nunique()]
            out.append([*names, metric, "classes", *numbers])
            out.append([*names, metric, "draws", *_repeated(part, "draw", metric)])
    for (loss, arm, *names), part in rows.groupby([*MODEL[:2], *setting], sort=False):
        for metric in METRICS:
            numbers = _repeated(part, "seed", metric)
            out.append([loss, arm, "all", *names, metric, "seeds", *numbers])
    columns = [*MODEL, *setting, "metric", "covers", "value", "low", "high", "n"]
    return pd.DataFrame(out, columns=columns)


def _repeated(part: pd.DataFrame, what: str, metric: str) -> list[float]:
    """Mean, low, high and number of repetitions (`what` is draw or seed)."""
    found = stats.over_draws(part.groupby(what)[metric].mean())
    return [found.mean, found.low, found.high, found.n]


def seeds_say(rows: pd.DataFrame) -> str:
    """A sentence on what the study knows about other trainings."""
    count = rows[rows["arm"] != "untrained"].groupby("loss")["seed"].nunique()
    if count.max() == 1:
        return "One seed was trained: there is no interval over seeds."
    return f"Intervals over seeds are from {count.min()} to {count.max()} trainings a loss."


def class_losses(rows: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Mean MAP@R per model and class, clean and under a condition (both sides), worst change first.

    `n` is the number of queries that have anything to find.
    """
    mean = over_draws(
        rows[(rows["sides"] == "both") & rows["condition"].isin(["clean", condition])]
    )
    grouped = mean.groupby([*MODEL, "label", "condition"])["map_at_r"]
    wide = grouped.mean().unstack("condition")
    wide["change"] = wide[condition] - wide["clean"]
    wide["n"] = grouped.count().unstack("condition")["clean"]
    return wide.reset_index().sort_values("change", kind="stable", ignore_index=True)


def worst_classes(classes: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Per model its class with the lowest MAP@R, clean and under a condition.

    `classes` as `class_losses` gives them, with `class_name`.
    """
    found = []
    for names, part in classes.groupby(MODEL, sort=False):
        worst = [(part.loc[part[level].idxmin()], level) for level in ("clean", condition)]
        values = [value for row, level in worst for value in (row["class_name"], row[level])]
        found.append([*names, *values])
    columns = ["clean: worst class", "clean ↑", "shifted: worst class", "shifted ↑"]
    return pd.DataFrame(found, columns=[*MODEL, *columns]).sort_values(MODEL, ignore_index=True)
