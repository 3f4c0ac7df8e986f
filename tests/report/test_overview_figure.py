"""The figure of the first screen, from rows made by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.report import overview_figure


def a_study(name: str, dataset: str, drop: float) -> SimpleNamespace:
    """Two losses; base loses `drop` and `drop` + 2 of 20, BGAugment half of that of 19."""

    def row(arm: str, clean: float, change: float) -> dict:
        return {
            "arm": arm, "clean": clean, "change": change, "low": change - 1, "high": change + 1,
        }  # fmt: skip

    rows = [
        (label, [row("base", 20, -lost), row("bgaugment", 19, -lost / 2)])
        for label, lost in (("Triplet", drop), ("ArcFace", drop + 2))
    ]
    trunk = [("", [row("untrained", 9, -drop)])]
    entry = {"seeds": 2, "queries": 7}
    return SimpleNamespace(name=name, dataset=dataset, entry=entry, rows=trunk + rows)


def test_birds_come_before_cars_and_drawn_pictures_stay_out() -> None:
    studies = [
        a_study("a", "cars196", 4), a_study("b", "cub200", 10), a_study("c", "rendered", 30),
    ]  # fmt: skip
    found = overview_figure.chosen(studies)
    assert [study.name for study in found] == ["b", "a"]
    assert overview_figure.finding(found) == (
        "A new background takes 11.0 [10.0, 12.0] of 20.0 points of MAP@R on birds and "
        "5.0 [4.0, 6.0] of 20.0 on cars; with BGAugment 5.5 [4.5, 6.5] of 19.0 on birds and "
        "2.5 [1.5, 3.5] of 19.0 on cars"
    )
    figure = overview_figure.figure(found)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["untrained trunk", "Triplet", "ArcFace"]
    places = [line.get_xdata()[0] for line in figure.axes[1].containers[1].lines[:1]]
    assert places == [-4]  # the cars' first trained row
    assert [study.name for study in overview_figure.chosen(studies[2:])] == [
        "c"
    ]  # nothing else to show


def test_seeds_behind_a_mark() -> None:
    birds, cars = a_study("b", "cub200", 10), a_study("a", "cars196", 4)
    assert overview_figure.trained([birds, cars]) == "mean of 2 seeds"
    cars.entry["seeds"] = 1
    assert overview_figure.trained([birds, cars]) == "mean of 2 seeds on birds and 1 seed on cars"
    assert overview_figure.trained([cars]) == "mean of 1 seed"


def test_gains_of_all_studies_or_none() -> None:
    birds, cars = a_study("b", "cub200", 10), a_study("a", "cars196", 4)
    birds.entry["gain_points"] = {"random_background": [2.06, 1.4, 2.7], "clean": [-0.6, -1.3, 0]}
    assert overview_figure.gains([birds, cars]) == ""
    cars.entry["gain_points"] = {"random_background": [0.2, -0.2, 0.7], "clean": [-0.5, -1.2, 0.1]}
    assert overview_figure.gains([birds, cars]).endswith(
        "on new backgrounds +2.1 [1.4, 2.7] on birds and +0.2 [-0.2, 0.7] on cars; clean -0.6 "
        "[-1.3, 0.0] on birds and -0.5 [-1.2, 0.1] on cars"
    )


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    assert overview_figure.write([], tmp_path) is None and not any(tmp_path.iterdir())
    studies = [a_study("b", "cub200", 10)]
    words = overview_figure.write(studies, tmp_path)
    files = [tmp_path / f"overview.{kind}" for kind in ("png", "svg")]
    first = [file.read_bytes() for file in files]
    assert "birds" in words and overview_figure.write(studies, tmp_path) == words
    assert first == [file.read_bytes() for file in files]


@pytest.mark.parametrize("arm", ["base", "bgaugment"])
def test_a_study_without_an_arm_is_left_out(arm: str, tmp_path: Path) -> None:
    study = a_study("b", "cub200", 10)
    study.rows = [(name, [row for row in rows if row["arm"] != arm]) for name, rows in study.rows]
    assert overview_figure.write([study], tmp_path) is None
