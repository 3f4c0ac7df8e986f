"""Remedies at inference: what they show of small pictures, against slow loops."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.evaluation import remedies
from lib.evaluation.remedies import REMEDIES, box_crop, cut_out, late_mask, square
from lib.masks import rembg_models


def scene(height: int = 20, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two images of noise and soft masks: one off centre, one empty."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    masks = np.zeros((2, height, width), np.float32)
    masks[0, 3:9, 20:26] = 1
    masks[0, 9, 20:26] = 0.4
    return images, masks


def test_cut_out_keeps_the_object_and_greys_the_rest() -> None:
    images, masks = scene()
    made = cut_out(images, masks)
    for n, y, x in ((0, 5, 22), (0, 0, 0), (0, 9, 21), (1, 5, 5)):
        m = masks[n, y, x]
        np.testing.assert_allclose(made[n, y, x], images[n, y, x] * m + 127 * (1 - m), atol=0.51)
    assert made.dtype == np.uint8 and made.shape == images.shape


def test_the_square_holds_the_object_with_its_margin_inside_the_image() -> None:
    _, masks = scene()
    assert square(masks[0], margin=0) == (3, 20, 6)
    top, left, side = square(masks[0], margin=0.5)
    assert side == 12 and top == 0 and left == 17
    assert square(masks[1]) is None
    assert square(np.ones((20, 30)))[2] == 20  # never larger than the short side


def test_box_crop_enlarges_the_object_and_leaves_what_has_none() -> None:
    images, masks = scene(24, 24)
    images[0] = 0
    images[0, 3:9, 18:24] = 200
    masks[0] = 0
    masks[0, 3:9, 18:24] = 1
    made = box_crop(images, masks, margin=0)
    assert (made[0] == 200).all()
    np.testing.assert_array_equal(made[1], images[1])
    with_margin = box_crop(images, masks)
    assert 0.5 < (with_margin[0] == 200).mean() < 0.95


class Tiny(nn.Module):
    """A trunk whose features are the image halved in size."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Module(), nn.Identity()
        self.trunk.features = lambda x: nn.functional.avg_pool2d(x, 2)


def test_late_mask_averages_features_under_the_mask() -> None:
    torch.manual_seed(0)
    pixels, masks = torch.randn(2, 3, 8, 6), torch.zeros(2, 1, 8, 6)
    masks[0, 0, 2:5, 1:4] = 1
    found = late_mask(Tiny(), pixels, masks)
    total, weight = np.zeros(3), 0.0
    for y in range(4):
        for x in range(3):
            share = float(masks[0, 0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean())
            block = pixels[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2)).numpy()
            total, weight = total + share * block, weight + share
    wanted = total / weight
    np.testing.assert_allclose(found[0], wanted / np.linalg.norm(wanted), atol=1e-5)
    plain = pixels[1].mean((1, 2))  # an empty mask counts as full
    torch.testing.assert_close(found[1], plain / plain.norm(), atol=1e-5, rtol=1e-4)


def test_every_remedy_either_shows_or_embeds() -> None:
    for name, remedy in REMEDIES.items():
        assert (remedy.show is None) != (remedy.embed is None), name
        assert remedy.label and remedy.doing and remedy.source


def test_a_mask_that_shows_nothing_leaves_the_image_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in, masks in the same order out, by as many sessions as there are threads."""
    from PIL import Image

    class Session:
        def predict(self, image):
            return [Image.fromarray(np.asarray(image)[..., 0])]

    def made(_name):
        return Session()

    made.__wrapped__ = made
    monkeypatch.setattr(rembg_models, "session", made)
    monkeypatch.setattr(rembg_models, "fetch", lambda _name: None)
    images = np.zeros((40, 10, 10, 3), np.uint8)
    images[:39, :5] = np.arange(39)[:, None, None, None] + 100
    masks = remedies.predicted(images, "u2netp")
    assert masks.shape == (40, 10, 10) and (masks[39] == 1).all()
    np.testing.assert_allclose(masks[:39, 0, 0], (np.arange(39) + 100) / 255, atol=1e-6)
    assert (masks[:39, 9] == 0).all()
