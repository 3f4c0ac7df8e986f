"""05_attention: attribution maps of every model on chosen test images, scored against the masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.attention import attribution, scores
from lib.attention.attribution import PAPER, Explanation
from lib.core import paths
from lib.core.cache import kept
from lib.core.files import key_of, space_left
from lib.core.hardware import fixed_threads
from lib.core.progress import say
from lib.evaluation import embeddings, statistics
from lib.evaluation import models as trained_models
from lib.images.scenes import Scenes
from lib.models import embedding
from lib.models.embedder import Embedder

VERSION = 2  # raise when the maps change: cached maps are then made again
MODEL = trained_models.MODEL
EXPLANATION = ["method", "target"]
CLASS_MATES = 8  # pictures whose embeddings make the class mean: enough for a mean, soon embedded


class Subject(Protocol):
    """A network to explain; `evaluate.Model` is one. Equal `identity`, equal weights."""

    identity: str
    image_size: int

    def load(self) -> Embedder:
        """The network, ready to embed."""


@dataclass(frozen=True)
class Altered:
    """A network that no file holds (random weights, say), under a name that says how it came."""

    identity: str
    image_size: int
    network: Embedder

    def load(self) -> Embedder:
        """The network itself."""
        return self.network


def chosen_rows(scenes: Scenes, count: int, seed: int) -> np.ndarray:
    """Test rows to look at: usable masks only, spread over the classes, decided by the seed.

    Fewer rows of the same seed are among the more.
    """
    rows = scenes.store.rows("test")
    rows = rows[scenes.usable[rows]]
    labels = torch.as_tensor(scenes.store.labels[rows])
    return rows[scores.pick_images(labels, count, seed).numpy()]


def pictures(scenes: Scenes, rows: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, s, s) on 0 to 255 and masks (B, s, s) in [0, 1] at the test crop."""
    images, masks = scenes.split(scenes.images.centre(rows, size), rows)
    return images, masks[:, 0].cpu().clamp(0, 1)  # resampling may end a rounding error above 1


def partners_of(
    study: str, model: trained_models.Model, scenes: Scenes, rows: np.ndarray, target: str
) -> list[np.ndarray]:
    """Rows of the test pictures that each of `rows` is compared with under a target.

    The nearest picture under `model`, or up to CLASS_MATES others of the class; never itself.
    Empty for targets that compare with the black image.
    """
    gallery = scenes.store.rows("test")
    labels = scenes.store.labels
    if target == "similarity_to_class_mean":
        return [
            gallery[(labels[gallery] == labels[r]) & (gallery != r)][:CLASS_MATES] for r in rows
        ]
    if target != "similarity_to_nearest":
        return [gallery[:0] for _ in rows]
    known = embeddings.View(study, model, scenes).embeddings("clean")
    at = np.searchsorted(gallery, rows)
    alike = known[at] @ known.T
    alike[torch.arange(len(rows)), at] = -torch.inf
    return list(gallery[alike.argmax(dim=1).numpy()][:, None])


def references(
    network: Embedder, scenes: Scenes, partners: list[np.ndarray], size: int, precision: str
) -> Tensor:
    """Mean embedding (B, D) of each picture's partners under `network`.

    Zero where there is no partner: the similarity is then constant, the map zero, its score
    undefined and left out by rule.
    """
    needed = np.unique(np.concatenate(partners))
    if not len(needed):
        needed = scenes.store.rows("test")[:1]  # to learn the width
    known = embedding.embed(
        network, scenes, needed, "clean", draw=0, seed=0, size=size, precision=precision
    )
    means = [known[np.searchsorted(needed, rows)].sum(0) / max(1, len(rows)) for rows in partners]
    return torch.stack(means)


