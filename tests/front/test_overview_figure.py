"""The figure of the first screen, from rows made by hand."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from lib.front import overview_figure


def a_study(name: str, dataset: str, drop: float) -> SimpleNamespace:
    """Two losses; base loses `drop` and `drop` + 2 of 20, BGAugment half of that of 19."""

    def row(arm: str, clean: float, change: float) -> dict:
        lost = -100 * change / clean
        return {"arm": arm, "lost": lost, "lost_low": lost - 1, "lost_high": lost + 1}

    rows = [
        (label, [row("base", 20, -lost), row("bgaugment", 19, -lost / 2)])
        for label, lost in (("Triplet", drop), ("ArcFace", drop + 2))
    ]
    trunk = [("", [row("untrained", 9, -drop)])]
    return SimpleNamespace(
        stale="",
        name=name, dataset=dataset, label=name.upper(), rows=trunk + rows,
        entry={"queries": 7, "losses": ["triplet", "arcface"]},
        lost=pd.DataFrame(
            [["base", drop / 20, 0.1, 0.6], ["bgaugment", drop / 40, float("nan"), float("nan")]],
            columns=["arm", "value", "low", "high"],
        ),
        seeds=2, gains={},
    )  # fmt: skip


def test_birds_come_before_cars_and_rendered_images_stay_out() -> None:
    studies = [
        a_study("a", "cars196", 4), a_study("b", "cub200", 10), a_study("c", "rendered", 30),
    ]  # fmt: skip
    found = overview_figure.chosen(studies)
    assert [study.name for study in found] == ["b", "a"]
    told = overview_figure.finding(found)
    birds, cars = "base 50 % [10 to 60], BGAugment 25 %", "base 20 % [10 to 60], BGAugment 10 %"
    assert f"B: {birds}; A: {cars}" in told
    figure = overview_figure.figure(found)
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes]
    assert titles == ["B: base 50 %, BGAugment 25 %", "A: base 20 %, BGAugment 10 %"]
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["untrained trunk", "Triplet", "ArcFace"]
    places = [line.get_xdata()[0] for line in figure.axes[1].containers[1].lines[:1]]
    assert places == [20]  # percent that the cars' first trained row loses
    alone = overview_figure.chosen(studies[2:])
    assert [study.name for study in alone] == ["c"]  # nothing else to show


def test_of_one_data_set_the_study_with_most_trainings_is_drawn() -> None:
    few, many, cars = (
        a_study("a", "cub200", 10),
        a_study("b", "cub200", 8),
        a_study("c", "cars196", 4),
    )
    few.seeds, many.seeds = 1, 3
    for studies in ([few, many, cars], [many, cars, few]):
        assert [study.name for study in overview_figure.chosen(studies)] == ["b", "c"]
    many.stale = "Stale: made with other code"
    assert [study.name for study in overview_figure.chosen([few, many, cars])] == ["a", "c"]


def test_an_arm_that_one_study_alone_has_is_not_drawn() -> None:
    birds, cars = a_study("b", "cub200", 10), a_study("a", "cars196", 4)
    more = {"arm": "pairs", "lost": 77.0, "lost_low": 76.0, "lost_high": 78.0}
    birds.rows[1][1].append(more)
    birds.lost.loc[2] = ["pairs", 0.77, 0.7, 0.8]
    assert overview_figure.arms_of([birds, cars]) == ["untrained", "base", "bgaugment"]
    common = overview_figure.arms_of([birds, cars])
    assert "77" not in overview_figure.finding([birds, cars])
    assert "77" not in overview_figure.title(birds, common)
    drawn = overview_figure.figure([birds, cars]).axes[0].containers
    assert 77 not in [x for bars in drawn for x in bars.lines[0].get_xdata()]
    assert overview_figure.arms_of([birds]) == ["untrained", "base", "bgaugment", "pairs"]
    assert "Pairs 77 %" in overview_figure.title(birds, overview_figure.arms_of([birds]))
    for study, arm in ((birds, "base"), (cars, "pairs")):
        study.rows = [(name, [row | {"arm": arm} for row in rows]) for name, rows in study.rows]
    assert overview_figure.arms_of([birds, cars]) == ["base", "pairs"]  # none in common: all


def test_gains_are_rows_a_study_and_contrast() -> None:
    birds, cars = a_study("b", "cub200", 10), a_study("a", "cars196", 4)
    birds.gains = {
        "bgaugment-base": {"random_background": [2.06, 1.4, 2.7], "clean": [-0.6, None, None]}
    }
    assert overview_figure.gains([birds, cars]) == [
        ("B", "BGAugment − base", "2.1 [1.4, 2.7]", "-0.6")
    ]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    assert overview_figure.write([], tmp_path) is None and not any(tmp_path.iterdir())
    studies = [a_study("b", "cub200", 10)]
    words = overview_figure.write(studies, tmp_path)
    files = [tmp_path / f"overview.{kind}" for kind in ("png", "svg")]
    first = [file.read_bytes() for file in files]
    assert "B: base" in words and overview_figure.write(studies, tmp_path) == words
    assert first == [file.read_bytes() for file in files]


@pytest.mark.parametrize("arm", ["base", "bgaugment"])
def test_a_study_with_one_arm_is_drawn(arm: str, tmp_path: Path) -> None:
    study = a_study("b", "cub200", 10)
    study.rows = [(name, [row for row in rows if row["arm"] == arm]) for name, rows in study.rows]
    study.rows = [(name, rows) for name, rows in study.rows if rows]
    assert overview_figure.write([study], tmp_path)
    assert overview_figure.arms_of([study]) == [arm]
