import numpy as np
import pytest
import torch

from lib import evaluate, shifts
from lib.errors import StudyError
from lib.scenes import Scenes


@pytest.fixture
def scenes(study: str) -> Scenes:
    return Scenes(study, "drawn")


def show(scenes: Scenes, conditions: list[str], draw: int = 0) -> dict[str, np.ndarray]:
    rows = scenes.store.rows("test")
    made = shifts.specimen(scenes, rows, conditions, 40, rows, draw=draw)
    return {name: np.stack(images).astype(float) for name, images in made.items()}


def masks_of(scenes: Scenes) -> np.ndarray:
    rows = scenes.store.rows("test")
    return scenes.images.centre(rows, 40)[:, 3].numpy() / 255


def test_the_object_stays_and_the_rest_changes(scenes: Scenes) -> None:
    made, mask = show(scenes, list(shifts.CONDITIONS)), masks_of(scenes)
    solid, outside = mask > 0.999, mask < 0.001
    usable = scenes.usable[scenes.store.rows("test")]
    for name in ("random_background", "other_class_background", "foreground_only"):
        moved = np.abs(made[name] - made["clean"]).max(-1)
        assert moved[usable][solid[usable]].max() <= 1, name
        assert moved[usable][outside[usable]].mean() > 10, name
    painted = np.abs(made["background_only"] - made["clean"]).max(-1)
    assert painted[usable][solid[usable]].mean() > 5


def test_an_image_without_usable_mask_is_never_changed(scenes: Scenes) -> None:
    made = show(scenes, ["clean", "random_background", "foreground_only"])
    last = ~scenes.usable[scenes.store.rows("test")]
    assert last.sum() == 1
    for name in ("random_background", "foreground_only"):
        np.testing.assert_array_equal(made[name][last], made["clean"][last])


def test_draws_differ_and_repeat(scenes: Scenes) -> None:
    first, second = (show(scenes, ["random_background"], d)["random_background"] for d in (0, 1))
    again = show(scenes, ["random_background"], 0)["random_background"]
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


def test_mates_are_of_the_class_and_strangers_are_not(scenes: Scenes) -> None:
    rows, labels = scenes.store.rows("test"), scenes.store.labels
    for draw in range(5):
        choice = shifts.choose(scenes, rows, "test", 0, draw)
        assert (labels[choice.mate[rows]] == labels[rows]).all()
        assert (choice.mate[rows] != rows).all()
        assert (labels[choice.stranger[rows]] != labels[rows]).all()
        pool = set(scenes.backgrounds_store.rows("test"))
        assert set(choice.background[rows]) <= pool


def test_fill_takes_colours_from_around_and_leaves_the_rest() -> None:
    image = torch.full((1, 3, 40, 40), 50.0)
    image[:, :, :, 20:] = 200.0
    mask = torch.zeros(1, 1, 40, 40)
    mask[:, :, 12:20, 2:10] = 1
    image = torch.where(mask > 0, torch.tensor(255.0), image)
    made = shifts.fill(image, mask)
    assert made[0, 0, 12:20, 2:10].max() < 90
    far = torch.ones(40, 40, dtype=torch.bool)
    far[6:26, :16] = False
    torch.testing.assert_close(made[0, :, far], image[0, :, far])


def test_the_plan_needs_clean_and_draws_only_where_chance_is() -> None:
    plan = evaluate.plan(["clean", "random_background", "other_class_background"], 3, 2)
    assert plan == [("clean", 0)] + [("random_background", d) for d in range(3)] + [
        ("other_class_background", 0), ("other_class_background", 1),
    ]  # fmt: skip
    with pytest.raises(StudyError, match="must hold 'clean'"):
        evaluate.plan(["random_background"], 1, 1)
    with pytest.raises(StudyError, match="unknown condition 'clear'"):
        evaluate.plan(["clean", "clear"], 1, 1)
