"""Pooled means against plain loops; the answers that are made from them."""

import numpy as np
import pandas as pd
import pytest

from lib import answers, pooled, stats
from tests.test_evaluate import queries

LOSSES = ["arcface", "triplet"]


def values(seeds: list[int]) -> pd.DataFrame:
    """Two losses of one arm, 12 images of 6 uneven classes; one image is undefined for one."""
    generator, label = np.random.default_rng(1), np.repeat(np.arange(6), [1, 2, 3, 1, 3, 2])
    frames = [
        pd.DataFrame({"row": np.arange(12), "label": label, "value": generator.random(12)}).assign(
            loss=loss, arm="base", seed=seed
        )
        for loss in LOSSES
        for seed in seeds
    ]
    frames[0].loc[4, "value"] = np.nan
    return pd.concat(frames, ignore_index=True)


def mean_over(rows: pd.DataFrame, images: list[int], losses: list[str]) -> dict[int, float]:
    """Per image the mean over the models of some losses, by loop."""
    found = {}
    for image in images:
        part = [r.value for r in rows.itertuples() if r.row == image and r.loss in losses]
        found[image] = sum(part) / len(part)
    return found


@pytest.mark.parametrize(("loss", "left_out"), [("arcface", [4]), ("triplet", []), ("all", [4])])
def test_the_mean_over_models_keeps_images_that_all_of_them_know(loss, left_out) -> None:
    rows = values([0, 1, 2])
    table = pooled.together(rows).set_index("loss")
    images = [image for image in range(12) if image not in left_out]
    expected = mean_over(rows, images, LOSSES if loss == "all" else [loss])
    label = dict(zip(rows["row"], rows["label"], strict=True))
    found = stats.mean_by_class_bootstrap([*expected.values()], [label[i] for i in images])
    row = table.loc[loss]
    assert (row["n"], row["seeds"]) == (len(images), 3)
    assert row["models"] == (6 if loss == "all" else 3)
    assert [row["value"], row["low"], row["high"]] == pytest.approx(
        [found.mean, found.low, found.high]
    )


def test_the_interval_over_seeds_is_of_the_seeds_means() -> None:
    rows = values([0, 3])
    row = pooled.together(rows).set_index("loss").loc["all"]
    known = rows[rows["row"] != 4]
    each = [known[known["seed"] == seed]["value"].mean() for seed in (0, 3)]
    expected = stats.over_draws(each)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((expected.low, expected.high))
    one = pooled.together(values([0]))
    assert one[["seeds_low", "seeds_high"]].isna().all().all() and (one["seeds"] == 1).all()


def test_contrasts_are_pooled_as_they_are_paired() -> None:
    rows = queries(seeds=2)
    table = pooled.retrieval(rows)
    assert set(table["contrast"]) == {"level", "shifted-clean", "bgaugment-base", "same-other"}
    draws = rows[(rows["sides"] == "both") & rows["map_at_r"].notna()]
    mean = draws.groupby(["arm", "seed", "condition", "row"])["map_at_r"].mean()
    level = mean.groupby(["arm", "condition"]).mean()  # every model and image counts alike
    keys = ["contrast", "loss", "arm", "condition", "sides"]
    found = table.set_index(keys)["value"]
    for arm in ("untrained", "base", "bgaugment"):
        expected = level[arm, "random_background"] - level[arm, "clean"]
        both = found["shifted-clean", "all", arm, "random_background", "both"]
        assert both == pytest.approx(expected)
    helped = found["bgaugment-base", "triplet", "bgaugment", "clean", "both"]
    assert helped == pytest.approx(level["bgaugment", "clean"] - level["base", "clean"])
    gap = found["same-other", "all", "base", "same_class_tiled", "both"]
    expected = level["base", "same_class_tiled"] - level["base", "other_class_tiled"]
    assert gap == pytest.approx(expected)


def test_a_condition_measured_on_one_seed_is_pooled_over_that_seed() -> None:
    rows = queries(seeds=2)
    control = rows["condition"] == "same_class_tiled"
    table = pooled.retrieval(rows[~(control & (rows["seed"] == 1))])
    part = table[(table["contrast"] == "level") & (table["arm"] == "base")]
    seeds = part.groupby("condition")["seeds"].max()
    assert (seeds["clean"], seeds["same_class_tiled"]) == (2, 1)


def test_gains_of_the_attention_score_are_paired_by_image_and_seed() -> None:
    base = values([0, 1]).dropna().assign(metric="attention_score", defined=True)
    moved = base.assign(arm="bgaugment", value=base["value"] + 0.25)
    odd = base.assign(metric="other", value=9.0)
    table = pooled.attention(pd.concat([base, moved, odd])).set_index(["contrast", "loss", "arm"])
    for loss in [*LOSSES, "all"]:
        row = table.loc["bgaugment-base", loss, "bgaugment"]
        assert row["value"] == pytest.approx(0.25) == row["seeds_low"]
    expected = base[base["loss"] == "triplet"]["value"].mean()
    assert table["value"]["level", "triplet", "base"] == pytest.approx(expected)


def test_points_name_the_interval_the_span_and_the_seeds() -> None:
    rows = pd.DataFrame(
        [("triplet", -0.061, -0.08, -0.04), ("arcface", 0.001, -0.01, 0.012),
         ("all", -0.03, -0.04, -0.0201)],
        columns=["loss", "value", "low", "high"],
    ).assign(seeds=1, seeds_low=np.nan, seeds_high=np.nan)  # fmt: skip
    told = "**3.0 [2.0, 4.0] points** (-0.1 to 6.1 over 2 losses, beyond zero in 1)"
    assert answers.points(rows, -1) == told
    rows[["seeds", "seeds_low", "seeds_high"]] = [3, -0.05, -0.01]
    assert "; other trainings: [1.0, 5.0] from 3 seeds)" in answers.points(rows, -1)
    assert answers.points(rows[rows["loss"] != "arcface"], -1) == "**3.0 [2.0, 4.0] points**"
    assert answers.points(rows[:0]) == "not measured"
