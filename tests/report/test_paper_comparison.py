"""Published against ours, on a tiny measured study; the published numbers are read by csv alone."""

import csv

import pandas as pd
import pytest

from lib.core import paths
from lib.report import paper_comparison
from tests.report import tiny

PAPER = ["clean", "random_background"]


def published(file: str, column: str) -> dict[tuple[str, ...], float]:
    with open(paths.FACTS / file, encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["dataset"] == "cub200"]
    if "condition" in rows[0]:
        return {(r["loss"], r["arm"], r["condition"]): float(r[column]) for r in rows}
    return {(r["loss"], r["arm"]): float(r[column]) for r in rows}


def scores(names: list[str]) -> pd.DataFrame:
    """Attention: base 0.2, others 0.1 more, seed 1 0.02 higher, classes alike but for a little."""
    rows = [
        [loss, arm, seed, row, row // 2, 0.2 + 0.1 * (arm != "base") + 0.02 * seed + row / 1e4]
        for loss in tiny.LOSSES
        for arm in names
        for seed in tiny.SEEDS
        for row in range(16)
    ]
    table = pd.DataFrame(rows, columns=["loss", "arm", "seed", "row", "label", "value"])
    kind = {"method": "smoothgrad", "target": "distance_to_black", "metric": "attention_score"}
    return table.assign(defined=True, **kind)


@pytest.fixture
def classes(tmp_path, monkeypatch) -> pd.DataFrame:
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    return tiny.write("tiny", ["base", "bgaugment", "greyaugment"], PAPER).classes


def test_effects_stand_beside_the_papers(classes) -> None:
    cells = paper_comparison.effects(classes, scores(["base", "bgaugment"]), "cub200")
    cells = cells.set_index(["what", "loss", "arm"])
    known = published("published_retrieval.csv", "map_at_r_percent_mean")
    drop, clean = known["triplet", "base", "random_background"], known["triplet", "base", "clean"]
    row = cells.loc[(paper_comparison.DROP, "triplet", "base")]
    assert row["paper"] == pytest.approx(drop - clean)
    assert row["paper_share"] == pytest.approx(1 - drop / clean)
    both = classes.query("loss == 'triplet' and arm == 'base' and sides == 'both'")
    mean = both.groupby(["seed", "condition"])["map_at_r"].mean().groupby("condition").mean()
    assert row["ours"] == pytest.approx(100 * (mean["random_background"] - mean["clean"]))
    assert row["ours_share"] == pytest.approx(1 - mean["random_background"] / mean["clean"])
    assert row["seeds"] == 2 and row["low"] < row["ours"] < row["high"]
    gain = known["arcface", "bgaugment", "clean"] - known["arcface", "base", "clean"]
    shown = cells.loc[("BGAugment − base, clean", "arcface", "bgaugment")]
    assert shown["paper"] == pytest.approx(gain)
    look = published("published_attention.csv", "attention_score_mean")
    shown = cells.loc[("BGAugment − base, attention", "triplet", "bgaugment")]
    assert shown["paper"] == pytest.approx(look["triplet", "bgaugment"] - look["triplet", "base"])
    assert shown["ours"] == pytest.approx(0.1)
    assert "greyaugment" not in cells.index.get_level_values("arm")  # the paper has no such arm


def test_levels_are_means_over_seeds_and_of_the_papers_own_score(classes) -> None:
    cells = paper_comparison.levels(classes, scores(["base"]), "cub200")
    cells = cells.set_index(["measure", "what", "loss", "arm"])
    assert cells.loc[("attention score", "level", "triplet", "base"), "ours"] == pytest.approx(
        0.21 + 7.5e-4
    )
    both = classes.query("loss == 'triplet' and arm == 'base' and condition == 'clean'")
    shown = cells.loc[("MAP@R, %", "clean", "triplet", "base")]
    assert shown["ours"] == pytest.approx(100 * both["map_at_r"].mean())
    known = published("published_retrieval.csv", "map_at_r_percent_mean")
    assert shown["paper"] == known["triplet", "base", "clean"]


def test_disagreements_are_counted_and_named(classes) -> None:
    cells = paper_comparison.effects(classes, pd.DataFrame(), "cub200")
    turned = cells.assign(same_sign=[False, *[True] * (len(cells) - 1)])
    text = paper_comparison.agreement(turned)
    assert f"{len(cells) - 1} of {len(cells)}" in text and "Triplet, random background" in text
    none = paper_comparison.effects(classes, pd.DataFrame(), "rendered")
    assert none.empty and paper_comparison.scatter(none)[0] is None
    assert "no numbers" in paper_comparison.agreement(none)


def test_the_scatter_names_its_models(classes, tmp_path) -> None:
    figure, _ = paper_comparison.scatter(
        paper_comparison.effects(classes, pd.DataFrame(), "cub200")
    )
    assert {text.get_text() for text in figure.axes[0].texts} == {"Triplet", "ArcFace"}
    figure.savefig(tmp_path / "x.png")
