"""Which training images an epoch visits: m of a class in a batch."""

import numpy as np
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions as pml_common

from lib.core.errors import StudyError
from lib.training import losses
from lib.training.recipe import Recipe


def per_class(recipe: Recipe, classes: int) -> int:
    """Images of a class in a batch: the loss's own m, more where the classes do not fill a batch.

    Raises:
        StudyError: the batch is no multiple of it.
    """
    m = max(losses.get(recipe.loss).per_class, -(-recipe.batch // classes))
    if recipe.batch % m:
        raise StudyError(
            f"a batch of {recipe.batch} images does not go with {m} images of a class (loss "
            f"{recipe.loss}, {classes} training classes). Choose a multiple of {m}."
        )
    return m


def short_classes(labels: np.ndarray, m: int) -> int:
    """How many classes have fewer than `m` images: the sampler draws theirs with replacement."""
    return int((np.unique(labels, return_counts=True)[1] < m).sum())


def epoch_rows(labels: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """Positions (iterations, batch) into `labels` that an epoch visits, m per class.

    By pytorch-metric-learning's sampler, as in the paper: a class with fewer than m images gives
    some of them twice.
    """
    m = per_class(recipe, len(np.unique(labels)))
    pml_common.NUMPY_RANDOM = np.random.RandomState([recipe.seed, epoch])
    length = recipe.iterations * recipe.batch
    sampler = MPerClassSampler(labels, m, recipe.batch, length_before_new_iter=length)
    return np.fromiter(iter(sampler), int).reshape(recipe.iterations, recipe.batch)
