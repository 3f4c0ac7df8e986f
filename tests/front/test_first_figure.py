"""The first image: one query before and after its background is changed."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.core.tiles import write_tiles
from lib.front import first_figure


def write(folder: Path, arms: list[str], conditions: list[str]) -> None:
    """A sheet of two rules; under `largest drop` one of three neighbours is right, shifted."""
    rows = [
        {"rule": rule, "arm": arm, "condition": condition, "loss": "triplet", "seed": 0,
         "place": place, "right": place == 1 or (condition == "clean"), "label": 0}
        for rule in ("largest drop", "median")
        for arm in arms
        for condition in conditions
        for place in range(4)
    ]  # fmt: skip
    tiles = [np.full((8, 8, 3), at, np.uint8) for at in range(len(rows))]
    write_tiles(folder / "measured" / "evaluation" / "gallery", tiles, pd.DataFrame(rows))


def test_reference_before_and_after_then_the_arm(tmp_path: Path) -> None:
    write(tmp_path / "study", ["base", "bgaugment"], ["clean", "random_background"])
    drawn = first_figure.figure({"Birds": tmp_path / "study"})
    titles = [text.get_text() for axis in drawn.axes for text in axis.texts]
    assert titles == [
        "Largest fall, base, as photographed: 3 of 3 right",
        "Largest fall, base, other backgrounds: 1 of 3 right",
        "Largest fall, BGAugment, other backgrounds: 1 of 3 right",
        "Median fall, base, as photographed: 3 of 3 right",
        "Median fall, base, other backgrounds: 1 of 3 right",
    ]


def test_one_arm_and_one_condition(tmp_path: Path) -> None:
    write(tmp_path / "one", ["base"], ["clean", "random_background"])
    assert len(first_figure.figure({"One": tmp_path / "one"}).axes) == 4 * 4
    write(tmp_path / "clean", ["base"], ["clean"])
    assert first_figure.figure({"Clean": tmp_path / "clean"}) is None


def test_two_studies_show_the_largest_fall_of_each(tmp_path: Path) -> None:
    names = ["Birds", "Nothing", "Cars", "Products"]
    folders = {name: tmp_path / name for name in names}
    for name in ("Birds", "Cars", "Products"):
        write(folders[name], ["base", "bgaugment"], ["clean", "random_background"])
    drawn = first_figure.figure(folders)
    titles = [text.get_text() for axis in drawn.axes for text in axis.texts]
    assert titles == [
        f"{name}, {words}: {right} of 3 right"
        for name in ("Birds", "Cars")
        for words, right in (
            ("base, as photographed", 3),
            ("base, other backgrounds", 1),
            ("BGAugment, other backgrounds", 1),
        )
    ]


def test_studies_without_images_are_passed_over(tmp_path: Path) -> None:
    assert first_figure.write({"None": tmp_path / "none"}, tmp_path, "first") is None
    write(tmp_path / "study", ["base", "bgaugment"], ["clean", "random_background"])
    studies = {"None": tmp_path / "none", "Study": tmp_path / "study"}
    assert first_figure.write(studies, tmp_path, "first")
    assert (tmp_path / "first.jpg").exists()
