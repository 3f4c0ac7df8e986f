"""Repeats with other seeds: tables joined and averaged by hand; trained by tests/test_pipeline."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.core.errors import StudyError
from lib.experiments import repeats
from lib.images.scenes import Scenes
from lib.report import answers
from lib.report import seeds as seeds_
from lib.report.style import LABELS, rounded


def effects(seed: int, base: list[float], moved: list[float]) -> pd.DataFrame:
    """Two losses: change of base and of BGAugment, and the gain of BGAugment by 0.01."""
    rows = [
        {"loss": loss, "arm": arm, "contrast": contrast, "value": value}
        for number, loss in enumerate(("triplet", "arcface"))
        for arm, contrast, value in (
            ("base", "shifted-clean", base[number]),
            ("bgaugment", "shifted-clean", moved[number]),
            ("bgaugment", "bgaugment-base", 0.01 * (1 + seed)),
        )
    ]
    same = {"seed": seed, "condition": "random_background", "sides": "both", "metric": "map_at_r"}
    table = pd.DataFrame(rows).assign(n=9, **same)
    return table.assign(low=table["value"] - 0.02, high=table["value"] + 0.04)


FIRST, AGAIN = effects(0, [-0.08, -0.06], [-0.02, -0.04]), effects(1, [-0.09, -0.11], [0.0, -0.02])


def test_a_study_is_read_with_its_repeats_and_no_other(tmp_path: Path) -> None:
    for place, table in (
        ("s/effects", FIRST), ("repeats/s/effects_1", AGAIN), ("repeats/s-2/effects_1", AGAIN),
        ("repeats/s/retrieval_1", AGAIN),
    ):  # fmt: skip
        file = tmp_path / f"{place}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(file, index=False)
    found = repeats.joined(tmp_path / "s", "effects")
    assert len(found) == len(FIRST) + len(AGAIN) and list(found["seed"].unique()) == [0, 1]
    (tmp_path / "s" / "masks.csv").write_text("source\nu2netp\n")
    assert len(repeats.joined(tmp_path / "s", "masks")) == 1  # not measured again


def test_means_by_seed_and_their_interval() -> None:
    table = seeds_.by_seed(pd.concat([FIRST, AGAIN]))
    assert table.loc[0].to_numpy() == pytest.approx([-7, -3, 1])
    assert table.loc[1].to_numpy() == pytest.approx([-10, -1, 2])
    found = seeds_.over_seeds(table)
    half = 12.706 * np.std([-7, -10], ddof=1) / np.sqrt(2)  # Student's t, one degree
    expected = [-8.5, -8.5 - half, -8.5 + half, 2]
    assert found.loc["base"].to_numpy() == pytest.approx(expected, abs=0.01)
    said = seeds_.finding(table, 1)
    assert "base 10.0 points of MAP@R (other seeds: 7.0), BGAugment 1.0 points" in said
    told = seeds_.seeds_finding(table)
    assert "change of base -10.0 to -7.0, change of BGAugment -3.0 to -1.0, gain" in told
    assert told.endswith("+1.0 to +2.0.")
    same = seeds_.seeds_finding(table.loc[[0, 0]])
    assert "change of base -7.0, change of BGAugment -3.0, gain" in same
    assert seeds_.over_seeds(table.loc[[0]])["low"].isna().all()


def test_answers_give_both_intervals() -> None:
    both = pd.concat([FIRST, AGAIN])
    rows = both[(both["arm"] == "base")]
    half = 12.706 * np.std([7, 10], ddof=1) / np.sqrt(2)
    seeds = f"[{8.5 - half:.1f}, {8.5 + half:.1f}], 2 seeds"
    assert answers.points(rows, -1) == (
        "**8.5 [4.5, 10.5] points** (6.0 to 11.0 over 4 models, surely above zero in 4; "
        f"other trainings: {seeds})"
    )
    split = pd.concat([rows, rows.assign(value=0.01, low=0.004, high=0.02)[:1]])
    assert "surely above zero in 4, below in 1;" in answers.points(split, -1)
    assert "surely above zero in 1, below in 4;" in answers.points(split)
    assert answers.points(rows[:1]) == "**-8.0 [-10.0, -4.0] points**"
    assert answers.points(rows[:0]) == "not measured"


def test_what_holds_in_every_seed() -> None:
    """Triplet: surely better in both seeds; ArcFace: better, then not sure; worse when clean."""
    gains = [
        ("triplet", "random_background", 0, 0.03, 0.01), ("triplet", "clean", 0, 0.01, 0.02),
        ("triplet", "random_background", 1, 0.05, 0.01), ("triplet", "clean", 1, -0.01, 0.02),
        ("arcface", "random_background", 0, 0.02, 0.01), ("arcface", "clean", 0, -0.05, 0.03),
        ("arcface", "random_background", 1, 0.02, 0.04), ("arcface", "clean", 1, -0.07, 0.03),
    ]  # fmt: skip
    rows = pd.DataFrame(gains, columns=["loss", "condition", "seed", "value", "half"])
    rows = rows.assign(low=rows["value"] - rows["half"], high=rows["value"] + rows["half"])
    same = {"contrast": "bgaugment-base", "arm": "bgaugment", "sides": "both"}
    rows = rows.assign(metric="map_at_r", **same)
    none = {field.name: pd.DataFrame() for field in fields(answers.Tables)}
    tables = answers.Tables(**(none | {"effects": rows}))
    assert answers.steady(tables, "random_background") == {"arcface": 0, "triplet": 1}
    assert answers.steady(tables, "clean") == {"arcface": -1, "triplet": 0}
    assert answers.steady_gains(tables) == (
        "**Loss by loss, in every one of 2 seeds.** New background: surely better with Triplet, "
        "surely worse with none. Clean: surely better with none, surely worse with ArcFace."
    )
    table = answers.gains_by_loss(tables)
    assert table["New background", "gain ↑"].to_dict() == {
        "ArcFace": "2.0 [-0.5, 4.5]", "Triplet": "4.0 [3.0, 5.0]",
    }  # fmt: skip
    assert table["New background", "better"].to_list() == ["1 of 2", "2 of 2"]
    assert table["Clean", "worse"].to_list() == ["2 of 2", "0 of 2"]


def a_table(rows: list[tuple], **same: object) -> pd.DataFrame:
    """Rows of arm, condition, sides, seed and value, 0.01 on either side as the interval."""
    table = pd.DataFrame(rows, columns=["arm", "condition", "sides", "seed", "value"])
    table = table.assign(loss="triplet", metric="map_at_r", n=9, **same)
    return table.assign(low=table["value"] - 0.01, high=table["value"] + 0.01)


def test_what_one_seed_has_is_compared_with_that_seed_only() -> None:
    """Seed 1 has the paper's conditions alone, and other values."""
    kinds = ("clean", "random_background", "other_class_background", "foreground_only")
    kinds += ("background_only",)
    down = [("base", kind, "both", 0, -0.1 * i) for i, kind in enumerate(kinds) if i]
    down += [("base", "random_background", side, 1, -0.7) for side in ("both", "query")]
    down += [("base", "random_background", "query", 0, -0.05)]
    levels = [(arm, k, "both", 0, 0.2 * i) for arm in LABELS for i, k in enumerate(kinds)]
    levels += [("base", "clean", "both", 1, 0.8)]
    none = {field.name: pd.DataFrame() for field in fields(answers.Tables)}
    made = {"effects": a_table(down, contrast="shifted-clean"), "retrieval": a_table(levels)}
    tables = answers.Tables(**(none | made))
    told = answers.alone(tables)
    assert told.startswith("**Answer** (seed 0 only)**:**")
    assert "base: background alone 80.0 [79.0, 81.0], object alone 60.0 [59.0, 61.0], " in told
    assert "whole picture 0.0 [-1.0, 1.0]" in told  # with seed 1: 40
    assert answers.answer(tables, tables.retrieval) == "**Answer:**"
    assert answers.distraction(tables) == (
        "with the background removed (object on grey) base models lose 30.0 [29.0, 31.0] points, "
        "in a place of another class 20.0 [19.0, 21.0], before a random photograph "
        "10.0 [9.0, 11.0], 5.0 [4.0, 6.0] where only the query has one (seed 0)"
    )
    made["effects"] = made["effects"].query("condition != 'foreground_only'")
    assert answers.distraction(answers.Tables(**(none | made))) == ""


