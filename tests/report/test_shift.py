"""04_shift on a tiny measured study: any arms, any conditions, no holes."""

import re

import numpy as np
import pandas as pd
import pytest

from lib.core import paths
from lib.core.compact import read_compact
from lib.core.errors import StudyError
from lib.evaluation import effects
from lib.report import shift_figures, shift_tables, style
from lib.training import arms
from tests.report import tiny

PAPER = ["clean", "random_background"]
MANY = [
    *PAPER,
    "same_class_background",
    "other_class_background",
    "own_background",
    "background_only",
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> None:
    """Reports of their own, and a third arm."""
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    style.use_style()


@pytest.mark.parametrize(
    ("names", "conditions", "losses", "seeds"),
    [
        (["base", "bgaugment", "greyaugment"], MANY, tiny.LOSSES, (0, 1)),
        (["base"], PAPER, ("triplet",), (0,)),
        (["bgaugment"], ["clean"], tiny.LOSSES, (0,)),
        (["base", "greyaugment"], [*PAPER, "foreground_only"], tiny.LOSSES, (3, 4)),
    ],
)
def test_the_page_has_no_holes(names, conditions, losses, seeds) -> None:
    tiny.write("tiny", names, conditions, losses, seeds)
    shown, _ = tiny.tell("04_shift", study="tiny")
    assert not re.search(r"\bnan\b", shown)
    folder = paths.StudyPaths("tiny").reports
    table = read_compact([folder / "retrieval.parquet"])
    assert set(table["arm"]) == {"untrained", *names}
    moved = read_compact([folder / "effects.parquet"])
    compared = {f"{a}-{b}" for a, b in arms.pairs(names)}
    assert compared <= set(moved["contrast"])
    for name in names if "random_background" in conditions else []:
        assert style.label(name) in shown


def test_a_class_is_as_large_as_its_queries_say() -> None:
    rows = [("clean", "both", 3, 4), ("clean", "both", 3, 4), ("clean", "both", 5, 2),
            ("clean", "query", 5, 9), ("random_background", "both", 3, 8)]  # fmt: skip
    classes = pd.DataFrame(rows, columns=["condition", "sides", "label", "n"])
    sizes = shift_tables.class_sizes(classes, pd.Series([3, 5, 7]))  # 7: one image, no row
    assert sizes.to_dict() == {3: 4, 5: 2, 7: 1}


def test_three_arms_stand_in_every_figure() -> None:
    m = tiny.write("tiny", ["base", "bgaugment", "greyaugment"], MANY)
    table, moved = effects.summary(m.classes), effects.effects(m.classes)
    shares = effects.share_lost(m.classes)
    per_class = effects.class_losses(m.classes).merge(m.labels, on="label")
    link = shift_tables.class_link(per_class)
    found = [
        shift_figures.slopes(table, shares), shift_figures.changes(moved, shares),
        shift_figures.background_gap(moved), shift_figures.query_only(moved),
        shift_figures.uniformity(per_class, link), shift_figures.heat_map(table, MANY),
        shift_figures.mask_sensitivity(shift_tables.sensitivity(m.robustness)),
        shift_figures.nearest(*m.tiles("gallery")),
    ]  # fmt: skip
    for figure, finding in found:
        assert "GreyAugment" in finding or "base" in finding
        assert "nan" not in finding and figure.axes
        style.plt.close(figure)
    assert style.colour("greyaugment") not in {style.colour("base"), style.colour("bgaugment")}


def test_of_many_arms_three_are_drawn_and_all_are_counted() -> None:
    names = ["base", "bgaugment", "greyaugment", "pairs", "guided"]
    m = tiny.write("tiny", names[:2], PAPER, ("triplet",), (0,))
    tiles, table = m.tiles("gallery")
    found = [table.assign(arm=name, right=k < 2) for k, name in enumerate(names)]
    many = pd.concat(found, ignore_index=True)
    tiles = np.concatenate([tiles] * len(names))
    figure, finding = shift_figures.nearest(tiles, many)
    drawn = {axis.get_ylabel().split("\n")[1] for axis in figure.axes if axis.get_ylabel()}
    assert drawn == {style.label(name) for name in names[:3]}
    assert all(style.label(name) in finding for name in names)
    assert "drawn: base, BGAugment, GreyAugment" in figure._suptitle.get_text()
    style.plt.close(figure)


def test_shares_and_means_are_those_known_by_hand() -> None:
    rows = pd.DataFrame(
        [["base", "a", 0, 0.2], ["base", "a", 0, 0.4], ["base", "a", 1, 0.9]],
        columns=["arm", "loss", "seed", "value"],
    )
    mean = shift_tables.means(rows, ["arm"])["value"].iloc[0]
    assert mean == pytest.approx(0.6)  # (0.3 + 0.9) / 2, not the mean of three rows
    shares = pd.DataFrame(
        [["base", 0.494, 0.45, 0.54], ["untrained", 0.5, np.nan, np.nan]],
        columns=["arm", "value", "low", "high"],
    )
    assert shift_tables.share_words(shares) == "untrained trunk 50 %, base 49 % [45 to 54]"
    row = {"value": -0.0512, "low": -0.06, "high": -0.0004}
    assert shift_tables.told(row, -100) == "5.1 [0.04, 6.0]"
    assert shift_tables.told({**row, "low": np.nan, "high": np.nan}) == "-5.1"


def test_joint_means_stand_in_the_settings_table() -> None:
    m = tiny.write("tiny", ["base", "bgaugment"], MANY)
    cost = shift_tables.settings_table(m.classes, ["shifted-clean"], sign=-1)
    row = effects.joint(m.classes, "shifted-clean", "random_background", "query").set_index("arm")
    assert cost.loc["random background, query only", "base"] == shift_tables.told(
        row.loc["base"], -100
    )
    assert "place of a training image" not in cost.index  # not measured
    gains = shift_tables.settings_table(m.classes, shift_tables.contrasts_of(m.classes), clean=True)
    assert list(gains) == ["BGAugment − base"] and gains.index[0] == "clean"


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [(-0.5, "{:.1f}", "-0.5"), (-0.04, "{:.1f}", "0.0"), (-0.04, "{:.2f}", "-0.04"),
     (-0.002, "{:.0%}", "0%"), (-10.0, "{:.0f}", "-10"), (float("nan"), "{:.1f}", "–"),
     ("-0.1 [-0.4, 0.3]", "{}", "-0.1 [-0.4, 0.3]")],
)  # fmt: skip
def test_only_a_zero_loses_its_minus(value, form, words) -> None:
    assert shift_tables.shown_as(value, form) == words


