"""Which training images an epoch visits: m of a class in a batch.

The paper's rule needs many classes and a batch that m divides. Where a set has too few of them,
`plan` adapts m and the batch, and page 03 says so.
"""

from dataclasses import dataclass

import numpy as np
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions as pml_common

from lib.training import losses
from lib.training.recipe import Recipe

FEWEST = 2  # classes in a batch: with one there would be nothing to push away


@dataclass(frozen=True)
class Plan:
    """A batch: `per_class` images of each of `classes` classes."""

    per_class: int
    classes: int

    @property
    def batch(self) -> int:
        """Images in a batch."""
        return self.per_class * self.classes


def plan(loss: str, batch: int, classes: int) -> Plan:
    """How a batch of about `batch` images is put together from `classes` (2 or more) classes.

    The loss's own number of each class, more where all classes together would not fill the batch;
    of so many classes that the batch comes nearest to what was asked, two at least. Where the
    number divides the batch, as in the paper, the batch is what was asked.
    """
    m = max(losses.get(loss).per_class, -(-batch // classes))
    nearest = (2 * batch + m) // (2 * m)
    return Plan(m, min(classes, max(FEWEST, nearest)))


def short_classes(labels: np.ndarray, m: int) -> int:
    """How many classes have fewer than `m` images: the sampler draws theirs with replacement."""
    return int((np.unique(labels, return_counts=True)[1] < m).sum())


def epoch_rows(labels: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """Positions (iterations, batch) into `labels` that an epoch visits, m per class (`plan`).

    By pytorch-metric-learning's sampler, as in the paper: a class with fewer than m images gives
    some of them twice.
    """
    found = plan(recipe.loss, recipe.batch, len(np.unique(labels)))
    pml_common.NUMPY_RANDOM = np.random.RandomState([recipe.seed, epoch])
    length = recipe.iterations * found.batch
    sampler = MPerClassSampler(labels, found.per_class, found.batch, length_before_new_iter=length)
    return np.fromiter(iter(sampler), int).reshape(recipe.iterations, found.batch)
