"""Figures of 04_shift: every model beside the others, the same colour for an arm everywhere."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluation import models
from lib.evaluation.effects import select
from lib.images import conditions as test_conditions
from lib.report.shift_tables import MODEL, label_of, levels, model_names
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt

PLACES = [
    "own_background", "same_class_background", "other_class_background", "same_class_tiled",
    "other_class_tiled", "random_background",
]  # fmt: skip


def _legend(arms: list[str]) -> list[plt.Line2D]:
    return [
        plt.Line2D([], [], color=COLOURS[a], marker=MARKERS[a], ls="", label=LABELS[a])
        for a in arms
    ]


def _mark(axis: Axes, at: float, row: pd.Series, across: bool = False) -> None:
    """A value with its interval (fractions, drawn in percent), upright or `across`."""
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    bar = {"xerr" if across else "yerr": [[value - low], [high - value]]}
    place = (value, at) if across else (at, value)
    arm = row["arm"]
    axis.errorbar(*place, **bar, color=COLOURS[arm], marker=MARKERS[arm], ms=5, capsize=2)


def slopes(table: pd.DataFrame, title: str) -> Figure:
    """A line from clean to shifted for every model; one panel a loss, interval over classes."""
    part = table[(table["sides"] == "both") & (table["metric"] == "map_at_r")]
    names = [name for name in part["loss"].unique() if name != "none"]
    across = min(3, len(names))
    down = -(-len(names) // across)
    size = (2.3 * across + 1.4, 2.6 * down + 1.4)
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    n = int(part["n"].max())
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for (arm, _seed), lines in part[part["loss"].isin([name, "none"])].groupby(
            ["arm", "seed"], sort=False
        ):
            values = lines.groupby("condition", sort=False)[["value", "low", "high"]].mean() * 100
            values = values.loc[["clean", "random_background"]]
            error = [values["value"] - values["low"], values["high"] - values["value"]]
            axis.errorbar(
                [0, 1], values["value"], error, color=COLOURS[arm], marker=MARKERS[arm], capsize=3,
                lw=2, ls=":" if arm == "untrained" else "-",
            )  # fmt: skip
        axis.set(
            title=label_of(name),
            xticks=[0, 1],
            xticklabels=["clean", "random\nbackground"],
            xlim=(-0.3, 1.3),
            ylim=(0, None),
        )
        axis.title.set_fontsize(10)
    for line in axes:
        line[0].set_ylabel("MAP@R in % ↑")
    figure.legend(handles=_legend(list(COLOURS)), loc="outside lower center", ncols=3)
    headline(figure, title, f"n = {n:,} queries; bars: 95 % over classes")
    return figure


def gap_figure(effects: pd.DataFrame, title: str) -> Figure:
    """Change against clean under the artefact control, same-class and other-class places."""
    kinds = [kind for kind in PLACES if kind in set(effects["condition"])]
    figure, axis = plt.subplots(figsize=(8.5, 3.8))
    for at, kind in enumerate(kinds):
        part = select(effects, "shifted-clean", kind, "both")
        for place, (_, row) in enumerate(part.iterrows()):
            _mark(axis, at + (place - (len(part) - 1) / 2) * 0.8 / len(part), row)
    axis.axhline(0, color="black", lw=1)
    names = [fill(test_conditions.get(kind).label, 11) for kind in kinds]
    axis.set_xticks(range(len(kinds)), names)
    axis.set_ylabel("change of MAP@R in points ↑")
    axis.legend(handles=_legend(list(COLOURS)), fontsize=9)
    n = int(effects["n"].max())
    headline(figure, title, f"one mark a model, n = {n:,} queries; bars: 95 % over classes")
    return figure


def query_figure(effects: pd.DataFrame, title: str) -> Figure:
    """What a model loses when only the query changes, against when both sides change."""
    sides = [
        select(effects, "shifted-clean", "random_background", side) for side in ("both", "query")
    ]
    pair = sides[0].merge(sides[1], on=models.MODEL, suffixes=("_both", "_query"))
    figure, axis = plt.subplots(figsize=(6, 4.4))
    for row in pair.itertuples():
        lost, most, least = (
            -100 * np.array([getattr(row, f"{end}_{side}") for side in ("both", "query")])
            for end in ("value", "low", "high")
        )
        (xerr, yerr) = np.stack([lost - least, most - lost], axis=1)[..., None]
        axis.errorbar(
            *lost, yerr, xerr, color=COLOURS[row.arm], marker=MARKERS[row.arm], ms=6, lw=0.8
        )
    ends = (0, axis.get_xlim()[1])
    axis.plot(ends, ends, color="#999999", lw=1)
    n = int(pair["n_both"].max())
    note = f"one mark a model, n = {n:,} queries; bars: 95 % over classes; on the line both cost"
    headline(figure, title, f"{note} the same")
    axis.set(xlabel="loss of MAP@R in points, both sides ↓", ylabel="loss in points, query only ↓")
    axis.legend(handles=_legend(list(COLOURS)))
    return figure


def uniformity_figure(classes: pd.DataFrame, title: str) -> Figure:
    """Change of MAP@R of every class against how alike its backgrounds are, one panel an arm."""
    mean = classes.groupby(["arm", "label"])[["uniformity", "change"]].mean().reset_index()
    arms = [arm for arm in COLOURS if arm in set(mean["arm"])]
    figure, axes = plt.subplots(
        1, len(arms), figsize=(9, 3.8), sharex=True, sharey=True, squeeze=False
    )
    for axis, arm in zip(axes[0], arms, strict=True):
        part = mean[mean["arm"] == arm]
        axis.plot(part["uniformity"], 100 * part["change"], MARKERS[arm], color=COLOURS[arm], ms=4)
        axis.axhline(0, color="black", lw=1)
        axis.set_title(LABELS[arm], fontsize=10)
    axes[0, 0].set_ylabel("change of MAP@R in points ↑")
    figure.supxlabel("background uniformity of the class (0 to 1)", fontsize=11)
    n = mean["label"].nunique()
    headline(figure, title, f"one mark a class (n = {n}), mean over an arm's models")
    return figure


def mask_figure(sensitivity: pd.DataFrame, title: str) -> Figure:
    """Change of MAP@R through every kind of masks: new background, and the artefact control."""
    kinds, masks = ["random_background", "own_background"], list(sensitivity["masks"].unique())
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.4 * len(masks) + 2.2), sharey=True, sharex=True)
    for axis, kind in zip(axes, kinds, strict=True):
        part = select(sensitivity, "shifted-clean", kind, "both")
        for _, row in part.iterrows():
            at = masks.index(row["masks"]) + (0.12 if row["arm"] == "bgaugment" else -0.12)
            _mark(axis, at, row, across=True)
        axis.axvline(0, color="black", lw=1)
        axis.set_title(test_conditions.get(kind).label, fontsize=10)
    axes[0].set_yticks(range(len(masks)), masks)
    axes[0].invert_yaxis()
    axes[0].legend(handles=_legend(["base", "bgaugment"]), fontsize=9)
    figure.supxlabel("change of MAP@R in points ↑", fontsize=11)
    n = int(sensitivity["n"].max())
    headline(figure, title, f"{label_of(part['loss'].iloc[0])}; n = {n:,}; bars: 95 % over classes")
    return figure


def heat_map(table: pd.DataFrame, conditions: list[str], title: str) -> Figure:
    """MAP@R in percent, losses and arms by conditions (both sides; means over seeds)."""
    values = levels(table)
    wide = values.pivot(index=MODEL, columns="condition", values="mean")[conditions]
    wide = wide.loc[list(values[MODEL].drop_duplicates().itertuples(index=False, name=None))]
    figure, axis = plt.subplots(figsize=(2.4 + 0.72 * len(conditions), 0.42 * len(wide) + 1.9))
    axis.imshow(wide, cmap="cividis", aspect="auto")
    axis.grid(False)
    middle = (wide.to_numpy().max() + wide.to_numpy().min()) / 2
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        colour = "black" if value > middle else "white"
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    names = model_names([(*line, 0) for line in wide.index])
    labels = [fill(test_conditions.get(name).label, 10) for name in conditions]
    axis.set_yticks(range(len(wide)), names)
    axis.set_xticks(range(len(conditions)), labels)
    axis.tick_params(labelsize=9)
    headline(figure, title, "MAP@R in % ↑, queries and gallery both changed")
    return figure
