"""The figure of the first screen, from tables made by hand."""

from pathlib import Path

import pandas as pd
import pytest

from lib import overview
from lib.files import write_json


def a_study(reports: Path, name: str, dataset: str, drop: float) -> None:
    """Triplet, two seeds, both arms; base loses `drop` and `drop` + 0.02, BGAugment half."""
    rows = [
        {"loss": "triplet", "arm": arm, "seed": seed, "value": -part * (drop + 0.02 * seed)}
        for arm, part in (("base", 1), ("bgaugment", 0.5))
        for seed in (0, 1)
    ]
    table = pd.DataFrame(rows).assign(
        contrast="shifted-clean", condition="random_background", sides="both", metric="map_at_r",
        n=7,
    )  # fmt: skip
    table["low"], table["high"] = table["value"] - 0.01, table["value"] + 0.01
    (reports / name).mkdir(parents=True)
    table.to_csv(reports / name / "effects.csv", index=False)
    level = {"clean": 20.0, "random_background": 20 - 100 * drop}
    entry = {"dataset": dataset, "seeds": 2}
    entry["map_at_r_percent"] = {"base": level, "bgaugment": {**level, "clean": 19.0}}
    write_json(reports / "summaries" / f"{name}.json", entry)


def test_birds_come_before_cars_and_drawn_pictures_stay_out(tmp_path: Path) -> None:
    a_study(tmp_path, "a", "cars196", 0.04)
    a_study(tmp_path, "b", "cub200", 0.10)
    a_study(tmp_path, "c", "rendered", 0.30)
    found = overview.subjects(tmp_path)
    assert list(found) == ["b", "a"]
    words = overview.finding(found)
    assert words == (
        "A new background takes 10.0 of 20.0 points of MAP@R on birds and 4.0 of 20.0 points of "
        "MAP@R on cars; with BGAugment 9.0 of 19.0 on birds and 3.0 of 19.0 on cars"
    )
    base = overview.changes(tmp_path, "b").set_index("arm").loc["base"]
    assert base["value"] == pytest.approx(-11) and base["n"] == 7
    assert (base["low"], base["high"]) == (pytest.approx(-12), pytest.approx(-10))
    assert len(overview.figure(tmp_path, found).axes) == 2


def test_it_is_written_for_the_same_tables_with_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "summaries").mkdir()
    assert overview.write(tmp_path) is None and not (tmp_path / "overview.png").exists()
    a_study(tmp_path, "b", "cub200", 0.10)
    words = overview.write(tmp_path)
    first = [(tmp_path / f"overview.{kind}").read_bytes() for kind in ("png", "svg")]
    assert "birds" in words and overview.write(tmp_path) == words
    assert first == [(tmp_path / f"overview.{kind}").read_bytes() for kind in ("png", "svg")]
