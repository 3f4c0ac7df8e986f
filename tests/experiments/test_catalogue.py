"""The real shift: photographs that search a catalogue."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.core.errors import StudyError
from lib.experiments import catalogue, catalogue_page


def test_a_hit_is_the_nearest_and_shared_places_count_as_their_share() -> None:
    rng = np.random.default_rng(0)
    gallery = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(5, 3))), dim=1)
    gallery[4] = gallery[1]  # two products that look the same
    queries = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(40, 3))), dim=1)
    names, labels = np.array([7, 3, 9, 1, 5]), rng.choice([7, 3, 9, 1, 5], 40)
    expected = []
    for query, label in zip(queries, labels, strict=True):
        alike = [float(query @ icon) for icon in gallery]
        best = [names[k] for k, value in enumerate(alike) if value > max(alike) - 1e-9]
        expected.append((label in best) / len(best))
    found = catalogue.hits(queries, labels, gallery, names)
    np.testing.assert_allclose(found, expected)
    assert set(expected) == {0.0, 0.5, 1.0}


def write_catalogue(root: Path, missing: bool = False) -> None:
    home = root / "dataset"
    home.mkdir(parents=True)
    lines = ["Class Name (str),Class ID (int),Iconic Image Path (str)"]
    for number, size in enumerate([(20, 40), (40, 40)]):
        lines.append(f"product {number},{number},/{number}.png")
        if not (missing and number):
            Image.new("RGB", size, (10, 20, 30)).save(home / f"{number}.png")
    (home / "classes.csv").write_text("\n".join(lines))


def test_icons_are_whole_and_squared_on_white(tmp_path: Path, monkeypatch) -> None:
    write_catalogue(tmp_path)
    monkeypatch.setattr(catalogue.datasets, "locate", lambda name, options: (tmp_path, "here"))
    pictures, labels = catalogue.icons("grocery", {}, 40)
    assert pictures.shape == (2, 40, 40, 3) and labels.tolist() == [0, 1]
    assert (pictures[0][:, :8] == 255).all() and (pictures[0][:, 32:] == 255).all()
    assert (pictures[0][:, 12:28] == [10, 20, 30]).all() and (pictures[1] == [10, 20, 30]).all()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    write_catalogue(tmp_path, missing=True)
    monkeypatch.setattr(catalogue.datasets, "locate", lambda name, options: (tmp_path, "here"))
    with pytest.raises(StudyError, match="1.png"):
        catalogue.icons("grocery", {}, 40)
    with pytest.raises(StudyError, match="'cub200' has no catalogue"):
        catalogue.icons("cub200", {}, 40)


def made_up(slope: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of two arms and 24 classes: what a class loses on composites costs `slope` of it."""
    rng = np.random.default_rng(1)
    classes, found = [], []
    for arm in ("base", "bgaugment"):
        for label in range(24):
            lost = rng.uniform(0, 0.5)
            who = {"loss": "triplet", "arm": arm, "seed": 0, "draw": 0, "label": label, "n": 3}
            for condition, sides, value in (
                ("clean", "both", 0.9),
                ("random_background", "query", 0.9 - lost),
                ("random_background", "both", 0.1),
            ):
                part = {"condition": condition, "sides": sides}
                classes.append(who | part | dict.fromkeys(["map_at_r", "p_at_1"], value))
            value = 0.6 - slope * lost + (0.2 if arm == "bgaugment" else 0)
            part = {"condition": "catalogue", "sides": "both", "kind": "Fruit", "class_name": "a"}
            metrics = dict.fromkeys(["map_at_r", "r_precision", "p_at_1"], value)
            found.append(who | part | metrics)
    return pd.DataFrame(classes), pd.DataFrame(found)


def test_a_loss_on_composites_that_comes_true_is_seen_and_one_that_does_not_is_not() -> None:
    classes, found = made_up(slope=1.0)
    table = catalogue.by_class(classes, found)
    assert len(table) == 48
    row = table[(table["arm"] == "base") & (table["label"] == 3)].iloc[0]
    assert row["found"] == pytest.approx(0.6 - row["lost"]) and row["clean"] == 0.9
    rng = np.random.default_rng(2)
    table["clean"] = rng.uniform(0.5, 1, len(table))
    links = catalogue.predicted(table).set_index(["arm", "predictor"])
    assert links.loc[("base", "lost"), "value"] == pytest.approx(-1)
    assert links.loc[("base", "lost given clean"), "high"] < -0.5
    table["found"] = rng.permutation(table["found"])
    links = catalogue.predicted(table).set_index(["arm", "predictor"])
    assert links.loc[("base", "lost"), "low"] < 0 < links.loc[("base", "lost"), "high"]


def test_the_page_says_what_the_arm_gains() -> None:
    classes, found = made_up(slope=0.0)
    gains = catalogue_page.gain(found, "bgaugment-base")
    assert gains.set_index("kind").loc["Fruit", "value"] == pytest.approx(0.2)
    assert "20.0 [20.0, 20.0] points more" in catalogue_page.found_finding(gains)
    fewer = catalogue_page.gain(found.assign(p_at_1=-found["p_at_1"]), "bgaugment-base")
    assert "BGAugment finds 20.0 [20.0, 20.0] points fewer" in catalogue_page.found_finding(fewer)
    levels = catalogue_page.levels(found)
    figure = catalogue_page.found_figure(levels, gains)
    assert len(figure.axes[0].get_yticklabels()) == 2
    table = catalogue.by_class(classes, found).assign(clean=np.linspace(0, 1, 48))
    links = catalogue.predicted(table)
    assert len(catalogue_page.predicted_figure(table, links, "base").axes) == 2
