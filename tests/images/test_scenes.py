import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import hflip, resized_crop

from lib.core.errors import StudyError
from lib.data.store import open_image, shrink
from lib.images.composite import composite
from lib.images.crops import Boxes, Sampler, centre_boxes, random_boxes
from lib.images.scenes import Scenes
from lib.training import arms


@pytest.fixture
def scenes(study: str) -> Scenes:
    return Scenes(study, "drawn")


def as_tensor(array: np.ndarray) -> torch.Tensor:
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float()


def reference_crop(array: np.ndarray, boxes: Boxes, i: int, size: int) -> torch.Tensor:
    """One crop by torchvision."""
    box = [int(v[i]) for v in (boxes.top, boxes.left, boxes.height, boxes.width)]
    crop = resized_crop(as_tensor(array), *box, [size, size], antialias=False)
    return hflip(crop) if boxes.flip[i] else crop


@pytest.mark.parametrize("size", [33, 64])
def test_batched_crops_equal_torchvision_one_by_one(scenes: Scenes, size: int) -> None:
    rows = np.arange(len(scenes.store))
    sampler = scenes.images
    rng = np.random.default_rng(3)
    boxes = random_boxes(sampler.heights[rows], sampler.widths[rows], rng)
    assert boxes.flip.any() and not boxes.flip.all()
    made = sampler.sample(rows, boxes, size)
    for i in rows:
        image = reference_crop(scenes.store.image(i), boxes, i, size)
        mask = reference_crop(sampler.stores[1].image(i), boxes, i, size)
        torch.testing.assert_close(made[i, :3], image, atol=0.02, rtol=0)
        torch.testing.assert_close(made[i, 3:], mask, atol=0.02, rtol=0)


def test_a_centre_crop_of_the_right_size_copies_pixels(scenes: Scenes) -> None:
    row = np.array([2])
    height, width = scenes.store.image(2).shape[:2]
    box = centre_boxes(np.array([height]), np.array([width]))
    size, top, left = int(box.height[0]), int(box.top[0]), int(box.left[0])
    assert size == round(min(height, width) * 227 / 256)
    made = scenes.images.centre(row, size)[0, :3].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(
        made, scenes.store.image(2)[top : top + size, left : left + size], atol=0.01
    )


def test_random_boxes_lie_inside_and_keep_area_and_ratio() -> None:
    heights, widths = np.full(4000, 90), np.full(4000, 120)
    boxes = random_boxes(heights, widths, np.random.default_rng(0))
    assert (boxes.top >= 0).all() and (boxes.top + boxes.height <= heights).all()
    assert (boxes.left >= 0).all() and (boxes.left + boxes.width <= widths).all()
    share = boxes.height * boxes.width / (90 * 120)
    assert 0.15 < share.min() < 0.18 and share.max() > 0.9
    ratio = boxes.width / boxes.height
    assert 0.73 < ratio.min() < 0.78 and 1.3 < ratio.max() < 1.37
    assert abs(boxes.flip.mean() - 0.5) < 0.03


def test_a_very_wide_picture_falls_back_to_the_centre() -> None:
    boxes = random_boxes(np.array([10] * 50), np.array([400] * 50), np.random.default_rng(0))
    assert (boxes.height <= 10).all() and (boxes.left + boxes.width <= 400).all()
    fallback = boxes.height == 10
    assert fallback.any()
    assert (boxes.width[fallback] <= 14).all()


def test_composite_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    image, background = rng.uniform(0, 255, (2, 2, 3, 4, 5))
    mask = rng.choice([0, 0.25, 1], (2, 1, 4, 5))
    made = composite(*(torch.tensor(x) for x in (image, mask, background))).numpy()
    for b, c, y, x in np.ndindex(2, 3, 4, 5):
        m = mask[b, 0, y, x]
        expected = image[b, c, y, x] * m + background[b, c, y, x] * (1 - m)
        assert made[b, c, y, x] == pytest.approx(expected)


def test_composite_refuses_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(StudyError, match="do not belong together"):
        composite(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))


def training(scenes: Scenes, rows, size: int, seed: int, share: float = 1.0) -> torch.Tensor:
    """Training images of which a share stands before photographs."""
    batch = scenes.training(rows, size, np.random.default_rng(seed))
    return arms.replaced(arms.photographs, share)(batch)


