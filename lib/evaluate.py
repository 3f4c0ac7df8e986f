"""04_shift: every model under every condition, one row a query, then the summary tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib import paths, retrieval, shifts, stats, train
from lib.embedder import Embedder
from lib.errors import StudyError
from lib.files import atomic, digest, key_of, read_json
from lib.progress import say
from lib.scenes import Scenes

VERSION = 1  # raise when the making of test images changes: cached embeddings are then ignored
MODEL = ["loss", "arm", "seed"]
METRICS = list(retrieval.METRICS)


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
    """All trained models of a study, the untrained trunk first."""
    folder = paths.StudyPaths(study).models
    files = sorted(folder.glob("*/models.json"))
    if not files:
        raise StudyError(f"no trained models in {folder}. Run 03_train for study {study} first.")
    found = []
    for file in files:
        for entry in read_json(file):
            name = entry.pop("weights")
            found.append(Model(**entry, weights=file.parent / name))
    first = found[0]
    same = (first.trunk, 0, first.image_size, first.precision)
    return [Model("none", "untrained", 0, *same, weights=None), *found]


def cached_embeddings(
    study: str, model: Model, scenes: Scenes, rows: np.ndarray, condition: str, draw: int, seed: int
) -> Tensor:
    """Embeddings of the test images under a condition, computed once and kept in scratch."""
    key = key_of(
        version=VERSION, model=model.identity, data=scenes.fingerprint, rows=len(rows),
        condition=condition, draw=draw, seed=seed, size=model.image_size, bits=model.precision,
    )  # fmt: skip
    file = paths.StudyPaths(study).scratch / "embeddings" / f"{key}.safetensors"
    if file.exists():
        return load_file(file)["embeddings"]
    made = shifts.embed(
        model.load(), scenes, rows, condition, draw=draw, seed=seed,
        size=model.image_size, precision=model.precision,
    )  # fmt: skip
    with atomic(file) as temporary:
        save_file({"embeddings": made}, temporary)
    return made


def plan(conditions: list[str], draws: int, draws_control: int) -> list[tuple[str, int]]:
    """Pairs (condition, draw): `draws` for random_background, `draws_control` for the others."""
    if "clean" not in conditions:
        raise StudyError("the conditions must hold 'clean': everything is compared with it.")
    count = {name: draws if name == "random_background" else draws_control for name in conditions}
    return [
        (name, draw)
        for name in conditions
        for draw in range(count[name] if shifts.get(name).draws else 1)
    ]


def per_query(
    study: str, conditions: list[str], draws: int, draws_control: int, seed: int
) -> Iterator[pd.DataFrame]:
    """Rows of every model: one a query x condition x draw x sides.

    `both`: queries and gallery are changed, as in the paper. `query`: changed queries search the
    clean gallery. A query's own photograph is never in its ranking.
    """
    scenes = None
    models = models_of(study)
    for number, model in enumerate(models, start=1):
        scenes = scenes or Scenes(study, mask_source(study), train.device())
        rows = scenes.store.rows("test")
        labels = torch.as_tensor(scenes.store.labels[rows])
        own = torch.arange(len(rows))
        name = f"{model.loss} {model.arm} seed {model.seed}"
        say(f"{study}: model {number} of {len(models)} ({name})")
        clean = cached_embeddings(study, model, scenes, rows, "clean", 0, seed)
        for condition, draw in plan(conditions, draws, draws_control):
            moved = cached_embeddings(study, model, scenes, rows, condition, draw, seed)
            found = {"both": retrieval.evaluate(moved, labels)}
            if condition != "clean":
                found["query"] = retrieval.evaluate(moved, labels, clean, labels, exclude=own)
            for sides, values in found.items():
                yield pd.DataFrame({"row": rows, "label": labels.numpy()}).assign(
                    loss=model.loss, arm=model.arm, seed=model.seed, condition=condition,
                    sides=sides, draw=draw, **{name: values[name].numpy() for name in METRICS},
                )  # fmt: skip


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

    `contrast` is shifted-clean (same model) or bgaugment-base (same loss, seed, condition).
    """
    mean, out = over_draws(rows), []
    for (loss, arm, seed), part in mean.groupby(MODEL, sort=False):
        clean = part[part["condition"] == "clean"]
        for (condition, sides), other in part.groupby(["condition", "sides"], sort=False):
            if condition != "clean":
                out += paired("shifted-clean", (loss, arm, seed, condition, sides), other, clean)
    for keys, part in mean.groupby(["loss", "seed", "condition", "sides"], sort=False):
        arms = {arm: group for arm, group in part.groupby("arm")}
        if {"base", "bgaugment"} <= set(arms):
            name = (keys[0], "bgaugment", *keys[1:])
            out += paired("bgaugment-base", name, arms["bgaugment"], arms["base"])
    columns = ["contrast", *MODEL, "condition", "sides", "metric", "value", "low", "high", "p", "n"]
    table = pd.DataFrame(out, columns=columns)
    table["p_holm"] = table.groupby(["contrast", "metric"])["p"].transform(
        lambda p: stats.holm(p.to_numpy())
    )
    return table


def paired(contrast: str, name: tuple, a: pd.DataFrame, b: pd.DataFrame) -> list[list]:
    """Rows of a - b for every metric: mean, interval, p; a and b hold the same queries."""
    both = a.merge(b, on=["row", "label"], suffixes=("_a", "_b"), validate="1:1")
    out = []
    for metric in METRICS:
        found = stats.paired_difference(
            both[f"{metric}_a"].to_numpy(), both[f"{metric}_b"].to_numpy(), both["label"].to_numpy()
        )
        out.append([contrast, *name, metric, found.diff, found.low, found.high, found.p, found.n])
    return out


def class_losses(rows: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Mean MAP@R change per model and class under a condition (both sides), worst first."""
    mean = over_draws(rows[rows["sides"] == "both"])
    wide = mean.pivot_table(
        index=[*MODEL, "label"], columns="condition", values="map_at_r", aggfunc="mean"
    ).reset_index()
    wide["change"] = wide[condition] - wide["clean"]
    return wide[[*MODEL, "label", "clean", condition, "change"]].sort_values("change")
