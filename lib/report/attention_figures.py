"""Tables and figures of 05_attention."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.attention import controls
from lib.attention import scores as attention_scores
from lib.attention.examples import SCORE
from lib.core import paths
from lib.evaluation import models as trained_models
from lib.report.shift_tables import lines_of, model_names
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt

PUBLISHED = paths.FACTS / "published_attention.csv"


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 for a data set: loss, arm, mean, std over images (fractions)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_two(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours beside the paper's: attention score per model."""
    ours = table[(table["metric"] == SCORE) & (table["method"] == "smoothgrad")]
    both = ours.merge(published(dataset), on=["loss", "arm"], how="left").set_index(
        trained_models.MODEL
    )
    columns = {"value": "score ↑", "low": "low", "high": "high", "std_over_images": "std"}
    if both["mean"].notna().any():
        columns |= {"mean": "paper ↑", "std": "its std", "difference": "difference"}
        both["difference"] = both["value"] - both["mean"]
    names = model_names(list(both.index))
    return both[list(columns)].rename(columns=columns).set_axis(names, axis=0)


def score_figure(
    per_image: pd.DataFrame, table: pd.DataFrame, effects: pd.DataFrame, dataset: str, title: str
) -> Figure:
    """Left: every image's score, one line a loss and arm. Right: the paired gain of each loss.

    Dots are images (or the published gain, a diamond); bars 95 % intervals over classes.
    """
    part = per_image[(per_image["metric"] == SCORE) & per_image["defined"]]
    models = dict([*part.groupby(trained_models.MODEL, sort=False)])
    places, names = lines_of(list(models))
    figure, axes = plt.subplots(
        1, 2, figsize=(9, 0.36 * len(names) + 1.8), sharey=True, width_ratios=[2, 1]
    )
    mean = table[table["metric"] == SCORE].set_index(trained_models.MODEL)
    _distributions(axes[0], models, places, mean)
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0].invert_yaxis()
    _gains(axes[1], effects[effects["metric"] == SCORE], places, dataset)
    n = part.groupby(trained_models.MODEL).size().max()
    headline(figure, title, f"n = {n} images a model; bars: 95 % over classes")
    return figure


def _distributions(axis: Axes, models: dict, places: dict, mean: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)  # only spreads the dots
    for model, dots in models.items():
        at = places[model]
        spread = round(at) + rng.uniform(-0.3, 0.3, len(dots))
        axis.scatter(dots["value"], spread, s=10, color=COLOURS[model[1]], alpha=0.35, lw=0)
        row = mean.loc[model]
        error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axis.errorbar(
            row["value"], at, xerr=error, color="black", marker=MARKERS[model[1]], ms=5, capsize=3
        )
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("attention score ↑ (0: uniform map)")


def _gains(axis: Axes, effects: pd.DataFrame, places: dict, dataset: str) -> None:
    theirs = published(dataset).pivot(index="loss", columns="arm", values="mean")
    for row in effects.itertuples():
        at = places[row.loss, "bgaugment", row.seed]
        error = [[row.value - row.low], [row.high - row.value]]
        axis.errorbar(row.value, at, xerr=error, color=COLOURS["bgaugment"], marker="s", capsize=3)
        if row.loss in theirs.index:
            gain = theirs.loc[row.loss, "bgaugment"] - theirs.loc[row.loss, "base"]
            axis.plot(gain, at, "d", color="black", mfc="white")
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("BGAugment − base ↑" + ("\n◇ published" if len(theirs) else ""))


def measures(per_image: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """All measures on the same maps: what they are, chance, and the mean of each arm."""
    arms = table.groupby(["metric", "arm"], sort=False)["value"].mean().unstack()
    defined = per_image[per_image["defined"]]
    facts = {
        measure.label: {
            "chance": defined[defined["metric"] == name]["chance"].mean(),
            **{f"{arm} ↑": arms.loc[name, arm] for arm in ("untrained", "base", "bgaugment")},
            "range": f"{measure.low:g} to {measure.high:g}".replace("-inf", "below 0"),
            "left out": f"{1 - per_image[per_image['metric'] == name]['defined'].mean():.1%}",
        }
        for name, measure in attention_scores.SCORES.items()
    }
    return pd.DataFrame.from_dict(facts, orient="index")


def control_finding(models: pd.DataFrame, scores: pd.DataFrame) -> str:
    """How the arms (`by_arm`) stand against the best blind map, and against random weights."""
    known = scores.set_index("control")["value"]
    blind = known[["centred_gaussian", "sobel"]]
    words = ", ".join(f"{LABELS[arm]} {value:.2f}" for arm, value in models["value"].items())
    name = controls.CONTROLS[blind.idxmax()].label
    return (
        f"Attention score: {words}; a {name} map that sees no network gets {blind.max():.2f}, "
        f"random weights {known['random_weights']:.2f}"
    )


def by_arm(table: pd.DataFrame) -> pd.DataFrame:
    """Attention score of an arm's models: means of value, low and high (over classes), and n."""
    part = table[table["metric"] == SCORE].groupby("arm", sort=False)
    return part[["value", "low", "high"]].mean().assign(n=part["n"].max())


def control_figure(models: pd.DataFrame, scores: pd.DataFrame, title: str) -> Figure:
    """Bars: mean score per arm (`by_arm`), and of every control, with 95 % over classes."""
    figure, axis = plt.subplots(figsize=(7.5, 3))
    scores = scores.sort_values(
        "control", key=lambda names: names != "random_weights", kind="stable"
    )
    known = [LABELS[arm] for arm in models.index]
    known += [controls.CONTROLS[name].label for name in scores["control"]]
    rows = pd.concat([models, scores], ignore_index=True)
    names = [f"{name} (n = {n})" for name, n in zip(known, rows["n"], strict=True)]
    colours = [COLOURS[arm] for arm in models.index] + ["#bbbbbb"] * len(scores)
    axis.barh(names, rows["value"], color=colours)
    errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    at = np.arange(len(rows))
    axis.errorbar(rows["value"], at, xerr=errors, fmt="none", color="black", capsize=3)
    for row in rows.itertuples():
        end = row.value if np.isnan(row.high) else row.high
        axis.text(max(end, 0) + 0.015, row.Index, f"{row.value:.2f}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("mean attention score ↑ (0: uniform map, 1: all on the object)")
    headline(figure, title, "bars: 95 % over classes; of an arm, the means over its models")
    return figure


def example_figure(found: list[dict], title: str) -> Figure:
    """One row an image: picture, mask, map of base, map of BGAugment, scores below."""
    figure, axes = plt.subplots(len(found), 4, figsize=(7.6, 2.1 * len(found) + 0.5), squeeze=False)
    for line, entry in zip(axes, found, strict=True):
        line[0].imshow(entry["image"])
        line[1].imshow(entry["mask"], cmap="gray", vmin=0, vmax=1)
        line[0].set_ylabel(entry["rule"], fontsize=9)
        for axis, arm in zip(line[2:], ("base", "bgaugment"), strict=True):
            heat, score = entry[arm]
            axis.imshow(heat, cmap="magma", vmin=0, vmax=1)
            axis.contour(entry["mask"], [0.5], colors="white", linewidths=0.8)
            axis.set_xlabel(f"{LABELS[arm]}: {score:.2f}", fontsize=9)
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
    headline(figure, title)
    return figure
