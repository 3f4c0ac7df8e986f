"""Background uniformity against a plain loop and cases whose answer is known."""

import itertools

import numpy as np
import pytest

from lib.evaluation.uniformity import background_colours, class_uniformity
from lib.images.scenes import Scenes


def test_mean_over_all_pairs_by_loop() -> None:
    generator = np.random.default_rng(0)
    colours = generator.dirichlet(np.ones(6), 9)
    labels = np.array([4, 4, 1, 1, 1, 1, 7, 4, 4])
    colours[8] = np.nan
    found = class_uniformity(colours, labels).set_index("label")
    for label, members in {1: [2, 3, 4, 5], 4: [0, 1, 7]}.items():
        pairs = itertools.combinations(members, 2)
        expected = np.mean([np.minimum(colours[a], colours[b]).sum() for a, b in pairs])
        assert found.loc[label, "uniformity"] == pytest.approx(expected)
        assert found.loc[label, "images"] == len(members)
    assert np.isnan(found.loc[7, "uniformity"])


def test_alike_is_one_and_apart_is_zero() -> None:
    colours = np.eye(4)[[0, 0, 0, 1, 2]]
    found = class_uniformity(colours, np.array([0, 0, 0, 1, 1]))["uniformity"]
    assert found.tolist() == pytest.approx([1, 0])


def test_only_the_background_counts(study: str) -> None:
    scenes = Scenes(study, "drawn")
    rows = scenes.store.rows("test")
    row = rows[0]
    before = background_colours(scenes, rows)
    np.testing.assert_allclose(before[:-1].sum(1), 1, atol=1e-5)
    assert np.isnan(before[-1]).all()  # no usable mask: its background is not known
    picture, mask = scenes.store.image(row), scenes.images.stores[1].image(row)
    picture[mask == 255] = 255 - picture[mask == 255]
    inside = background_colours(scenes, rows[:1])
    # bilinear resampling mixes a little of the object into pixels at its rim
    assert np.abs(inside - before[:1]).sum() < 0.05
    picture[mask == 0] = 255 - picture[mask == 0]
    assert np.abs(background_colours(scenes, rows[:1]) - before[:1]).sum() > 0.3
