"""Did a model learn? Its gain over the untrained trunk on validation, and a verdict."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.files import key_of
from lib.evaluation import embeddings, statistics
from lib.evaluation.models import Model
from lib.evaluation.statistics import MIN_CLASSES
from lib.images.scenes import Scenes
from lib.training import arms, validation


def untrained(model: Model) -> Model:
    """The trunk that `model` began from, without a linear layer."""
    return replace(model, loss="none", arm=arms.UNTRAINED, embedding=0, weights=None)


def validation_scores(
    study: str, model: Model, scenes: Scenes, condition: str, seed: int
) -> np.ndarray:
    """MAP@R of every validation query, computed once and kept in scratch."""
    key = key_of(
        code=fingerprint(*embeddings.EMBEDDING, *embeddings.SCORING, "training"),
        model=model.identity, data=scenes.fingerprint, seed=seed,
        condition=condition, size=model.image_size, bits=model.precision,
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        embedder, forward = embeddings.loaded(model)
        found = validation.validation(
            embedder, scenes, condition, seed, model.image_size, model.precision, forward
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
    if math.isnan(low):
        return False, f"not known: an interval needs at least {MIN_CLASSES} validation classes"
    if not low > 0:
        return False, "did not rise clearly above the untrained trunk"
    if after == 0:
        return False, f"still rising at the last epoch, {last}: cut by the budget"
    if after < patience:
        return False, f"best at epoch {best}; the budget ended {after} epoch(s) later"
    return True, f"rose until epoch {best} and stopped: no better one in {after} epoch(s)"


def gain(
    study: str, model: Model, scenes: Scenes, history: pd.DataFrame, patience: int
) -> dict[str, Any]:
    """MAP@R of the trunk and of the kept epoch on validation, gain with interval, verdict.

    On the condition that picks the arm's checkpoint. The interval is over classes
    (statistics.paired_difference).

    Args:
        history: of this model (a row an epoch and condition).
    """
    labels = scenes.store.labels[scenes.store.rows("validation")]
    condition = arms.get(model.arm).select_on
    after = validation_scores(study, model, scenes, condition, model.seed)
    before = validation_scores(study, untrained(model), scenes, condition, model.seed)
    found = statistics.paired_difference(after, before, labels)
    best, last = int(history["best"].iloc[0]), int(history["epoch"].max())
    counts, words = verdict(found.low, best, last, patience)
    return {
        "loss": model.loss, "arm": model.arm, "seed": model.seed, "condition": condition,
        "untrained": float(np.nanmean(before)), "kept": float(np.nanmean(after)),
        "gain": found.diff, "low": found.low, "high": found.high, "n": found.n, "best": best,
        "last": last, "trained": counts, "verdict": words,
    }  # fmt: skip
