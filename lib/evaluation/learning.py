"""Did a model learn? Its gain over the untrained trunk on validation, and a verdict."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core.cache import kept
from lib.core.files import key_of
from lib.evaluation import embeddings, statistics
from lib.evaluation import models as trained_models
from lib.evaluation.models import Model
from lib.images.scenes import Scenes
from lib.retrieval import search
from lib.training import arms, validation

# ------------------------------------------------------------------------------ did it learn


def models_with_loss(study: str, loss: str) -> list[Model]:
    """The trained models of one loss."""
    return [model for model in trained_models.models_of(study) if model.loss == loss]


def untrained(model: Model) -> Model:
    """The trunk that `model` began from, without a linear layer."""
    return replace(model, loss="none", arm="untrained", embedding=0, weights=None)


def validation_scores(
    study: str, model: Model, scenes: Scenes, condition: str, seed: int
) -> np.ndarray:
    """MAP@R of every validation query, computed once and kept in scratch."""
    key = key_of(
        version=embeddings.VERSION, model=model.identity, data=scenes.fingerprint, seed=seed,
        condition=condition, size=model.image_size, bits=model.precision,
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        found = validation.validation(
            model.load(), scenes, condition, seed, model.image_size, model.precision
        )
        return {"map_at_r": found}

    return kept(study, "validation", key, make)["map_at_r"].numpy()


def verdict(low: float, best: int, last: int, patience: int) -> tuple[bool, str]:
    """Does a model count as trained: it rose clearly above the trunk, then stopped rising?

    Args:
        low: lower end of the 95 % interval of its gain over the untrained trunk.
        best, last: the epoch kept, and the last one trained.
        patience: epochs without a better score that ended the training.
    """
    after = last - best
    if not low > 0:  # too few classes have no interval: NaN
        return False, "did not rise clearly above the untrained trunk"
    if after == 0:
        return False, f"still rising at the last epoch, {last}: cut by the budget"
    if after < patience:
        return False, f"best at epoch {best}; the budget ended {after} epoch(s) later"
    return True, f"rose until epoch {best} and stopped: no better one in {after} epoch(s)"


def gains(
    study: str, loss: str, scenes: Scenes, history: pd.DataFrame, patience: int
) -> pd.DataFrame:
    """One row a model: MAP@R of trunk and kept epoch on validation, gain with interval, verdict.

    By each arm's own condition. The interval is over classes (statistics.paired_difference).
    """
    labels, out = scenes.store.labels[scenes.store.rows("validation")], []
    for model in models_with_loss(study, loss):
        condition = arms.get(model.arm).select_on
        after = validation_scores(study, model, scenes, condition, model.seed)
        before = validation_scores(study, untrained(model), scenes, condition, model.seed)
        found = statistics.paired_difference(after, before, labels)
        mine = history[(history["arm"] == model.arm) & (history["seed"] == model.seed)]
        best, last = int(mine["best"].iloc[0]), int(mine["epoch"].max())
        level = [np.nanmean(before), np.nanmean(after), found.diff, found.low, found.high, found.n]
        counts, words = verdict(found.low, best, last, patience)
        out.append([model.arm, model.seed, condition, *level, best, last, counts, words])
    columns = ["arm", "seed", "condition", "untrained", "kept", "gain", "low", "high", "n"]
    return pd.DataFrame(out, columns=[*columns, "best", "last", "trained", "verdict"])


# -------------------------------------------------------------------------------- neighbours


@dataclass(frozen=True)
class Neighbours:
    """Some test queries and, per model, the store rows of their nearest test images."""

    queries: np.ndarray
    found: dict[str, np.ndarray]


def neighbours(study: str, loss: str, scenes: Scenes, seed: int, count: int = 3) -> Neighbours:
    """The five nearest test images of `count` queries before and after training."""
    rows = scenes.store.rows("test")
    at = np.random.default_rng(0).choice(len(rows), count, replace=False)
    mine = [model for model in models_with_loss(study, loss) if model.seed == seed]
    found = {}
    for model in [untrained(mine[0]), *mine]:
        vectors = embeddings.View(study, model, scenes).embeddings("clean")
        nearest = search.neighbours(vectors, k=5)[0][torch.as_tensor(at)].numpy()
        found[model.arm] = rows[nearest]
    return Neighbours(rows[at], found)
