"""The bias dial, turned twice on a handful of drawn pictures."""

import numpy as np
import pandas as pd
import pytest

from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.experiments import bias_dose, bias_dose_page

RECIPE = {
    "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
    "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
    "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
}  # fmt: skip
OPTIONS = {
    "seed": 0, "test_bias": 0.9, "images_per_class": 4, "side": 80,
    "classes": {"train": 4, "val": 2, "test": 6},
}  # fmt: skip
TINY = {
    "losses": ["triplet"], "arms": ["base", "bgaugment"], "seeds": [0],
    "side": 72, "background_count": 12, "options": OPTIONS, "recipe": RECIPE, "draws": 1,
    "images": 6, "copies": 2, "noise": 0.15,
}  # fmt: skip


def made_up(base: list[float], moved: list[float], loss: str = "triplet") -> pd.DataFrame:
    """`drop` of two seeds at bias 0 and 1 for both arms."""
    rows = [
        {
            "bias": bias, "loss": loss, "arm": arm, "seed": seed, "metric": "drop",
            "value": values[2 * k + seed],
        }
        for arm, values in (("base", base), ("bgaugment", moved))
        for k, bias in enumerate((0.0, 1.0))
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_sentence_and_the_paired_change() -> None:
    rows = made_up([-0.10, -0.12, -0.30, -0.34], [-0.02, -0.04, -0.03, -0.05])
    looked = rows.assign(metric="attention_score", value=-rows["value"])
    told = bias_dose_page.finding(pd.concat([rows, looked]))
    assert "base 21.0 [8.3, 33.7], BGAugment 1.0 [1.0, 1.0]" in told
    change = bias_dose_page.slopes(rows).query("loss == 'triplet'").set_index("arm")
    assert change["value"]["base"] == pytest.approx(-0.21)
    assert change["value"]["bgaugment"] == pytest.approx(-0.01)
    assert change["value"]["bgaugment-base"] == pytest.approx(0.20)
    half = 12.706 * np.std([-0.20, -0.22], ddof=1) / np.sqrt(2)  # Student's t, one degree
    assert change["high"]["base"] == pytest.approx(-0.21 + half, abs=1e-4)


def test_losses_are_averaged_seed_by_seed() -> None:
    first = made_up([0.0, 0.0, -0.10, -0.30], [0.0] * 4)
    second = made_up([0.0, 0.0, -0.30, -0.10], [0.0] * 4, "contrastive")
    both = bias_dose_page.slopes(pd.concat([first, second])).set_index(["loss", "arm"])
    mean = both.loc[(bias_dose_page.MEAN, "base")]
    # each seed's mean is -0.2, so seeds do not differ although every loss's do
    assert mean["value"] == pytest.approx(-0.2) and mean["low"] == pytest.approx(mean["high"])
    assert both.loc[("triplet", "base"), "low"] < -0.3


def test_some_losses_only() -> None:
    rows = pd.concat([made_up([0.0] * 4, [0.0] * 4, loss) for loss in ("triplet", "contrastive")])
    untrained = made_up([0.0] * 4, [0.0] * 4, "none").assign(arm="untrained")
    rows = pd.concat([rows, untrained])
    assert set(bias_dose_page.chosen(rows, ["triplet"])["loss"]) == {"triplet", "none"}
    assert bias_dose_page.chosen(rows, []).equals(rows)
    with pytest.raises(StudyError, match="closest is 'contrastive'"):
        bias_dose_page.chosen(rows, ["contrastiv"])


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_tiny_dial_from_nothing() -> None:
    with pytest.raises(StudyError, match="make dial"):
        assert bias_dose.Measured("tiny").rows is None
    bias_dose.measure("tiny", [0.0, 0.9], **TINY)
    kept = bias_dose.Measured("tiny")
    rows = kept.rows
    assert len(rows) == 2 * 3 * 3  # settings, models, measures
    assert rows["value"].notna().all() and (rows["n"] == 24).all()
    wide = rows.pivot_table(index=["loss", "arm", "metric"], columns="bias", values="value")
    same = wide.loc["none"]
    np.testing.assert_array_equal(same[0.0], same[0.9])  # the test does not change with the dial
    figure = bias_dose_page.figure(rows, bias_dose_page.finding(rows))
    assert len(figure.axes) == 3
    assert len(bias_dose_page.change_table(rows)) == 2 * 3 * 3  # loss and mean, arms, measures
    pictures, shown = kept.tiles("seen")
    assert len(pictures) == 16 and set(shown["bias"]) == {0.0, 0.9}
    pairs = zip(pictures[:8], pictures[8:], strict=True)
    assert not all(np.array_equal(low, high) for low, high in pairs)

    # a setting that is there is passed over; one that other code measured, or that goes, is not
    ledger, table = (kept.folder / "settings" / f"0{suffix}" for suffix in (".json", ".csv"))
    table.write_text(table.read_text().replace("triplet", "kept"))
    bias_dose.measure("tiny", [0.0], **TINY)
    assert "kept" in set(kept.rows["loss"]) and not (kept.folder / "settings" / "0.9.csv").exists()
    write_json(ledger, read_json(ledger) | {"code": "other"})
    bias_dose.measure("tiny", [0.0], **TINY)
    again = kept.rows
    assert again.equals(rows[rows["bias"] == 0.0].reset_index(drop=True))
