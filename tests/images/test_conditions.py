import numpy as np
import pytest
import torch

from lib.core.errors import StudyError
from lib.core.hardware import THREADS
from lib.evaluation import embeddings
from lib.images import conditions as test_conditions
from lib.images.inpainting import GROW, blur, fill, tile
from lib.images.scenes import Scenes
from lib.models import embedding


@pytest.fixture
def scenes(study: str) -> Scenes:
    return Scenes(study, "drawn")


def show(scenes: Scenes, conditions: list[str], draw: int = 0) -> dict[str, np.ndarray]:
    rows = scenes.store.rows("test")
    made = test_conditions.specimen(scenes, rows, conditions, 40, rows, draw=draw)
    return {name: np.stack(images).astype(float) for name, images in made.items()}


def masks_of(scenes: Scenes) -> np.ndarray:
    rows = scenes.store.rows("test")
    return scenes.images.centre(rows, 40)[:, 3].numpy() / 255


def test_the_object_stays_and_the_rest_changes(scenes: Scenes) -> None:
    made, mask = show(scenes, list(test_conditions.CONDITIONS)), masks_of(scenes)
    solid, outside = mask > 0.999, mask < 0.001
    usable = scenes.usable[scenes.store.rows("test")]
    for name in ("random_background", "other_class_background", "other_class_tiled",
                 "foreground_only", "foreground_on_black", "foreground_on_mean"):  # fmt: skip
        moved = np.abs(made[name] - made["clean"]).max(-1)
        assert moved[usable][solid[usable]].max() <= 1, name
        assert moved[usable][outside[usable]].mean() > 10, name
    painted = np.abs(made["background_only"] - made["clean"]).max(-1)
    assert painted[usable][solid[usable]].mean() > 5


def test_an_image_without_usable_mask_is_never_changed(scenes: Scenes) -> None:
    made = show(scenes, list(test_conditions.CONDITIONS))
    last = ~scenes.usable[scenes.store.rows("test")]
    assert last.sum() == 1
    assert made["background_only"][last].max() == 0  # all is object: nothing of it is known
    for name in set(test_conditions.CONDITIONS) - {"background_only"}:
        np.testing.assert_array_equal(made[name][last], made["clean"][last])


def test_draws_differ_and_repeat(scenes: Scenes) -> None:
    first, second = (show(scenes, ["random_background"], d)["random_background"] for d in (0, 1))
    again = show(scenes, ["random_background"], 0)["random_background"]
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


def test_mates_are_of_the_class_and_strangers_are_not(scenes: Scenes) -> None:
    rows, labels = scenes.store.rows("test"), scenes.store.labels
    for draw in range(5):
        choice = test_conditions.choose(scenes, rows, "test", 0, draw)
        assert (labels[choice.mate[rows]] == labels[rows]).all()
        assert (choice.mate[rows] != rows).all()
        assert (labels[choice.stranger[rows]] != labels[rows]).all()
        pool = set(scenes.backgrounds_store.rows("test"))
        assert set(choice.background[rows]) <= pool


def test_a_shared_photograph_is_not_shared_pixels(scenes: Scenes) -> None:
    rows = scenes.store.rows("test")
    choice = test_conditions.choose(scenes, rows, "test", 0, 0)
    assert len(set(choice.background[rows])) < len(rows)  # three photographs, twelve images
    crops = np.stack([getattr(choice.crop, name)[rows] for name in ("top", "left", "height")], 1)
    assert len(np.unique(np.column_stack([crops, choice.background[rows]]), axis=0)) == len(rows)
    assert choice.crop.flip[rows].any() and not choice.crop.flip[rows].all()


def test_places_elsewhere_are_dealt_out_from_other_splits(scenes: Scenes) -> None:
    rows, split = scenes.store.rows("test"), scenes.store.index["split"]
    choice = test_conditions.choose(scenes, rows, "test", 0, 0)
    assert set(split[choice.elsewhere[rows]]) == {"train", "validation"}
    assert len(set(choice.elsewhere[rows])) == len(rows) and not choice.mirrored[rows].any()
    many = np.concatenate([rows, scenes.store.rows("validation")])  # more than training images
    again = test_conditions.choose(scenes, many, "test", 0, 0)
    pairs = set(zip(again.elsewhere[many], again.mirrored[many], strict=True))
    assert set(split[again.elsewhere[many]]) == {"train"} and len(pairs) == len(many)
    first, second = (show(scenes, ["unshared_background"], d) for d in (0, 1))
    assert (first["unshared_background"] != second["unshared_background"]).any()


def test_who_is_alone_stays_at_home_and_an_empty_pool_is_refused(scenes: Scenes) -> None:
    rows, labels = scenes.store.rows("test"), scenes.store.labels
    few = np.append(rows[labels[rows] == labels[rows[0]]], rows[-2])  # a class, and one alone
    choice = test_conditions.choose(scenes, few, "test", 0, 0)
    assert choice.mate[few[-1]] == few[-1] and choice.stranger[few[-1]] in few[:-1]
    with pytest.raises(StudyError, match="'tests'.*test, train, validation"):
        test_conditions.choose(scenes, rows, "tests", 0, 0)