def test_seeds_in_another_precision_are_named() -> None:
    rows = [("base", 0, np.nan), ("base", 1, "f32"), ("base", 2, "bf16"), ("bgaugment", 3, "f32")]
    training = pd.DataFrame(rows, columns=["arm", "seed", "precision"])
    training = training.assign(loss="triplet", epoch=1, best=1)
    none = {field.name: pd.DataFrame() for field in fields(answers.Tables)}
    tables = answers.Tables(**(none | {"retrieval": pd.DataFrame({"n": [9]})}))
    told = answers.what_was_run(tables, training, "half of it")
    assert "Trained again in float32: seed 1, 3." in told and told.endswith("**half of it**")
    kept = training[training["precision"] != "f32"]
    assert "float32" not in answers.what_was_run(tables, kept, "")


@pytest.mark.parametrize(
    ("value", "digits", "sign", "written"),
    [
        (-0.013, 1, "", "-0.01"), (0.04, 1, "+", "+0.04"), (0.0, 1, "", "0.0"),
        (-0.001, 1, "", "0.0"), (-0.06, 1, "", "-0.1"), (-0.0004, 3, "", "-0.0004"),
        (2.0, 1, "+", "+2.0"),
    ],
)  # fmt: skip
def test_the_side_of_zero_is_seen(value: float, digits: int, sign: str, written: str) -> None:
    assert rounded(value, digits, sign) == written


