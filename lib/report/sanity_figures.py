"""Figures of the checks in 05_attention: methods, cascade, faithfulness, stability, the link."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluation.models import MODEL
from lib.report.attention_figures import interval
from lib.report.attention_tables import SCORE, label_of, trained
from lib.report.score_vs_drop import OUTCOMES
from lib.report.shift_tables import lines_of
from lib.report.style import colour, headline, label, plt
from lib.training import arms

# Okabe-Ito; a marker of its own each, so that colour is not needed
FEW = "too few classes for intervals"
LINES = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#999999", "#0072B2", "#D55E00", "#CC79A7"]
SHAPES = ["o", "s", "^", "D", "v", "P", "X", "*"]


def matrix_finding(effects: pd.DataFrame) -> str:
    """By how many explanations an arm scores significantly higher than what it is compared with.

    `effects` are rows of attention_methods.csv whose arm is a pair.
    """
    part = effects[effects["metric"] == SCORE]
    if part["low"].isna().all():
        return f"Which explanations give higher scores is not known ({FEW})"
    told = []
    for pair, rows in part.groupby("arm", sort=False):
        arm, than = ("random weights" if x == "random" else label(x) for x in pair.split("-"))
        told.append(f"{arm} over {than} {(rows['low'] > 0).sum()} of {len(rows)}")
    return f"Explanations with significantly higher scores: {', '.join(told)}"


def faithfulness_finding(areas: pd.DataFrame) -> str:
    """How many maps order pixels better than chance does. `areas`: faithfulness_table."""
    own = areas[areas["map"].str.contains("/")]
    apart = own[own["metric"] == "deletion_area_minus_random_patches"]["high"]
    if apart.isna().all():
        return f"Whether maps beat a random order of patches is not known ({FEW})"
    better = (apart < 0).sum()
    return (
        f"Deletion finds {better} of {len(apart)} maps significantly better than a random order "
        "of patches"
    )


def link_finding(link: pd.DataFrame) -> str:
    """For how many trained models a higher score goes with a smaller loss.

    Args:
        link: of score_vs_drop.link.
    """
    images = link[(link["over"] == "images") & (link["arm"] != arms.UNTRAINED)]
    outcome = first_outcome(images)
    low = images[images["outcome"] == outcome]["low"]
    what = {"map_at_r_change": "a significantly smaller loss of MAP@R",
            "similarity_kept": "an embedding that moves significantly less"}  # fmt: skip
    if low.isna().all():
        return f"Whether a higher score goes with a smaller loss is not known ({FEW})"
    return (
        f"A higher score goes with {what[outcome]} for the images of {(low > 0).sum()} of "
        f"{len(low)} trained models"
    )


def first_outcome(rows: pd.DataFrame) -> str:
    """The first outcome that was measured: precision needs a random background."""
    there = set(rows["outcome"])
    return next((name for name in OUTCOMES if name in there), next(iter(OUTCOMES)))


def matrix_figure(table: pd.DataFrame, controls: int, title: str, note: str) -> Figure:
    """The matrix as numbers on colour; the last rows (`controls`) are of no model."""
    figure, axis = plt.subplots(figsize=(7.5, 0.36 * len(table) + 1.6))
    low, high = -0.2, 0.5  # where the scores lie; the true mask is above
    axis.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (y, x), value in np.ndenumerate(table.to_numpy()):
        text = "–" if np.isnan(value) else f"{value:+.2f}"
        shade = "black" if value > (low + high) / 2 else "white"
        axis.text(x, y, text, ha="center", va="center", color=shade, fontsize=10)
    axis.axhline(len(table) - controls - 0.5, color="white", lw=3)
    names = ["random weights" if arm == "random" else label(arm) for arm in table]
    axis.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], fontsize=9)
    axis.set_yticks(range(len(table)), table.index, fontsize=9)
    axis.grid(False)
    headline(figure, title, note)
    return figure


def cascade_figure(table: pd.DataFrame, title: str, note: str) -> Figure:
    """Left: likeness to the trained model's maps. Right: the score. Both over the cascade."""
    from lib.attention.attribution import Explanation

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6))
    pairs = zip(table["method"], table["target"], strict=True)
    table = table.assign(name=[Explanation(*pair).label for pair in pairs])
    for axis, metric in zip(axes, ("rank_correlation", SCORE), strict=True):
        lines = table[table["metric"] == metric].groupby("name", sort=False)
        for at, (name, line) in enumerate(lines):
            style = {"color": LINES[at % len(LINES)], "marker": SHAPES[at % len(SHAPES)]}
            shift = 0.012 * (at - len(lines) / 2)  # so that intervals do not hide each other
            error = [line["value"] - line["low"], line["high"] - line["value"]]
            axis.errorbar(
                line["share"] + shift, line["value"], error, label=name, elinewidth=0.7, **style
            )
        axis.axhline(0, color="black", lw=1)
        axis.set_xlabel("share of layers randomised, from the top")
    axes[0].set_ylabel("rank correlation with\nthe trained model's map ↓")
    axes[1].set_ylabel("attention score")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    headline(figure, title, note)
    return figure


