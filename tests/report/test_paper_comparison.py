"""Published against ours, on tables made by hand; the published numbers are read by csv alone."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from lib.core import paths
from lib.report import paper_comparison
from lib.report.answers import Tables

KEYS = {"seed": 0, "metric": "map_at_r", "sides": "both"}


def paper(file: str, column: str) -> dict[tuple[str, ...], float]:
    with open(paths.FACTS / file, encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["dataset"] == "cub200"]
    if "condition" in rows[0]:
        return {(r["loss"], r["arm"], r["condition"]): float(r[column]) for r in rows}
    return {(r["loss"], r["arm"]): float(r[column]) for r in rows}


@pytest.fixture
def tables() -> Tables:
    """One loss; base loses 0.05 (surely), BGAugment gains 0.01 (not surely) under the shift."""
    effects = [
        ("shifted-clean", "base", "random_background", -0.05, -0.06, -0.04),
        ("shifted-clean", "bgaugment", "random_background", 0.01, -0.01, 0.03),
        ("bgaugment-base", "bgaugment", "random_background", 0.03, 0.02, 0.04),
        ("bgaugment-base", "bgaugment", "clean", -0.02, -0.03, -0.01),
    ]
    columns = ["contrast", "arm", "condition", "value", "low", "high"]
    effects = pd.DataFrame(effects, columns=columns).assign(loss="triplet", n=9, **KEYS)
    levels = pd.DataFrame({"arm": ["base", "base"], "value": [0.1, 0.3], "draw": [0, 1]})
    levels = levels.assign(loss="triplet", condition="random_background", low=0.0, high=0.4, **KEYS)
    score = {"method": "smoothgrad", "target": "distance_to_black", "metric": "attention_score"}
    score |= {"loss": "triplet", "seed": 0, "low": 0.1, "high": 0.3}
    attention = pd.DataFrame([{**score, "arm": "base", "value": 0.2}])
    attention = pd.concat([attention, attention.assign(target="similarity_to_nearest", value=0.9)])
    moved = pd.DataFrame([{**score, "value": 0.2}])
    none = pd.DataFrame()
    return Tables(
        retrieval=levels, effects=effects, background_gap=none, attention=attention,
        attention_effects=moved, attention_controls=none, attention_methods=none, masks=none,
        mask_sensitivity=none,
    )  # fmt: skip


def test_effects_stand_beside_the_papers(tables: Tables) -> None:
    cells = paper_comparison.effects(tables, "cub200").set_index(["what", "arm"])
    known = paper("published_retrieval.csv", "map_at_r_percent_mean")
    drop = {
        arm: known["triplet", arm, "random_background"] - known["triplet", arm, "clean"]
        for arm in ("base", "bgaugment")
    }
    assert cells["paper"][paper_comparison.DROP, "base"] == pytest.approx(drop["base"])
    assert cells["paper"][paper_comparison.DROP, "bgaugment"] == pytest.approx(drop["bgaugment"])
    assert cells["ours"][paper_comparison.DROP, "base"] == pytest.approx(-5)
    assert cells["same_sign"][paper_comparison.DROP, "base"] == (drop["base"] < 0)
    gain = known["triplet", "bgaugment", "clean"] - known["triplet", "base", "clean"]
    assert cells["paper"][paper_comparison.HELP["clean"], "bgaugment"] == pytest.approx(gain)
    score = paper("published_attention.csv", "attention_score_mean")
    expected = score["triplet", "bgaugment"] - score["triplet", "base"]
    assert cells["paper"][paper_comparison.LOOK, "bgaugment"] == pytest.approx(expected)


def test_levels_are_means_over_draws_and_of_the_papers_own_score(tables: Tables) -> None:
    cells = paper_comparison.levels(tables, "cub200").set_index("measure")
    assert cells["ours"]["MAP@R, %"] == pytest.approx(20)
    assert cells["ours"]["attention score"] == pytest.approx(0.2)
    known = paper("published_retrieval.csv", "map_at_r_percent_mean")
    assert cells["paper"]["MAP@R, %"] == known["triplet", "base", "random_background"]


def test_the_sentence_counts_signs_and_sure_disagreements(tables: Tables) -> None:
    cells = paper_comparison.effects(tables, "cub200")
    same = int(cells["same_sign"].sum())
    other = cells[~cells["same_sign"].astype(bool)]
    sure = sum(row.low > 0 or row.high < 0 for row in other.itertuples())
    text = paper_comparison.agreement(cells)
    assert f"agrees in {same} of 5 effects" in text
    assert f"Of the {5 - same} that disagree, {sure} have" in text
    assert text.endswith("The published value lies inside our interval in 0 of 5.")
    wide = cells.assign(high=[99.0, *cells["high"][1:]], low=[-99.0, *cells["low"][1:]])
    assert paper_comparison.agreement(wide).endswith("in 1 of 5.")
    assert "no numbers" in paper_comparison.agreement(paper_comparison.effects(tables, "rendered"))


def test_the_scatter_names_its_models(tables: Tables, tmp_path: Path) -> None:
    cells = paper_comparison.effects(tables, "cub200")
    finding = paper_comparison.scatter_finding(cells)
    assert "costs base models 5.0 points here" in finding
    figure = paper_comparison.scatter(cells, finding)
    assert {text.get_text() for text in figure.axes[0].texts} == {"Triplet"}
    figure.savefig(tmp_path / "x.png")