def test_both_arms_see_the_same_crops_and_p_decides_the_share(scenes: Scenes) -> None:
    rows = np.repeat(scenes.store.rows("train"), 40)
    base, half, full = (training(scenes, rows, 32, 5, p) for p in (0.0, 0.5, 1.0))
    same_as_base = (half == base).flatten(1).all(1)
    same_as_full = (half == full).flatten(1).all(1)
    assert (same_as_base | same_as_full).all()
    assert 0.4 < same_as_full.float().mean() < 0.6
    assert (base != full).flatten(1).any(1).all()


def test_an_unusable_mask_leaves_its_image_alone(scenes: Scenes) -> None:
    last = np.array([len(scenes.store) - 1])
    assert not scenes.usable[last[0]]
    base, moved = (training(scenes, last, 48, 2, p) for p in (0.0, 1.0))
    torch.testing.assert_close(moved, base)


def test_training_backgrounds_come_from_the_train_pool_only(study: str, monkeypatch) -> None:
    scenes, seen = Scenes(study, "drawn"), set()
    kept = Sampler.random

    def spy(self: Sampler, rows: np.ndarray, *rest: object) -> torch.Tensor:
        if self is scenes.backgrounds:
            seen.update(rows.tolist())
        return kept(self, rows, *rest)

    monkeypatch.setattr(Sampler, "random", spy)
    training(scenes, np.repeat(0, 200), 16, 0)
    assert seen == set(scenes.backgrounds_store.rows("train").tolist())


def test_pictures_shrink_as_pil_shrinks_them(tmp_path) -> None:

    array = np.random.default_rng(0).integers(0, 255, (40, 61, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    made = shrink(open_image(tmp_path / "a.png"), 20)
    assert made.shape == (20, 30, 3)
    expected = Image.fromarray(array).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(made, np.asarray(expected))


def test_pixels_live_on_the_device_only_if_they_fit(scenes: Scenes, monkeypatch) -> None:
    store, device = scenes.store, torch.device("meta")  # a device that is not the CPU
    needed = store.pixels.nbytes
    for free, home in ((needed / 0.5, "meta"), (needed / 0.5 - 2, "cpu")):
        monkeypatch.setattr("lib.images.crops.free_memory", lambda _, free=free: free)
        sampler = Sampler([store], device)
        assert sampler.home.type == sampler.flat[0].device.type == home
    made = sampler.centre(np.arange(3), 32)  # windows from the CPU, resampled on the device
    assert made.device.type == "meta" and made.shape == (3, 3, 32, 32)


def test_a_gather_reads_what_copies_read(scenes: Scenes) -> None:
    rows, sampler = np.arange(len(scenes.store)), scenes.images
    boxes = random_boxes(sampler.heights, sampler.widths, np.random.default_rng(4))
    copied = sampler._copied(rows, boxes)
    assert torch.equal(copied, sampler._gathered(rows, boxes))
    assert copied[0].any() and not copied[0, int(boxes.height[0]) :].any()


def test_crops_do_not_depend_on_how_many_are_made_at_once(scenes: Scenes, monkeypatch) -> None:
    rows = scenes.store.rows("train")
    made = []
    for together in (1, 5, 64):
        monkeypatch.setattr("lib.images.crops.CACHED", together)
        made.append(training(scenes, rows, 40, 6))
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    assert len(rows) % 5


def test_a_training_image_is_its_composite_made_slowly(scenes: Scenes) -> None:
    """One image at a time by torchvision: crop image and mask alike, crop the background, mix."""
    rows, rng = scenes.store.rows("train"), np.random.default_rng(8)
    made = training(scenes, rows, 36, 8)
    images, behind = scenes.images, scenes.backgrounds
    boxes = random_boxes(images.heights[rows], images.widths[rows], rng)
    drawn = rng.choice(scenes.backgrounds_store.rows("train"), len(rows))
    rng.random(len(rows))
    others = random_boxes(behind.heights[drawn], behind.widths[drawn], rng)
    assert boxes.flip.any() and not boxes.flip.all()
    for i, (row, back) in enumerate(zip(rows, drawn, strict=True)):
        image = reference_crop(scenes.store.image(row), boxes, i, 36)
        mask = reference_crop(images.stores[1].image(row), boxes, i, 36) / 255
        place = reference_crop(scenes.backgrounds_store.image(back), others, i, 36)
        expected = image * mask + place * (1 - mask)
        torch.testing.assert_close(made[i], expected, atol=1.0, rtol=0)  # 1/255 of the scale
