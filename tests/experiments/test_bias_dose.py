"""The bias dial, turned twice on a handful of drawn pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.experiments import bias_dose, bias_dose_figure

RECIPE = {
    "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
    "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
    "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
}  # fmt: skip
OPTIONS = {
    "seed": 0, "test_bias": 0.9, "images_per_class": 4, "side": 80,
    "classes": {"train": 4, "val": 2, "test": 6},
}  # fmt: skip


def made_up(base: list[float], moved: list[float]) -> pd.DataFrame:
    """`drop` of two seeds at bias 0 and 1 for both arms."""
    rows = [
        {"bias": bias, "arm": arm, "seed": seed, "metric": "drop", "value": values[2 * k + seed]}
        for arm, values in (("base", base), ("bgaugment", moved))
        for k, bias in enumerate((0.0, 1.0))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_the_sentence_and_the_paired_change() -> None:
    rows = made_up([-0.10, -0.12, -0.30, -0.34], [-0.02, -0.04, -0.03, -0.05])
    looked = rows.assign(metric="attention_score", value=-rows["value"])
    told = bias_dose_figure.finding(pd.concat([rows, looked]))
    assert "base 21.0 [8.3, 33.7], BGAugment 1.0 [1.0, 1.0]" in told
    change = bias_dose.slopes(rows).set_index("arm")
    assert change["value"]["base"] == pytest.approx(-0.21)
    assert change["value"]["bgaugment"] == pytest.approx(-0.01)
    half = 12.706 * np.std([-0.20, -0.22], ddof=1) / np.sqrt(2)  # Student's t, one degree
    assert change["high"]["base"] == pytest.approx(-0.21 + half, abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_tiny_dial_from_nothing(tmp_path: Path) -> None:
    turned = bias_dose.Dial(
        "triplet", ["base", "bgaugment"], [0], 72, 12, OPTIONS, RECIPE, 1, 6, 2, 0.15
    )
    rows = bias_dose.table(turned, [0.0, 0.9])
    assert len(rows) == 2 * 3 * 3  # settings, models, measures
    assert rows["value"].notna().all() and (rows["n"] == 24).all()
    wide = rows.pivot_table(index=["arm", "metric"], columns="bias", values="value")
    same = wide.loc["untrained"]
    np.testing.assert_array_equal(same[0.0], same[0.9])  # the test does not change with the dial
    figure = bias_dose_figure.figure(rows, bias_dose_figure.finding(rows))
    assert len(figure.axes) == 3
    assert bias_dose.table(turned, [0.0, 0.9]).equals(rows)
