"""06_report on a tiny measured study, and the tables behind its answers."""

import json
import re

import pandas as pd
import pytest

from lib.core import paths
from lib.evaluation import effects, measured
from lib.report import answers, shift_tables, style
from lib.training import arms
from tests.report import tiny

PAPER = ["clean", "random_background"]
MANY = [*PAPER, "same_class_background", "other_class_background", "foreground_only"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    style.use_style()


@pytest.mark.parametrize(
    ("names", "conditions", "losses", "seeds"),
    [
        (["base", "bgaugment", "greyaugment"], MANY, tiny.LOSSES, (0, 1)),
        (["base"], PAPER, ("triplet",), (0,)),
        (["bgaugment"], ["clean"], tiny.LOSSES, (0,)),
    ],
)
def test_the_page_has_no_holes(names, conditions, losses, seeds) -> None:
    tiny.write("tiny", names, conditions, losses, seeds)
    shown, _ = tiny.tell("06_report", study="tiny")
    assert not re.search(r"\bnan\b", shown)
    for name in names:
        assert style.label(name) in shown
    text = (paths.REPORTS / "summaries" / "tiny.json").read_text()
    assert "NaN" not in text
    entry = json.loads(text)
    assert entry["arms"] == names and set(entry["map_at_r_percent"]) == {"untrained", *names}
    assert set(entry["gains"]) == {f"{a}-{b}" for a, b in arms.pairs(names)}
    assert entry["not_trained"] == "none"
    assert len(entry["models"]) == 1 + len(losses) * len(names)


def test_models_that_did_not_learn_are_named() -> None:
    learning = tiny.write("tiny", ["base", "bgaugment"], PAPER).learning
    learning.loc[learning.index[learning["arm"] == "base"][0], "trained"] = False
    first = learning[~learning["trained"].astype(bool)].iloc[0]
    name = f"{shift_tables.label_of(first['loss'])} base"
    assert answers.not_trained(learning) == f"1 of {len(learning)}: {name} (seed {first['seed']})"
    both = pd.concat([learning, first.to_frame().T.assign(seed=7)])
    told = f"2 of {len(both)}: {name} (seeds {first['seed']}, 7)"
    assert answers.not_trained(both) == told


def test_kinds_of_class_are_told_apart() -> None:
    m = tiny.write("tiny", ["base", "bgaugment"], PAPER)
    assert answers.kinds_table(m).empty  # names without a kind
    file = m.folder / "labels.csv"
    labels = pd.read_csv(file, keep_default_na=False)
    fruit = labels["label"] < labels["label"].median()
    kinds = fruit.map({True: "Fruit/sour/", False: "Packages/"})
    labels.assign(class_name=kinds + labels["class_name"]).to_csv(file, index=False)
    table = answers.kinds_table(measured.read("tiny"))
    assert {kind.split(" (")[0] for kind, _ in table.index} == {"Fruit", "Packages"}
    own = m.classes[m.classes["label"].isin(labels["label"][fruit]) & (m.classes["arm"] == "base")]
    clean = own[(own["condition"] == "clean") & (own["sides"] == "both")]
    shown = table.loc[(f"Fruit ({fruit.sum()} classes)", "base"), "clean, % ↑"]
    assert shown == pytest.approx(100 * clean.groupby("label")["map_at_r"].mean().mean())
    names = labels["class_name"].astype(str)
    for odd in ("Ram C/V Cargo Van", "Alone/x"):  # a slash that means nothing, a kind of one class
        names = names.where(labels.index > 0, odd)
        labels.assign(class_name=names).to_csv(file, index=False)
        assert answers.kinds_table(measured.read("tiny")).empty


def test_seeds_are_means_over_losses() -> None:
    m = tiny.write("tiny", ["base", "bgaugment"], PAPER)
    table = answers.by_seed(effects.effects(m.classes), ["bgaugment-base"])
    assert list(table) == ["base", "BGAugment", "BGAugment − base"] and list(table.index) == [0, 1]
    moved = m.classes.query("arm == 'base' and seed == 1 and sides == 'both'")
    mean = moved.groupby("condition")["map_at_r"].mean()
    expected = 100 * (mean["random_background"] - mean["clean"])
    assert table.loc[1, "base"] == pytest.approx(expected)
    assert answers.over_seeds(table).loc["base", "seeds"] == 2


def test_what_choosing_the_epoch_contributes() -> None:
    rows = [
        [epoch, condition, value, 2]
        for epoch, clean, moved in ((0, 0.1, 0.1), (1, 0.5, 0.2), (2, 0.4, 0.35))
        for condition, value in (("clean", clean), ("random_background", moved))
    ]
    table = pd.DataFrame(rows, columns=["epoch", "condition", "map_at_r", "best"])
    table = table.assign(loss="triplet", seed=0)
    both = pd.concat([table.assign(arm="bgaugment"), table.assign(arm="base", best=1)])
    found = answers.checkpoint_choice(both)
    assert dict(found) == {"bgaugment": pytest.approx(15.0)}  # 0.35 against 0.20


def test_joint_attention_is_narrower_than_the_mean_of_ends() -> None:
    rows = pd.DataFrame(
        [
            ["a" if odd else "b", "base", 0, row, row, 0.5 + (0.2 if odd else -0.2) * (row % 2)]
            for row in range(12)
            for odd in (True, False)
        ],
        columns=["loss", "arm", "seed", "row", "label", "value"],
    ).assign(
        method="smoothgrad", target="distance_to_black", metric="attention_score", defined=True
    )
    row = answers.attention_table(rows).loc["base"]
    assert row["value"] == pytest.approx(0.5)
    assert row["high"] - row["low"] < 1e-9  # the losses' deviations cancel image by image


def test_masks_that_find_little_are_a_warning(tmp_path) -> None:
    """Crates of fruit: one in twenty pixels is marked; birds fill an eighth of their images."""

    def told(area: float, empty: float) -> tuple[str, str]:
        rows = [("fruit", "test", "used", name, value, 72) for name, value in
                {"area_mean": area, "empty_share": empty, "full_share": 0.0}.items()]  # fmt: skip
        columns = ["dataset", "split", "source", "metric", "value", "n"]
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "masks.csv", index=False)
        return answers.masks_note(tmp_path / "masks.csv", "fruit")

    assert told(0.13, 0.02)[1] == "" and "98.0%" in told(0.13, 0.02)[0]
    assert "5% of the image" in told(0.05, 0.02)[1] and "usable: 60%" in told(0.3, 0.4)[1]
    assert answers.masks_note(tmp_path / "none.csv", "fruit") == ("", "")


def test_few_classes_are_said() -> None:
    assert shift_tables.few_classes(5) == "" and "4 classes" in shift_tables.few_classes(4)
