"""The five losses: one table, with the values that the paper found for each data set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytorch_metric_learning import losses as pml
from torch import nn

from lib.core.errors import StudyError


@dataclass(frozen=True)
class Loss:
    """One line of the table of losses.

    Attributes:
        label: name in figures.
        build: class, or function of the arguments, that makes the loss: a module called with
            embeddings (N, D) of length 1 and labels (N,), giving one number.
        kind: `ranking` compares images; `classification` learns a vector a class, and `build` also
            gets `num_classes` and `embedding_size`.
        per_class: the sampler puts so many images of a class into a batch.
        published: arguments per data set (paper, appendix and code); under ANY for all the others.
        loss_lr: learning rate of the loss's own weights, per data set likewise; {}: it has none.
    """

    label: str
    build: Callable[..., nn.Module]
    kind: str
    per_class: int
    published: dict[str, dict[str, float]]
    loss_lr: dict[str, float] = field(default_factory=dict)


ANY = "any"
LOSSES: dict[str, Loss] = {
    "contrastive": Loss(
        "Contrastive",
        pml.ContrastiveLoss,
        "ranking",
        4,
        {
            "cars196": {"pos_margin": 0.2652, "neg_margin": 0.5409},
            "cub200": {"pos_margin": -0.2000, "neg_margin": 0.3841},
            "sop": {"pos_margin": 0.2850, "neg_margin": 0.5130},
        },
    ),
    "triplet": Loss(
        "Triplet",
        pml.TripletMarginLoss,
        "ranking",
        4,
        {
            "cars196": {"margin": 0.1190},
            "cub200": {"margin": 0.0961},
            "sop": {"margin": 0.0452},
        },
    ),
    "multi_similarity": Loss(
        "Multi-similarity",
        pml.MultiSimilarityLoss,
        "ranking",
        4,
        {
            "cars196": {"alpha": 14.36, "beta": 75.83, "base": 0.6616},
            "cub200": {"alpha": 0.01, "beta": 50.60, "base": 0.5625},
            "sop": {"alpha": 8.492, "beta": 57.39, "base": 0.4167},
        },
    ),
    "arcface": Loss(
        "ArcFace",
        pml.ArcFaceLoss,
        "classification",
        1,
        {
            "cars196": {"margin": 20.52, "scale": 49.50},
            "cub200": {"margin": 23.23, "scale": 100.0},
            "sop": {"margin": 18.63, "scale": 220.4},
        },
        {"cars196": 7.398e-6, "cub200": 5.138e-3, "sop": 2.019e-3},
    ),
    "normalized_softmax": Loss(
        "Normalised softmax",
        pml.NormalizedSoftmaxLoss,
        "classification",
        1,
        {
            "cars196": {"temperature": 0.08863},
            "cub200": {"temperature": 0.1087},
            "sop": {"temperature": 0.06306},
        },
        {"cars196": 1.105e-2, "cub200": 4.469e-3, "sop": 5.468e-4},
    ),
}

SAME_AS = {
    "rendered": "cub200",
    "folder": "cub200",
    "grocery": "sop",
}  # data sets that the paper does not have


def get(name: str) -> Loss:
    """The entry of `name`; an unknown name raises with the known ones."""
    if name not in LOSSES:
        raise StudyError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name]


def _for(values: dict[str, Any], dataset: str) -> Any:
    """The value for a data set: its own, that of SAME_AS where the paper lacks it, else ANY's."""
    return values.get(SAME_AS.get(dataset, dataset), values.get(ANY))


def arguments(name: str, dataset: str) -> dict[str, float]:
    """The published arguments of a loss on a data set."""
    found = _for(get(name).published, dataset)
    if found is None:
        raise StudyError(
            f"loss {name} has no arguments for data set {dataset!r}: add them to its entry in "
            f"lib/training/losses.py, under {dataset!r} or {ANY!r}."
        )
    return dict(found)


def learning_rate(name: str, dataset: str) -> float | None:
    """The published learning rate of the loss's own weights, None if it has none."""
    return _for(get(name).loss_lr, dataset)


def build(name: str, arguments: dict[str, Any], classes: int, size: int) -> nn.Module:
    """Make the loss; classification losses get the number of classes and the embedding size."""
    entry = get(name)
    learns = entry.kind == "classification"
    shape = {"num_classes": classes, "embedding_size": size} if learns else {}
    try:
        return entry.build(**shape, **arguments)
    except TypeError as error:
        raise StudyError(f"loss {name} does not take {arguments}: {error}") from error
