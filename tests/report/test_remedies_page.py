"""07_remedies on the tiny measured study: rows, gains, front and sentences against plain loops."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.evaluation.measured import Measured, name_of, write_compact
from lib.report import remedies
from tests.report import tiny

ARMS, CONDITIONS = ["base", "bgaugment", "greyaugment"], ["clean", "random_background"]
HELP = {"none": 0.0, "cut_out": 0.05, "cut_out+query": 0.02}


def write(study: str, names: list[str], tried: list[str], seeds=tiny.SEEDS) -> Measured:
    """The tiny study with remedies that add a fixed amount to the arms of `tried`."""
    m = tiny.write(study, names, CONDITIONS, tiny.LOSSES, seeds)
    folder = paths.StudyPaths(study).measured / "remedies"
    for who in [("none", "untrained", 0), *itertools.product(tiny.LOSSES, names, seeds)]:
        rows = tiny.rows(who, CONDITIONS)
        parts = []
        for remedy, gain in HELP.items():
            if remedy == "none" or who[1] in tried:
                part = rows[rows["sides"] == "query"] if "+" in remedy else rows
                parts.append(part.assign(remedy=remedy, map_at_r=part["map_at_r"] + gain))
        write_compact(folder / "classes" / f"{name_of(*who)}.parquet", pd.concat(parts))
    facts = {"classes": 8, "images": 32, "masks": "u2netp@160", "usable": {"clean": 0.9}}
    write_json(
        folder / "study.json",
        facts | {"conditions": CONDITIONS, "remedies": ["cut_out"] if tried else []},
    )
    return m


@pytest.fixture(autouse=True)
def reports(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPORTS", tmp_path)


@pytest.mark.parametrize(
    "names, tried, seeds",
    [(ARMS, ["base", "bgaugment"], (0, 1)), (["base"], [], (0,)), (["base"], ["base"], (0,)),
     (["base", "bgaugment"], [], (0,))],
)  # fmt: skip
def test_the_page_has_no_holes(names, tried, seeds) -> None:
    m = write("tiny", names, tried, seeds)
    shown, _ = tiny.tell("07_remedies", study="tiny")
    assert ">nan<" not in shown and "[nan" not in shown
    table = remedies.read(m)
    for made in (remedies.level_table(table), remedies.cost_table(table, "base", {})):
        assert len(made) == 1 + len(names) + 2 * len(tried)


def test_levels_and_gains_are_means_over_models() -> None:
    m = write("tiny", ARMS, ["base", "bgaugment"])
    table = remedies.read(m)
    keys = ["arm", "remedy", "condition", "sides"]
    level = remedies.levels(table).set_index(keys)["value"]
    gain = remedies.gains(table, "base").set_index(keys)

    def by_loop(arm: str, condition: str, sides: str) -> float:
        draws = (0, 1) if condition == "random_background" else (0,)
        return np.mean([
            tiny.value(loss, arm, seed, condition, label) + 0.01 * draw + 0.05 * (sides == "query")
            for loss in tiny.LOSSES for seed in tiny.SEEDS for label in tiny.CLASSES
            for draw in draws
        ])  # fmt: skip

    picked = [("base", "none", "both"), ("bgaugment", "cut_out", "both")]
    for arm, remedy, sides in [*picked, ("base", "cut_out+query", "query")]:
        expected = by_loop(arm, "random_background", sides) + HELP[remedy]
        assert level[arm, remedy, "random_background", sides] == pytest.approx(expected)
        if (arm, remedy) != ("base", "none"):
            row = gain.loc[(arm, remedy, "random_background", sides)]
            moved = expected - by_loop("base", "random_background", sides)
            assert row["value"] == pytest.approx(moved) and row["models"] == 4
    assert "untrained" not in gain.index.get_level_values("arm")


def test_nothing_beats_the_front_at_both() -> None:
    m = write("tiny", ARMS, ["base", "bgaugment"])
    found = remedies.front(remedies.levels(remedies.read(m)))
    for row in found.itertuples():
        beaten = any(
            (o.clean >= row.clean and o.shifted >= row.shifted)
            and (o.clean > row.clean or o.shifted > row.shifted)
            for o in found.itertuples()
        )
        assert row.front == (not beaten)
    assert found["front"].any() and not found["front"].all()


def test_every_user_gets_the_best_of_what_she_can_do() -> None:
    m = write("tiny", ARMS, ["base", "bgaugment"])
    sentences = remedies.best(remedies.read(m), "base")
    assert len(sentences) == 3
    assert "BGAugment," in sentences[0] and "object on grey" not in sentences[0]
    assert "base, object on grey" in sentences[1]
    assert "BGAugment, object on grey" in sentences[2]


def test_where_every_mask_costs_a_trained_arm_alone_is_named(monkeypatch) -> None:
    monkeypatch.setitem(HELP, "cut_out", -0.05)
    sentences = remedies.best(remedies.read(write("tiny", ARMS, ["base", "bgaugment"])), "base")
    assert "on random backgrounds, no mask that we tried beats BGAugment alone" in sentences[2]
    assert "masks lead" not in sentences[2]  # nothing else was measured
    assert len(remedies.best(remedies.read(write("tiny", ARMS, [])), "base")) == 1


def test_arms_that_may_be_as_good_as_the_best_are_named(monkeypatch) -> None:
    m = write("tiny", ARMS, ["base"])
    sentence = remedies.best(remedies.read(m), "base")[0]
    gain = remedies.gains(remedies.read(m), "bgaugment").set_index(["arm", "remedy", "condition"])
    low, high = gain.loc[("greyaugment", "none", "random_background"), ["low", "high"]].iloc[0]
    assert ("Not told apart from it: GreyAugment." in sentence) == (low <= 0 <= high)
    apart = gain.reset_index().assign(low=-0.2, high=-0.1)
    monkeypatch.setattr(remedies, "gains", lambda table, arm: apart)
    assert remedies._alike(remedies.read(m), "bgaugment", "base") == []
    apart["high"] = 0.1
    assert remedies._alike(remedies.read(m), "bgaugment", "base") == ["greyaugment"]


def test_where_masks_lead_on_other_backgrounds_these_are_named(monkeypatch) -> None:
    """Best alone on random backgrounds is not best everywhere; clean images are not asked."""
    keys = ["arm", "remedy", "condition", "sides", "value", "low", "high"]
    kinds = {"clean": (0.0, -0.2), "random_background": (0.3, 0.1),
             "unshared_background": (0.1, 0.2), "other_class_background": (0.3, 0.1)}  # fmt: skip
    rows = [
        ("bgaugment", remedy, condition, "both", value, value - 0.01, value + 0.01)
        for condition, values in kinds.items()
        for remedy, value in zip(("none", "cut_out"), values, strict=True)
    ]
    found = pd.DataFrame(rows, columns=keys)
    monkeypatch.setattr(remedies, "gains", lambda table, arm: found if arm == "base" else found[:0])
    both = remedies.best(pd.DataFrame({"label": [0]}), "base")[-1]
    assert "no mask that we tried beats BGAugment alone." in both
    assert "place of a training image: BGAugment, object on grey, 20.0 [19.0, 21.0]" in both
    assert "other-class" not in both and "clean" not in both


def test_arms_that_cannot_be_told_apart_share_the_title(monkeypatch) -> None:
    table = remedies.read(write("tiny", ARMS, []))
    _, title = remedies.figure(table, "base")
    monkeypatch.setattr(remedies, "_alike", lambda *_: [])
    _, alone = remedies.figure(table, "base")
    assert alone.startswith("BGAugment gains") and "told apart" not in alone
    monkeypatch.setattr(remedies, "_alike", lambda *_: ["greyaugment"])
    _, shared = remedies.figure(table, "base")
    assert shared.startswith("2 arms gain") and shared.endswith("BGAugment; GreyAugment")
    assert title in (alone, shared)


def test_other_arms_are_compared_with_the_papers_remedy() -> None:
    write("tiny", ["base", "bgaugment"], [])
    assert remedies.beside(remedies.read(Measured("tiny")), "base").empty
    m = write("tiny", ARMS, ["base", "bgaugment"])
    found = remedies.beside(remedies.read(m), "base")
    assert list(found.index) == ["GreyAugment"]  # base and rows with a remedy stand elsewhere
    models = itertools.product(tiny.LOSSES, tiny.SEEDS, tiny.CLASSES)
    moved = np.mean([
        tiny.value(loss, "greyaugment", seed, "clean", label)
        - tiny.value(loss, "bgaugment", seed, "clean", label)
        for loss, seed, label in models
    ])  # fmt: skip
    assert found.loc["GreyAugment", "clean ↑"].split()[0] == f"{100 * moved:.1f}"


@pytest.mark.parametrize(
    "other",
    [{"classes": 5, "images": 20}, {"classes": 40, "images": 160}, {"conditions": ["clean"]}],
)
def test_what_was_asked_of_an_earlier_run_is_not_told(other) -> None:
    m = write("tiny", ["base"], [])
    file = paths.StudyPaths("tiny").measured / "remedies" / "study.json"
    write_json(file, read_json(file) | {"classes": 9, "images": 33})  # one class has one image
    remedies.read(m)
    write_json(file, read_json(file) | other)
    with pytest.raises(StudyError, match=r"study\.json is of an earlier run"):
        remedies.read(m)
