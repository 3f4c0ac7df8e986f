"""Remedies at search time, with a network that shrinks its image and masks that can be foretold."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.evaluation import embeddings, remedies, remedies_measure
from lib.evaluation import models as trained_models
from lib.evaluation.measured import read_compact
from lib.images.conditions import specimen
from lib.images.scenes import Scenes
from lib.models import embedding
from lib.retrieval import metrics

SIZE, CONDITIONS = 40, ["clean", "random_background"]
WHO = [("none", "untrained", 0), ("triplet", "base", 0), ("triplet", "bgaugment", 0)]


class Shrinks(torch.nn.Module):
    """Embeds an image as itself, 4 x 4 pixels of it."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(F.adaptive_avg_pool2d(images, 4).flatten(1) - 0.4, dim=1)


@pytest.fixture
def seen(study: str, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The images of which masks are asked; the mask is the brighter half of each."""
    images: list[np.ndarray] = []

    def predicted(given: np.ndarray, source: str, title: str) -> np.ndarray:
        images.append(given)
        grey = given.mean(3)
        return (grey > np.median(grey, (1, 2), keepdims=True)).astype(np.float32)

    made = [
        (trained_models.Model(*who, "trunk", 48, SIZE, "f32", None), {"trunk": "trunk"})
        for who in WHO
    ]
    net = Shrinks()
    monkeypatch.setattr(trained_models.Model, "identity", property(lambda self: self.arm))
    monkeypatch.setattr(remedies_measure, "described", lambda study: made)
    monkeypatch.setattr(embeddings, "loaded", lambda model: (net, net))
    monkeypatch.setattr(embedding, "forward_of", lambda model, precision: model)
    monkeypatch.setattr(remedies, "predicted", predicted)
    write_json(paths.StudyPaths(study).masks / "source.json", {"source": "drawn"})
    return images


def measured(study: str, name: str) -> pd.DataFrame:
    folder = paths.StudyPaths(study).measured / "remedies"
    return read_compact([folder / "classes" / f"{name}.parquet"])


def value(table: pd.DataFrame, remedy: str, condition: str, sides: str) -> float:
    keep = (table["remedy"] == remedy) & (table["condition"] == condition)
    part = table[keep & (table["sides"] == sides)]
    return float((part["map_at_r"] * part["n"]).sum() / part["n"].sum())


def test_masks_come_from_the_images_as_they_are_shown(study: str, seen: list) -> None:
    remedies_measure.measure(study, CONDITIONS, ["cut_out"], ["base"], 0, "u2netp@160")
    scenes = Scenes(study, "drawn")
    rows = scenes.store.rows("test")
    expected = specimen(scenes, rows, CONDITIONS, SIZE, rows)
    assert len(seen) == 2  # once a condition, not once a model
    for given, condition in zip(seen, CONDITIONS, strict=True):
        np.testing.assert_array_equal(given, np.stack(expected[condition]))
    assert (seen[0] != seen[1]).any()  # the shifted image is not the clean one


def test_a_treated_search_by_hand(study: str, seen: list) -> None:
    remedies_measure.measure(study, CONDITIONS, ["cut_out"], ["base"], 0, "u2netp@160")
    table, net = measured(study, "triplet-base-0"), Shrinks()
    labels = torch.as_tensor(Scenes(study, "drawn").store.labels)[-12:]

    def embedded(images: np.ndarray, treat: bool) -> torch.Tensor:
        out = []
        for image in images.astype(float):
            grey = image.mean(2)
            mask = (grey > np.median(grey)).astype(float)[..., None]
            image = np.round(image * mask + 127 * (1 - mask)) if treat else image
            out.append(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1) / 255)
        with torch.no_grad():
            return net(torch.stack(out))

    own = torch.arange(12)
    clean, moved = (embedded(images, True) for images in seen)
    bare = embedded(seen[0], False)
    for remedy, sides, found in (
        ("cut_out", "both", metrics.evaluate(moved, labels)),
        ("cut_out", "query", metrics.evaluate(moved, labels, clean, labels, exclude=own)),
        ("cut_out+query", "query", metrics.evaluate(moved, labels, bare, labels, exclude=own)),
    ):
        mean = float(found["map_at_r"].nanmean())
        assert value(table, remedy, "random_background", sides) == pytest.approx(mean, abs=1e-6)
    plain = float(metrics.evaluate(bare, labels)["map_at_r"].nanmean())
    assert value(table, "none", "clean", "both") == pytest.approx(plain, abs=1e-6)


def test_which_arms_and_classes_are_measured(study: str, seen: list) -> None:
    remedies_measure.measure(study, CONDITIONS, ["box_crop"], ["base"], 2, "u2netp@160")
    facts = read_json(paths.StudyPaths(study).measured / "remedies" / "study.json")
    assert facts["classes"] == 2 and facts["images"] == 12 and set(facts["usable"]) == {*CONDITIONS}
    assert set(measured(study, "triplet-bgaugment-0")["remedy"]) == {"none"}
    for name in ("none-untrained-0", "triplet-base-0"):
        assert set(measured(study, name)["remedy"]) == {"none", "box_crop", "box_crop+query"}
    before, count = measured(study, "triplet-base-0"), len(seen)
    remedies_measure.measure(study, CONDITIONS, ["box_crop"], ["base"], 2, "u2netp@160")
    assert len(seen) == count  # nothing is made twice
    pd.testing.assert_frame_equal(before, measured(study, "triplet-base-0"))


@pytest.mark.parametrize(
    "wrong, words",
    [({"remedies": ["cutout"]}, "unknown remedy 'cutout'.*cut_out"), ({"arms": ["bas"]}, "bas"),
     ({"classes": 1}, "2 or more"), ({"mask_source": "true"}, "network of rembg"),
     ({"conditions": ["random_background"]}, "clean")],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(wrong: dict, words: str) -> None:
    given = {"conditions": CONDITIONS, "remedies": ["cut_out"], "arms": ["base"], "classes": 0,
             "mask_source": "u2netp@160"}  # fmt: skip
    assert remedies_measure.check(**given) == [("clean", 0), ("random_background", 0)]
    with pytest.raises(StudyError, match=words):
        remedies_measure.check(**given | wrong)