def test_conditions_are_chosen_by_name() -> None:
    assert shift_tables.chosen("all", MANY) == MANY
    assert shift_tables.chosen("paper", MANY) == PAPER
    assert shift_tables.chosen("own_background", MANY) == ["clean", "own_background"]
    assert shift_tables.chosen("paper", ["clean"]) == ["clean"]
    with pytest.raises(StudyError, match="own_background"):
        shift_tables.chosen("clean, own_backgroud", MANY)


def test_a_share_of_a_drop_that_may_be_nothing_is_not_told(monkeypatch) -> None:
    rows = {"arm": ["base", "bgaugment"], "value": [0.05, -2.4]}
    ends = {"low": [0.02, -np.inf], "high": [0.09, np.inf]}
    found = pd.DataFrame(rows | ends)
    monkeypatch.setattr(shift_tables.effects_of, "given_back", lambda *_: found)
    table, words = shift_tables.shared_photographs(pd.DataFrame())
    assert set(table["BGAugment"]) == {"–"} and set(table["base"]) == {"5 [2, 9]"}
    assert "base 5 [2, 9], BGAugment – (–: not known" in words and "inf" not in words
    monkeypatch.setattr(shift_tables.effects_of, "given_back", lambda *_: found[:1])
    assert "not known" not in shift_tables.shared_photographs(pd.DataFrame())[1]
