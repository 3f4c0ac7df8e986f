"""Intervals of means over several losses and trainings hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import effects

LEVELS = {("clean", "both"): 0.5, ("random_background", "both"): 0.2, ("clean", "unshared"): 0.35}
LOSSES, CLASSES, REPEATED = {"triplet": -0.05, "normalized_softmax": 0.05}, 24, 200
TRUTH = {"levels": 0.2, "drop": -0.3, "lost": 0.6, "back": 0.5}  # of LEVELS, by hand


def world(rng: np.random.Generator, seeds: int, between: float) -> pd.DataFrame:
    """Rows a class: levels of each setting, moved by its class, its loss and its training."""
    n, rows = rng.integers(3, 40, CLASSES), []
    shared = {setting: 0.1 * (rng.gamma(2, 1, CLASSES) - 2) for setting in LEVELS}
    general = 0.1 * (rng.gamma(2, 1, CLASSES) - 2)  # an easy class is easy in every setting
    for loss, better in LOSSES.items():
        for seed in range(seeds):
            for (condition, sides), level in LEVELS.items():
                value = level + better + general + shared[condition, sides] + between * rng.normal()
                part = pd.DataFrame({"label": range(CLASSES), "n": n, "map_at_r": value})
                rows.append(part.assign(loss=loss, seed=seed, condition=condition, sides=sides))
    return pd.concat(rows).assign(arm="base", draw=0)


def found(classes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every joint table, cut to the one row that TRUTH is about."""
    levels = effects.joint_levels(classes)
    return {
        "levels": levels[levels["condition"] == "random_background"],
        "drop": effects.joint(classes, "shifted-clean", "random_background", "both"),
        "lost": effects.share_lost(classes),
        "back": effects.given_back(classes, "clean", "unshared"),
    }


def test_means_over_models_are_those_of_a_loop() -> None:
    classes = world(np.random.default_rng(0), 2, 0.02)
    sums: dict[tuple, float] = {}
    for row in classes.itertuples():
        key = (row.condition, row.sides)
        sums[key] = sums.get(key, 0.0) + row.map_at_r * row.n / len(LOSSES) / 2
    clean, random, other = (sums[key] for key in LEVELS)
    queries = classes.drop_duplicates("label")["n"].sum()
    wanted = {
        "levels": random / queries, "drop": (random - clean) / queries,
        "lost": (clean - random) / clean, "back": (other - random) / (clean - random),
    }  # fmt: skip
    for name, table in found(classes).items():
        (row,) = table.to_dict("records")
        assert row["value"] == pytest.approx(wanted[name]), name
        assert row["low"] < row["value"] < row["high"]
        assert (row["models"], row["seeds"]) == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "between"), [(1, 0.0), (3, 0.02)])
def test_coverage_of_joint_intervals(seeds: int, between: float) -> None:
    rng, held = np.random.default_rng(seeds), dict.fromkeys(TRUTH, 0)
    for _ in range(REPEATED):
        for name, table in found(world(rng, seeds, between)).items():
            held[name] += table["low"].item() <= TRUTH[name] <= table["high"].item()
    for name, count in held.items():
        assert 0.91 <= count / REPEATED <= 1.0, (name, count / REPEATED)