def faithfulness_figure(table: pd.DataFrame, title: str, note: str) -> Figure:
    """Areas under deletion and insertion per map and arm; random orders at the bottom."""
    from lib.attention.sanity_checks import ORDERS

    names, arms = list(table["map"].unique()), trained(table)
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.34 * len(names) + 1.9), sharey=True)
    arrows = {"deletion_area": "deletion area ↓", "insertion_area": "insertion area ↑"}
    for axis, (metric, words) in zip(axes, arrows.items(), strict=True):
        for at, arm in enumerate(arms):
            part = table[(table["metric"] == metric) & (table["arm"] == arm)]
            shift = 0.5 * (at - (len(arms) - 1) / 2) / len(arms)
            part = part.set_index("map").loc[names]
            interval(axis, part, np.arange(len(names)) + shift, arm, label=label(arm))
        axis.axhline(len(names) - len(ORDERS) - 0.5, color="#999999", lw=1)
        axis.set_xlabel(words)
    axes[0].set_yticks(range(len(names)), [label_of(name) for name in names], fontsize=9)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=9)
    headline(figure, title, note)
    return figure


PANELS = [  # factor, measure, label, of differences of arms
    ("copies", "rank_correlation", "rank correlation ↑", False),
    ("copies", "score_change", "change of an\nimage's score ↓", False),
    ("copies", SCORE, "gain of the\nattention score", True),
    ("noise", SCORE, "attention score", False),
]
AXES = {"copies": "noisy copies", "noise": "noise, share of the image's range"}


def stability_figure(table: pd.DataFrame, title: str, note: str) -> Figure:
    """Copies: likeness of maps, change of the score, gain of an arm. Noise: the scores."""
    pair, found = table["arm"].str.contains("-"), []
    for factor, metric, words, gain in PANELS:
        part = table[(table["factor"] == factor) & (table["metric"] == metric) & (pair == gain)]
        found += [(AXES[factor], words, part)] if len(part) else []
    down, across = (1, len(found)) if len(found) < 4 else (2, 2)
    figure, axes = plt.subplots(down, across, figsize=(9, 3 * down + 0.3), squeeze=False)
    for axis, (below, beside, part) in zip(axes.flat, found, strict=True):
        for arm, line in part.groupby("arm", sort=False):
            own = arm.partition("-")[0]
            interval(axis, line, line["level"], own, upright=True, ls="-", label=label(own))
        axis.set(xscale="log", xlabel=below, ylabel=beside)
        levels = part["level"].unique()
        axis.set_xticks(levels, [f"{level:g}" for level in levels])
        axis.minorticks_off()
    axes[0, 0].legend()
    headline(figure, title, note)
    return figure


def link_figure(means: pd.DataFrame, link: pd.DataFrame, title: str, note: str) -> Figure:
    """Left: every trained model, score against loss. Right: correlation over images per model."""
    images = link[link["over"] == "images"]
    places, names = lines_of([*images[MODEL].drop_duplicates().itertuples(index=False, name=None)])
    size = (9, max(4, 0.34 * len(names) + 2.2))
    figure, axes = plt.subplots(1, 2, figsize=size, width_ratios=[1, 1.3])
    outcome = first_outcome(means)
    precision = outcome == "map_at_r_change"
    for arm, part in means[means["outcome"] == outcome].groupby("arm", sort=False):
        at = part["value"] * (100 if precision else 1)
        dots = pd.DataFrame({"value": part["score"], "low": part["score"], "high": part["score"]})
        interval(axes[0], dots, at, arm, label=label(arm), capsize=0)
    words = "change of MAP@R in points ↑" if precision else "similarity to the clean embedding ↑"
    axes[0].set(xlabel="mean attention score ↑", ylabel=words)
    axes[0].legend(fontsize=9)
    _forest(axes[1], images, places)
    axes[1].set_yticks(range(len(names)), names, fontsize=8)
    axes[1].invert_yaxis()
    headline(figure, title, note)
    return figure


def _forest(axis: Axes, images: pd.DataFrame, places: dict) -> None:
    styles = (-0.16, "o", None), (0.16, "D", "white")
    for (outcome, words), (shift, shape, fill) in zip(OUTCOMES.items(), styles, strict=True):
        rows, told = images[images["outcome"] == outcome], words
        for row in rows.index:
            loss, arm, seed = rows.loc[row, MODEL]
            style = {"marker": shape, "mfc": fill or colour(arm), "label": told, "capsize": 2}
            interval(axis, rows.loc[[row]], places[loss, arm, seed] + shift, arm, **style)
            told = None
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("rank correlation over images (expected > 0)")
    handles = axis.get_legend_handles_labels()
    axis.figure.legend(*handles, fontsize=8, loc="outside lower right", frameon=False)