@fixed_threads()
def maps_of(
    study: str,
    subject: Subject,
    scenes: Scenes,
    rows: np.ndarray,
    seed: int,
    explanation: Explanation = PAPER,
    partners: list[np.ndarray] | None = None,
    **settings: float,
) -> Tensor:
    """Raw maps (len(rows), s, s) of a network, computed once and kept in scratch.

    Args:
        seed: of the noise.
        explanation: method and target; by default the paper's.
        partners: from `partners_of`; needed by the targets other than black.
        settings: fields of lib.attention.attribution.Settings.
    """
    settings = explanation.needs(settings)
    black = attribution.TARGETS[explanation.target].black
    more = {} if explanation.target == PAPER.target else {"target": explanation.target}
    if not black:
        more["partners"] = [part.tolist() for part in partners]
    key = key_of(
        version=VERSION, model=subject.identity, data=scenes.fingerprint, rows=rows.tolist(),
        method=explanation.method, seed=seed, size=subject.image_size, **settings, **more,
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        network, size = subject.load(), subject.image_size
        images, _ = pictures(scenes, rows, size)
        precision = settings.get("precision", "f32")
        made = attribution.attribute(
            explanation.method, network, network.normalise(images),
            black=network.normalise(torch.zeros_like(images[:1])), target=explanation.target,
            reference=None if black else references(network, scenes, partners, size, precision),
            seeds=torch.as_tensor(rows) + 1_000_003 * seed,
            batch=25 if images.device.type == "cpu" else 250, **settings,
        )  # fmt: skip
        return {"maps": made.float().cpu().contiguous()}

    return kept(study, "maps", key, make)["maps"]


def names_of(model: trained_models.Model) -> dict[str, str | int]:
    """The key columns of a model."""
    return {key: getattr(model, key) for key in MODEL}


def scored(
    maps: Tensor, masks: Tensor, rows: np.ndarray, scenes: Scenes, **names: str | int
) -> pd.DataFrame:
    """One row an image x measure, with `names` as further columns."""
    table = scores.score_table(maps, masks)
    table["row"] = rows[table["row"].to_numpy()]
    return table.assign(label=scenes.store.labels[table["row"]], **names)


def score_models(
    study: str, rows: np.ndarray, scenes: Scenes, seed: int, **settings: float
) -> Iterator[pd.DataFrame]:
    """The paper's maps: one row an image x model x measure."""
    models = trained_models.models_of(study)
    pixels = len(rows) * sum(model.image_size**2 for model in models)
    space_left(paths.StudyPaths(study).scratch / "maps", 4 * pixels)
    for number, model in enumerate(models, start=1):
        say(f"{study}: attention of model {number} of {len(models)} ({model.loss} {model.arm})")
        masks = pictures(scenes, rows, model.image_size)[1]
        maps = maps_of(study, model, scenes, rows, seed, **settings)
        yield scored(maps, masks, rows, scenes, **names_of(model), **vars(PAPER))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, std over images and 95 % interval over classes per model x explanation x measure."""
    out = []
    keys = [*MODEL, *EXPLANATION, "metric"]
    for names, part in rows[rows["defined"]].groupby(keys, sort=False):
        found = statistics.mean_by_class_bootstrap(
            part["value"].to_numpy(), part["label"].to_numpy()
        )
        out.append([*names, found.mean, found.low, found.high, part["value"].std(), found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "std_over_images", "n"])


def arm_effects(rows: pd.DataFrame, arm: str = "bgaugment", than: str = "base") -> pd.DataFrame:
    """Paired difference of two arms per loss x seed x explanation x measure, interval and p."""
    out = []
    keys = ["loss", "seed", *EXPLANATION, "metric"]
    trained = rows[rows["defined"] & rows["arm"].isin([arm, than])]
    for names, part in trained.groupby(keys, sort=False):
        wide = part.pivot(index=["row", "label"], columns="arm", values="value").dropna()
        found = statistics.paired_difference(
            wide[arm].to_numpy(), wide[than].to_numpy(),
            wide.index.get_level_values("label").to_numpy(),
        )  # fmt: skip
        out.append([*names, found.diff, found.low, found.high, found.p, found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "p", "n"])
