"""Every arm on a batch of two colours: green objects before red, blue or grey."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from lib.images.scenes import TrainingBatch
from lib.models import trunks
from lib.training import arms, terms

SIZE = 8


class Reads(nn.Module):
    """A network that reads the mean colour of the pixels that `mask` (1, 1, s, s) marks."""

    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.mask, self.seen, self.normalise = mask, [], trunks.LITE
        self.head = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach())
        return normalize(self.head((x * self.mask).sum((2, 3)) / self.mask.sum()), dim=1)


class Backgrounds(TrainingBatch):
    """A batch whose photographs are blue."""

    def photographs(self) -> torch.Tensor:
        made = torch.zeros_like(self.images)
        made[:, 2] = 200
        return made


def batch(count: int = 8) -> TrainingBatch:
    """Red images with a green square, which is the object."""
    masks = torch.zeros(count, 1, SIZE, SIZE)
    masks[:, :, 2:5, 3:7] = 1
    images = torch.zeros(count, 3, SIZE, SIZE)
    images[:, 0], images[:, 1] = 250 * (1 - masks[:, 0]), 250 * masks[:, 0]
    chance = (np.arange(count) + 0.5) / count
    return Backgrounds(None, images, masks, chance, np.zeros(count), np.random.default_rng(0))


def step(model: Reads, made: TrainingBatch) -> terms.Step:
    images = model.normalise(made.images) + 0.1 * torch.randn(made.images.shape)
    labels = torch.arange(len(images)) // 2
    return terms.Step(model, images, made.masks, model(images), labels, torch.zeros(()))


@pytest.mark.parametrize(
    "name, share, channel",
    [("bgaugment", 1, 2), ("bgaugment_25", 0.25, 2), ("bgaugment_50", 0.5, 2),
     ("bgaugment_75", 0.75, 2), ("pairs", 1, 2), ("base", 0, 2), ("guided", 0, 2),
     ("attribution_penalty", 0, 2)],
)  # fmt: skip
def test_the_share_of_replaced_backgrounds(name: str, share: float, channel: int) -> None:
    made = batch()
    seen = arms.get(name).view(made)
    replaced = (seen[:, channel, 0, 0] == 200).float().mean()
    assert replaced == share
    inside = made.masks.expand_as(seen) == 1
    assert torch.equal(seen[inside], made.images[inside])  # the object stays as it is


def test_grey_takes_every_background_away() -> None:
    made = batch()
    seen = arms.get("greyaugment").view(made)
    assert (seen[made.masks.expand_as(seen) == 0] == 127).all()


def test_the_teacher_never_sees_a_pixel_of_the_background() -> None:
    model, made = Reads(torch.ones(1, 1, SIZE, SIZE)), batch()
    one = step(model, made)
    moved = one.images + 7 * (1 - one.masks)  # another background behind the same objects
    other = terms.Step(model, moved, one.masks, one.embeddings, one.labels, one.loss)
    model.seen.clear()
    values = [terms.guide(one), terms.guide(other)]
    assert torch.equal(values[0], values[1]) and torch.equal(*model.seen)
    values[0].backward()
    assert model.head.weight.grad.abs().sum() > 0  # by way of the student


def test_the_guide_is_the_mean_cosine_distance() -> None:
    model = Reads(torch.ones(1, 1, SIZE, SIZE))
    one, expected = step(model, batch()), 0.0
    for i in range(len(one.images)):
        grey = one.images[i].clone()
        outside = one.masks[i].expand(3, -1, -1) == 0
        grey[outside] = 0.0  # Lite's normalised 127
        teacher = model(grey[None])[0]
        expected += (1 - one.embeddings[i] @ teacher) / len(one.images)
    torch.testing.assert_close(terms.guide(one), expected)


def test_only_a_network_that_reads_the_background_is_punished() -> None:
    made = batch()
    at_object = terms.background_relevance(step(Reads(made.masks[:1]), made))
    at_background = terms.background_relevance(step(Reads(1 - made.masks[:1]), made))
    assert at_object == 0 and float(at_background.detach()) == pytest.approx(1)


def test_the_penalty_teaches_to_look_at_the_object() -> None:
    """A network that can weigh every pixel learns to weigh those of the object."""
    torch.manual_seed(0)
    model = Reads(torch.ones(1, 1, SIZE, SIZE))
    model.mask = nn.Parameter(torch.ones(1, 1, SIZE, SIZE))
    optimiser = torch.optim.Adam([model.mask], lr=0.05)
    values = []
    for _ in range(60):
        loss = terms.background_relevance(step(model, batch()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.6 * values[0]
