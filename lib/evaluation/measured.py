"""What was measured of a study: compact tables in git, all that the pages 04 to 06 read.

One file a model, so that a study grows model by model, on whatever machine:

    reports/<study>/measured/evaluation/
        study.json                   data, masks, crop, what the study consists of
        models/<model>.json          recipe, weights' sha256, precision, processor, commit, code
        classes/<model>.parquet      a row a condition, sides, draw and class
        queries/<model>.parquet      a row a query, of the paper's two conditions
        learning/<model>.json        gain over the untrained trunk on validation, verdict
        training.csv, labels.csv, mask_robustness.parquet, and sheets of small pictures
"""

from functools import cached_property
from typing import Any

import pandas as pd

from lib.core.compact import Kept, read_compact, write_compact
from lib.core.files import read_json
from lib.training import arms

__all__ = ["Measured", "name_of", "read", "read_compact", "write_compact"]


def name_of(loss: str, arm: str, seed: int) -> str:
    """The name of a model's files."""
    return f"{loss}-{arm}-{seed}"


class Measured(Kept):
    """The tables of one study; each is read when it is first asked for."""

    part = "evaluation"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """study.json: dataset, note, image_size, queries, usable, losses, arms, seeds."""
        return read_json(self.there("study.json"))

    @property
    def losses(self) -> list[str]:
        """The trained losses, in the study's order."""
        return self.facts["losses"]

    @property
    def arms(self) -> list[str]:
        """The trained arms, in the study's order."""
        return self.facts["arms"]

    @property
    def seeds(self) -> list[int]:
        """The seeds of training."""
        return self.facts["seeds"]

    @property
    def reference(self) -> str:
        """The arm that the others are compared with (the first, where none is)."""
        own = [name for name in self.arms if arms.get(name).reference is None]
        return (own or self.arms)[0]

    @property
    def models(self) -> list[str]:
        """Names of all models, the untrained trunk first, then by loss, seed and arm."""
        return [name_of("none", arms.UNTRAINED, 0)] + [
            name_of(loss, arm, seed)
            for loss in self.losses
            for seed in self.seeds
            for arm in self.arms
        ]

    @cached_property
    def manifest(self) -> list[dict[str, Any]]:
        """Who each model is: recipe, weights, precision, processor, commit, code."""
        return [read_json(self.there(f"models/{name}.json")) for name in self.models]

    @cached_property
    def classes(self) -> pd.DataFrame:
        """A row a model, condition, sides, draw and class: n, and the mean of every metric."""
        return self._tables("classes")

    @cached_property
    def queries(self) -> pd.DataFrame:
        """A row a query of the paper's two conditions: map_at_r, p_at_1."""
        return self._tables("queries")

    @cached_property
    def robustness(self) -> pd.DataFrame:
        """`classes` of one loss and seed through other masks: column `masks`, and `usable`."""
        return read_compact([self.there("mask_robustness.parquet")])

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The test classes: label, class_name, images, uniformity of their backgrounds."""
        text = {"dtype": {"class_name": str}, "na_values": {"uniformity": [""]}}
        return pd.read_csv(self.there("labels.csv"), keep_default_na=False, **text)  # a class NA

    @property
    def kinds(self) -> pd.Series:
        """The kind of every test class, by label: what its name says before a `/`.

        A name may have a slash that means nothing (`Ram C/V Cargo Van`): "" for all classes where
        one has no kind, or a kind has one class only.
        """
        names = self.labels.set_index("label")["class_name"]
        kinds = names.str.rpartition("/")[0].str.split("/").str[0]
        real = (kinds != "").all() and (kinds.value_counts() > 1).all()
        return kinds if real else kinds.where(kinds == "", "")

    @cached_property
    def training(self) -> pd.DataFrame:
        """The history: a row a loss, arm, seed, epoch and condition."""
        return pd.read_csv(self.there("training.csv"))

    @cached_property
    def learning(self) -> pd.DataFrame:
        """Did it learn: a row a model (lib.evaluation.learning.gain)."""
        names = self.models[1:]
        rows = [read_json(self.there(f"learning/{name}.json")) for name in names]
        numbers = ["untrained", "kept", "gain", "low", "high"]
        return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))

    def _tables(self, kind: str) -> pd.DataFrame:
        return read_compact([self.there(f"{kind}/{name}.parquet") for name in self.models])


def read(study: str) -> Measured:
    """The measured tables of a study."""
    return Measured(study)
