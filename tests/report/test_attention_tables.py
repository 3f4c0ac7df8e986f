"""Telling attention: paired differences, joint means, random orders, the link of score and loss."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lib.report import attention_figures, attention_tables, sanity_figures, score_vs_drop

PAPER = {"method": "smoothgrad", "target": "distance_to_black"}


def scores(values: dict[str, list[float]], **names) -> pd.DataFrame:
    """One row an image and arm; every image is a class of its own."""
    parts = [
        pd.DataFrame({"row": range(len(v)), "label": range(len(v)), "value": v, "arm": arm})
        for arm, v in values.items()
    ]
    whole = {"loss": "triplet", "seed": 0, "metric": "attention_score", "defined": True, **PAPER}
    return pd.concat(parts, ignore_index=True).assign(**(whole | names))


def test_differences_are_paired_by_image_and_leave_out_undefined_ones():
    rows = scores({"base": [0.1, 0.2, 0.3, 0.4, 0.5, 9], "bgaugment": [0.3, 0.2, 0.3, 0.4, 0.7, 8]})
    rows.loc[5, "defined"] = False  # base, image 5
    (found,) = attention_tables.differences(rows).itertuples()
    assert found.contrast == "bgaugment-base" and found.n == 5
    assert found.value == pytest.approx(0.4 / 5)
    assert not len(attention_tables.differences(rows[rows["arm"] == "base"]))
    table = attention_tables.summary(rows).set_index("arm")
    assert table.loc["base", "value"] == pytest.approx(0.3) and table.loc["base", "n"] == 5
    assert table.loc["base", "std_over_images"] == pytest.approx(
        np.std([1, 2, 3, 4, 5], ddof=1) / 10
    )


def test_a_wider_level_gives_wider_intervals():
    rows = scores({"base": [0.1, 0.2, 0.4, 0.4, 0.5, 0.9]})
    one, two = (attention_tables.summary(rows, level).iloc[0] for level in (0.8, 0.95))
    assert one["low"] > two["low"] and one["value"] == two["value"]


def test_the_mean_over_models_has_the_interval_of_the_mean():
    rising, falling = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    both = [scores({"base": rising}), scores({"base": falling}, loss="arcface")]
    mean = attention_tables.over_models(pd.concat(both))
    found = attention_tables.means(mean, ["arm"]).iloc[0]
    assert found["value"] == pytest.approx(0.25)
    assert found["high"] - found["low"] == pytest.approx(0, abs=1e-9)  # the losses cancel out


def test_controls_stand_beside_the_papers_maps_of_random_weights():
    drawn = scores({"random": [0.1] * 6})
    other = scores({"random": [0.9] * 6}, method="gradient")
    blind = pd.DataFrame({"row": range(6), "label": range(6), "value": 0.5, "control": "sobel"})
    table = attention_tables.control_table(blind, pd.concat([drawn, other])).set_index("control")
    assert table["value"].to_dict() == pytest.approx({"sobel": 0.5, "random_weights": 0.1})


def test_the_matrix_has_a_column_an_arm_and_controls_below():
    methods = [
        scores({"random": [0.1] * 6, "base": [0.2] * 6}, method=m)
        for m in ("gradient", "occlusion")
    ]
    controls = pd.DataFrame({"control": ["uniform"], "value": [0.0]})
    table = attention_tables.matrix(attention_tables.summary(pd.concat(methods)), controls)
    assert list(table.columns) == ["random", "base"]
    assert list(table.index) == ["gradient, black", "occlusion, black", "uniform map"]
    assert table.loc["uniform map"].to_list() == [0, 0] and table.iloc[0, 1] == pytest.approx(0.2)


def test_stability_gains_are_paired_and_only_of_the_score():
    levels = [scores({"base": [0.1] * 6, "bgaugment": [0.1 * k] * 6}, level=k) for k in (1, 3)]
    found = pd.concat(levels).assign(factor="copies")
    more = found.assign(metric="rank_correlation")
    table = attention_tables.stability_table(pd.concat([found, more]))
    gain = table[table["arm"] == "bgaugment-base"]
    assert gain["value"].to_list() == pytest.approx([0, 0.2])
    assert set(gain["metric"]) == {"attention_score"} and len(table) == 2 * 2 * 2 + 2


def test_faithfulness_is_paired_with_both_random_orders():
    areas = {"sobel": 0.2, "random_pixels": 0.5, "random_patches": 0.1}
    rows = [
        scores({"base": [area] * 6}, map=name, metric="deletion_area")
        for name, area in areas.items()
    ]
    table = attention_tables.faithfulness_table(pd.concat(rows)).set_index(["map", "metric"])
    assert table.loc[("sobel", "deletion_area_minus_random_pixels"), "value"] == pytest.approx(-0.3)
    assert table.loc[("sobel", "deletion_area_minus_random_patches"), "value"] == pytest.approx(0.1)
    assert not any(
        "minus" in metric for name, metric in table.index if name in areas and name != "sobel"
    )


def test_the_arms_stand_beside_the_controls_with_their_intervals():
    models = pd.DataFrame(
        [("base", 0.2, 0.1, 0.4, 9)], columns=["arm", "value", "low", "high", "n"]
    )
    rows = [("uniform", 0.0, np.nan, np.nan, 4), ("random_weights", 0.05, 0.04, 0.06, 4)]
    controls = pd.DataFrame(rows, columns=["control", "value", "low", "high", "n"])
    axis = attention_figures.control_figure(models, controls, "", "").axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["base (n = 9)", "random weights (n = 4)", "uniform map (n = 4)"]
    assert axis.collections[0].get_segments()[0].ravel() == pytest.approx([0.1, 0, 0.4, 0])


def test_a_finding_names_every_pair_that_it_counts():
    rows = pd.DataFrame({"low": [0.1, -0.1, 0.2], "metric": "attention_score"})
    rows["arm"] = ["base-random", "base-random", "bgaugment-base"]
    told = sanity_figures.matrix_finding(rows)
    assert "1 of 2" in told and "1 of 1" in told


# ---------------------------------------------------------------------------------------- the link


def queries() -> pd.DataFrame:
    """Two models, six images: a higher score, a smaller loss; base loses more."""
    rows = []
    for arm, image in itertools.product(("base", "bgaugment"), range(6)):
        for condition, draw in (("clean", 0), ("random_background", 0), ("random_background", 1)):
            fall = (0.3 - 0.04 * image) * (1 if arm == "base" else 0.5) + 0.01 * (2 * draw - 1)
            value = 0.8 - (fall if condition != "clean" else 0)
            key = {"loss": "triplet", "arm": arm, "seed": 0, "condition": condition, "draw": draw}
            rows.append({**key, "sides": "both", "row": image, "label": image, "map_at_r": value})
    return pd.DataFrame(rows)


def test_the_link_finds_a_perfect_order_and_its_opposite():
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    changes = {"map_at_r_change": score_vs_drop.precision_changes(queries())}
    value = changes["map_at_r_change"].set_index(["arm", "row"])["value"]
    assert value["base", 5] == pytest.approx(-0.1)  # the mean over both draws
    pairs = score_vs_drop.joined(scores({"base": rising, "bgaugment": rising[::-1]}), changes)
    found = score_vs_drop.link(pairs)
    images = found[found["over"] == "images"].set_index("arm")["value"]
    assert images["base"] == pytest.approx(1) and images["bgaugment"] == pytest.approx(-1)
    gains = found[found["over"] == "gain of an image"]  # both gains fall with the image
    assert gains["value"].item() == pytest.approx(1) and gains["n"].item() == 6
    assert gains["arm"].item() == "bgaugment-base"
    tally = score_vs_drop.tally(found).set_index("over")
    assert tally.loc["images", ["positive", "of"]].to_list() == [1, 2]
    assert tally.loc["models", "of"] == 0  # too few for an interval


def test_undefined_scores_and_the_untrained_trunk_stay_out_of_the_models():
    table = scores({"base": [0.1] * 6, "bgaugment": [0.3] * 6, "untrained": [9.0] * 6})
    table.loc[0, ["defined", "value"]] = [False, 99.0]
    change = score_vs_drop.precision_changes(queries())
    more = change[change["arm"] == "base"].assign(arm="untrained")
    pairs = score_vs_drop.joined(table, {"map_at_r_change": pd.concat([change, more])})
    means = score_vs_drop.model_means(pairs).set_index("arm")["score"]
    assert means.to_dict() == pytest.approx({"base": 0.1, "bgaugment": 0.3})
    over = score_vs_drop.over_models(pairs).set_index("arm")
    assert over.loc[score_vs_drop.ALL, "n"] == 2 and np.isnan(over.loc[score_vs_drop.ALL, "low"])


def test_the_interval_of_few_models_covers_and_is_never_certain():
    low, high, _ = score_vs_drop.interval_of_few(1.0, 5)
    assert 0 < low < 0.5 and high < 1
    assert np.isnan(score_vs_drop.interval_of_few(0.5, 4)[0])
    rng, truth, inside = np.random.default_rng(0), 0.5, 0
    target = 6 / np.pi * np.arcsin(truth / 2)  # Spearman's value of a normal pair
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], 10).T
        low, high, _ = score_vs_drop.interval_of_few(spearmanr(x, y).statistic, 10)
        inside += low <= target <= high
    assert inside / 400 > 0.92
