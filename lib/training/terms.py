"""Terms that an arm can add to the loss of a step (lib.training.arms)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

GREY = 127.0  # as in the test condition `foreground_only`
EXPLAINED = 4  # one image in so many is explained: gradients of gradients are dear
TINY = 1e-12


@dataclass(frozen=True)
class Step:
    """What a term sees of a training step, all on the device.

    `images` (B, 3, s, s) are the normalised inputs, `masks` (B, 1, s, s) lie in [0, 1],
    `embeddings` (B, D) have length 1, `labels` are (B,).
    """

    model: Any
    images: Tensor
    masks: Tensor
    embeddings: Tensor
    labels: Tensor
    loss: Tensor


def object_only(step: Step) -> Tensor:
    """The inputs with grey wherever the mask is not object (B, 3, s, s)."""
    grey = step.model.normalise(torch.full_like(step.images[:1], GREY))
    return torch.lerp(grey.expand_as(step.images), step.images, step.masks)


def guide(step: Step) -> Tensor:
    """How far the embeddings are from those of a teacher that sees only the object.

    Mean of 1 - cosine. The teacher is the network itself, as it is at this step and without
    gradient, on the object on grey; nothing has to be trained beforehand. (Guided Deep Metric
    Learning, arXiv 2206.02029, trains its master first; arXiv 2407.09788 distils explanations.)
    """
    with torch.no_grad():
        teacher = step.model(object_only(step))
    return 1 - (step.embeddings * teacher).sum(dim=1).mean()


def background_relevance(step: Step) -> Tensor:
    """The share of gradient x input that lies on the background, mean over some of the images.

    Explained is the similarity of an embedding to the mean embedding of its class in the batch
    (held fixed); one image in EXPLAINED. A cheap relative of ISNet (arXiv 2401.08409), which
    propagates relevance through every layer, and of Ross et al. 2017 ("right for the right
    reasons"), which penalise the gradient alone.
    """
    own = step.labels[:, None] == step.labels
    centres = normalize(own.to(step.embeddings.dtype) @ step.embeddings.detach(), dim=1)
    images = step.images[::EXPLAINED].detach().requires_grad_(True)
    similarity = (step.model(images) * centres[::EXPLAINED]).sum()
    (gradient,) = torch.autograd.grad(similarity, images, create_graph=True)
    relevance = (gradient * images).sum(dim=1, keepdim=True).abs()
    outside = relevance * (1 - step.masks[::EXPLAINED])
    return (outside.sum((1, 2, 3)) / (relevance.sum((1, 2, 3)) + TINY)).mean()