def test_seeds_count_alike_however_many_draws_they_have() -> None:
    rows = [(0, 0, 0.1), (0, 1, 0.2), (0, 2, 0.3), (1, 0, 0.6)]
    table = pd.DataFrame(rows, columns=["seed", "draw", "value"])
    same = {"loss": "triplet", "arm": "base", "condition": "random_background", "sides": "both"}
    table = table.assign(low=0.0, high=1.0, metric="map_at_r", **same)
    none = {field.name: pd.DataFrame() for field in fields(answers.Tables)}
    tables = answers.Tables(**(none | {"retrieval": table}))
    assert tables.level("base", "random_background") == pytest.approx(40)


def test_the_start_and_the_epoch_that_was_kept() -> None:
    rows = [
        ("base", "clean", 0, 0.10), ("base", "clean", 1, 0.30), ("base", "clean", 2, 0.20),
        ("base", "random_background", 1, 0.99), ("bgaugment", "clean", 1, 0.98),
        ("bgaugment", "random_background", 0, 0.05), ("bgaugment", "random_background", 1, 0.06),
    ]  # fmt: skip
    history = pd.DataFrame(rows, columns=["arm", "condition", "epoch", "map_at_r"])
    history = history.assign(loss="triplet", best=history["arm"].map({"base": 1, "bgaugment": 0}))
    found = repeats.learned(history)
    assert found.loc["triplet", "base"].to_numpy() == pytest.approx([10, 30, 1])
    assert found.loc["triplet", "bgaugment"].to_numpy() == pytest.approx([5, 5, 0])


def test_the_studys_own_seed_is_refused(study: str) -> None:
    scenes = Scenes(study, "drawn", "cpu")
    with pytest.raises(StudyError, match="itself has seed 0"):
        repeats.train_again(study, 0, ["triplet"], scenes, {"seeds": [0], "p": 1.0})