def test_colours_of_the_plain_backgrounds(scenes: Scenes) -> None:
    made, mask = show(scenes, ["foreground_on_black", "foreground_on_mean"]), masks_of(scenes)
    outside = (mask == 0) & scenes.usable[scenes.store.rows("test")][:, None, None]
    assert made["foreground_on_black"][outside].max() == 0
    assert np.unique(made["foreground_on_mean"][outside], axis=0).tolist() == [[124, 116, 104]]


def test_places_of_both_kinds_are_those_of_the_same_images(scenes: Scenes) -> None:
    names = ["same_class_background", "same_class_tiled", "clean"]
    rows, masks = scenes.store.rows("test"), masks_of(scenes)
    mate = test_conditions.choose(scenes, rows, "test", 0, 0).mate[rows]
    made, at = show(scenes, names), int(np.flatnonzero(scenes.usable[rows])[0])
    other = int(np.flatnonzero(rows == mate[at])[0])
    far = (masks[at] == 0) & (masks[other] == 0)
    far[:, 4:] = False  # the left edge is outside of every object and of its widened mask
    difference = np.abs(made["same_class_background"][at] - made["clean"][other]).max(-1)
    assert far.sum() > 100 and difference[far].max() <= 1


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Dark left, light right, a white object left of the middle that leaves most room at right."""
    image = torch.full((1, 3, 40, 40), 50.0)
    image[:, :, :, 20:] = 180 + torch.arange(20.0)
    mask = torch.zeros(1, 1, 40, 40)
    mask[:, :, 12:20, 2:10] = 1
    return torch.where(mask > 0, torch.tensor(255.0), image), mask


def test_tiles_are_mirrored_copies_of_the_largest_free_strip() -> None:
    image, mask = scene()
    made = tile(image, mask)
    reach = 10 + GROW // 2  # first column that the widened object does not touch
    strip = image[0, 0, 0, reach:].tolist()
    expected = (strip + strip[::-1])[:40]
    assert made[0, 0, 5].tolist() == expected and made[0, 0, 39].tolist() == expected
    assert made.max() < 255


def test_without_a_free_strip_tiles_fall_back_to_filling() -> None:
    image, mask = scene()
    mask[:, :, 4:36, 20] = mask[:, :, 20, 4:37] = 1
    torch.testing.assert_close(tile(image, mask), fill(image, mask))
    everything = torch.ones_like(mask)
    torch.testing.assert_close(tile(image, everything), fill(image, everything))
    nothing = torch.zeros_like(mask)
    torch.testing.assert_close(tile(image, nothing), image)


def test_blur_keeps_the_colours_around_and_none_of_the_object() -> None:
    image, mask = scene()
    made = blur(image, mask)
    assert made[0, 0, 12:20, 2:10].max() < 90 and made.max() < 200
    assert float(made.mean()) == pytest.approx(float(fill(image, mask).mean()), rel=0.01)
    edge = made[0, 0, 30].diff()
    assert (edge > -1e-3).all() and edge.max() < 40  # the step of 130 in the middle is spread


def test_every_condition_has_a_label_and_a_source() -> None:
    labels = [condition.label for condition in test_conditions.CONDITIONS.values()]
    assert len(set(labels)) == len(labels)
    assert all(condition.source for condition in test_conditions.CONDITIONS.values())
    for pair in test_conditions.GAPS.values():
        assert set(pair) <= set(test_conditions.CONDITIONS)


def test_fill_takes_colours_from_around_and_leaves_the_rest() -> None:
    image = torch.full((1, 3, 40, 40), 50.0)
    image[:, :, :, 20:] = 200.0
    mask = torch.zeros(1, 1, 40, 40)
    mask[:, :, 12:20, 2:10] = 1
    image = torch.where(mask > 0, torch.tensor(255.0), image)
    made = fill(image, mask)
    assert made[0, 0, 12:20, 2:10].max() < 90
    far = torch.ones(40, 40, dtype=torch.bool)
    far[6:26, :16] = False
    torch.testing.assert_close(made[0, :, far], image[0, :, far])


def test_the_plan_needs_clean_and_draws_only_where_chance_is() -> None:
    plan = embeddings.plan(["clean", "random_background", "other_class_background"], 3, 2)
    assert plan == [("clean", 0)] + [("random_background", d) for d in range(3)] + [
        ("other_class_background", 0), ("other_class_background", 1),
    ]  # fmt: skip
    with pytest.raises(StudyError, match="must hold 'clean'"):
        embeddings.plan(["random_background"], 1, 1)
    with pytest.raises(StudyError, match="unknown condition 'clear'"):
        embeddings.plan(["clean", "clear"], 1, 1)


class Counting(torch.nn.Module):
    """The mean colour as an embedding; notes how many threads torch had."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.threads = torch.nn.Parameter(torch.ones(3)), []

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.threads.append(torch.get_num_threads())
        return images.mean(dim=(2, 3)) * self.weight


def test_the_machines_threads_do_not_matter(scenes: Scenes) -> None:
    model, rows, before = Counting(), scenes.store.rows("test"), torch.get_num_threads()
    made = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        made.append(
            embedding.embed(
                model, scenes, rows, "same_class_tiled", draw=0, seed=0, size=40, forward=model
            )
        )
        assert torch.get_num_threads() == threads  # given back
    torch.set_num_threads(before)
    assert torch.equal(*made) and set(model.threads) == {THREADS}
