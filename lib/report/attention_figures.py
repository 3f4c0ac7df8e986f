"""Figures and shown tables of the attention score in 05_attention."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.attention.scores import SCORES
from lib.core import paths
from lib.evaluation.models import MODEL
from lib.report.attention_tables import SCORE, label_of
from lib.report.shift_tables import lines_of, model_names
from lib.report.style import colour, headline, label, marker, plt

PUBLISHED = paths.FACTS / "published_attention.csv"


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 for a data set: loss, arm, mean, std over images (fractions)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_two(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours (attention_tables.summary) beside the paper's: attention score per model."""
    ours = table[table["metric"] == SCORE]
    both = ours.merge(published(dataset), on=["loss", "arm"], how="left").set_index(MODEL)
    columns = {"value": "score ↑", "low": "low", "high": "high", "std_over_images": "std"}
    if both["mean"].notna().any():
        columns |= {"mean": "paper ↑", "std": "its std", "difference": "difference"}
        both["difference"] = both["value"] - both["mean"]
    names = model_names(list(both.index))
    return both[list(columns)].rename(columns=columns).set_axis(names, axis=0)


def interval(
    axis: Axes, rows: pd.DataFrame, at: np.ndarray | float, arm: str, upright: bool = False, **more
) -> None:
    """Means with their intervals in an arm's colour and marker: along x, or (upright) along y."""
    error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    places = (at, rows["value"]) if upright else (rows["value"], at)
    style = {"color": colour(arm), "marker": marker(arm), "capsize": 3, "ms": 5, "ls": ""} | more
    axis.errorbar(*places, **{"yerr" if upright else "xerr": error}, **style)


def score_figure(
    rows: pd.DataFrame, table: pd.DataFrame, effects: pd.DataFrame, dataset: str, metric: str,
    title: str, note: str,
) -> Figure:  # fmt: skip
    """Left: a measure of every image, one line a loss and arm. Right: paired gains, if any.

    Dots are images (right: a diamond is the published gain), bars are intervals.
    """
    part = rows[(rows["metric"] == metric) & rows["defined"]]
    models = dict([*part.groupby(MODEL, sort=False)])
    places, names = lines_of(list(models))
    gains = effects[effects["metric"] == metric]
    panels, size = 1 + bool(len(gains)), (9, 0.36 * len(names) + 1.8)
    figure, axes = plt.subplots(
        1, panels, figsize=size, sharey=True, width_ratios=[2, 1][:panels], squeeze=False
    )
    mean = table[table["metric"] == metric].set_index(MODEL)
    _distributions(axes[0, 0], models, places, mean)
    axes[0, 0].set(xlabel=f"{SCORES[metric].label} ↑", yticks=range(len(names)))
    axes[0, 0].set_yticklabels(names, fontsize=9)
    axes[0, 0].invert_yaxis()
    if len(gains):
        _gains(axes[0, 1], gains, places, published(dataset if metric == SCORE else ""))
    headline(figure, title, f"n = {part.groupby(MODEL).size().max()} images a model; {note}")
    return figure


def _distributions(axis: Axes, models: dict, places: dict, mean: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)  # only spreads the dots
    for model, dots in models.items():
        at = round(places[model]) + rng.uniform(-0.3, 0.3, len(dots))
        axis.scatter(
            dots["value"], at, s=10, color=colour(model[1]), alpha=0.35, lw=0, rasterized=True
        )  # thousands of dots: a picture inside the SVG
        interval(axis, mean.loc[[model]], places[model], model[1], color="black")
    axis.axvline(0, color="black", lw=1)


def _gains(axis: Axes, gains: pd.DataFrame, places: dict, theirs: pd.DataFrame) -> None:
    known = theirs.set_index(["loss", "arm"])["mean"]
    for row in gains.index:
        loss, seed, contrast = gains.loc[row, ["loss", "seed", "contrast"]]
        arm, than = contrast.split("-")
        interval(axis, gains.loc[[row]], places[loss, arm, seed], arm)
        if (loss, arm) in known and (loss, than) in known:
            gain = known[loss, arm] - known[loss, than]
            axis.plot(gain, places[loss, arm, seed], "d", color="black", mfc="white")
    axis.axvline(0, color="black", lw=1)
    pairs = [contrast.split("-") for contrast in gains["contrast"].unique()]
    names = "\n".join(f"{label(arm)} − {label(than)} ↑" for arm, than in pairs)
    axis.set_xlabel(names + ("\n◇ published" if len(known) else ""))


def measures(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """All measures on the same maps: what they are, chance, and the mean of each arm."""
    arms = table.groupby(["metric", "arm"], sort=False)["value"].mean().unstack()
    facts = {}
    for name, measure in SCORES.items():
        mine = rows[rows["metric"] == name]
        facts[measure.label] = {
            "chance": mine[mine["defined"]]["chance"].mean(),
            **{f"{label(arm)} ↑": arms.loc[name, arm] for arm in table["arm"].unique()},
            "range": f"{measure.low:g} to {measure.high:g}".replace("-inf", "below 0"),
            "left out": f"{1 - mine['defined'].mean():.1%}",
        }
    return pd.DataFrame.from_dict(facts, orient="index")


def control_figure(models: pd.DataFrame, controls: pd.DataFrame, title: str, note: str) -> Figure:
    """Bars: mean score of every arm (one row an arm) and of every control, with intervals."""
    figure, axis = plt.subplots(figsize=(7.5, 0.33 * (len(models) + len(controls)) + 1))
    controls = controls.sort_values("control", key=lambda x: x != "random_weights", kind="stable")
    rows = pd.concat([models, controls], ignore_index=True)
    names = [*map(label, models["arm"]), *map(label_of, controls["control"])]
    names = [f"{name} (n = {n})" for name, n in zip(names, rows["n"], strict=True)]
    colours = [*map(colour, models["arm"]), *["#bbbbbb"] * len(controls)]
    error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    axis.barh(names, rows["value"], color=colours, xerr=error, capsize=3)
    for at, (value, high) in enumerate(zip(rows["value"], rows["high"], strict=True)):
        end = value if np.isnan(high) else high
        axis.text(max(end, 0) + 0.015, at, f"{value:.2f}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("mean attention score ↑ (0: uniform map, 1: all on the object)")
    headline(figure, title, note)
    return figure


def example_figure(tiles: list[np.ndarray], table: pd.DataFrame, title: str) -> Figure:
    """One row an image: the image, its mask, its map in every arm, scores below."""
    columns, rules = list(table["shows"].unique()), list(table["rule"].unique())
    size = (1.9 * len(columns), 2.1 * len(rules) + 0.5)
    figure, axes = plt.subplots(len(rules), len(columns), figsize=size, squeeze=False)
    masks = {
        row.rule: tile[..., 0]
        for row, tile in zip(table.itertuples(), tiles, strict=True)
        if row.shows == "mask"
    }
    for row, tile in zip(table.itertuples(), tiles, strict=True):
        axis = axes[rules.index(row.rule), columns.index(row.shows)]
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        if row.shows in ("image", "mask"):
            axis.imshow(tile)
            continue
        axis.imshow(tile[..., 0], cmap="magma", vmin=0, vmax=255)
        axis.contour(masks[row.rule], [127.5], colors="white", linewidths=0.8)
        axis.set_xlabel(f"{label(row.shows)}: {row.score:.2f}", fontsize=9)
    for axis, rule in zip(axes[:, 0], rules, strict=True):
        axis.set_ylabel(rule, fontsize=9)
    headline(figure, title)
    return figure
