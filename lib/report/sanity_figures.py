"""Figures of the checks in 05_attention; every title is made from the numbers it stands over."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.attention import maps
from lib.attention.attribution import Explanation
from lib.attention.examples import SCORE
from lib.attention.sanity_checks import BLIND, ORDERS, label_of
from lib.report.shift_tables import lines_of
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt

ARMS = {"random": "random\nweights", "untrained": "ImageNet\ntrunk", "base": "base"}
ARMS |= {"bgaugment": "BGAugment"}
# Okabe-Ito; a marker of its own each, so that colour is not needed
LINES = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#999999", "#0072B2", "#D55E00", "#CC79A7"]
SHAPES = ["o", "s", "^", "D", "v", "P", "X", "*"]


def _names(table: pd.DataFrame) -> pd.Series:
    parts = zip(table["method"], table["target"], strict=True)
    return pd.Series([Explanation(*part).label for part in parts], index=table.index)


def matrix(methods: pd.DataFrame, blind: pd.DataFrame) -> pd.DataFrame:
    """Mean attention score: one row an explanation or blind map, one column a network."""
    part = methods[methods["metric"] == SCORE]
    part = part.assign(name=_names(part))
    wide = part.pivot(index="name", columns="arm", values="value")[list(ARMS)]
    wide = wide.loc[part["name"].unique()]
    known = blind.set_index("control")["value"]
    rows = {label_of(name): known[name] for name in BLIND if name in known}
    same = pd.DataFrame({arm: rows for arm in ARMS})
    return pd.concat([wide, same])


def matrix_finding(effects: pd.DataFrame) -> str:
    """By how many explanations the arms differ, and base from random weights."""
    part = effects[effects["metric"] == SCORE]
    up, down = part[part["low"] > 0], part[part["high"] < 0]
    more, less = up["arm"].value_counts(), down["arm"].value_counts()
    n = part["arm"].value_counts().max()
    gain, taught = "bgaugment-base", "base-random"
    return (
        f"By {n} explanations BGAugment scores surely higher than base in {more.get(gain, 0)} "
        f"(lower in {less.get(gain, 0)}), base surely higher than random weights in "
        f"{more.get(taught, 0)} (lower in {less.get(taught, 0)})"
    )


def matrix_figure(table: pd.DataFrame, title: str, note: str) -> Figure:
    """The matrix as numbers on colour; maps that see no network stand below the line."""
    figure, axis = plt.subplots(figsize=(7.5, 0.36 * len(table) + 1.6))
    low, high = -0.2, 0.5  # where the scores lie; the true mask is above
    axis.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (y, x), value in np.ndenumerate(table.to_numpy()):
        text = "–" if np.isnan(value) else f"{value:+.2f}"
        colour = "black" if value > (low + high) / 2 else "white"
        axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=10)
    axis.axhline(len(table) - len(BLIND) - 0.5, color="white", lw=3)
    axis.set_xticks(range(len(ARMS)), ARMS.values(), fontsize=9)
    axis.set_yticks(range(len(table)), table.index, fontsize=9)
    axis.grid(False)
    headline(figure, title, note)
    return figure


def cascade_finding(table: pd.DataFrame) -> str:
    """Which explanation changes most, and which least, when all weights are random."""
    last = table[(table["metric"] == "rank_correlation") & (table["share"] == 1)]
    last = last.assign(name=_names(last)).set_index("name")["value"]
    return (
        f"With all weights random the maps' rank correlation with the trained network's falls to "
        f"{last.min():.2f} ({last.idxmin()}) to {last.max():.2f} ({last.idxmax()})"
    )


def cascade_figure(table: pd.DataFrame, title: str) -> Figure:
    """Left: likeness to the trained network's maps. Right: the score. Both over the cascade."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6))
    table = table.assign(name=_names(table))
    for axis, metric in zip(axes, ("rank_correlation", SCORE), strict=True):
        part = table[table["metric"] == metric].groupby("name", sort=False)
        for at, (name, line) in enumerate(part):
            style = {"color": LINES[at % len(LINES)], "marker": SHAPES[at % len(SHAPES)]}
            shift = 0.012 * (at - len(part) / 2)  # so that intervals do not hide each other
            error = [line["value"] - line["low"], line["high"] - line["value"]]
            axis.errorbar(
                line["share"] + shift, line["value"], error, label=name, elinewidth=0.7, **style
            )
        axis.axhline(0, color="black", lw=1)
        axis.set_xlabel("share of layers drawn anew, from the top")
    axes[0].set_ylabel("rank correlation with\nthe trained network's map ↓")
    axes[1].set_ylabel("attention score")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    headline(figure, title, _note(table))
    return figure


def faithfulness_finding(table: pd.DataFrame) -> str:
    """How many maps order pixels better than chance does, for the base arm."""
    own = table[(table["arm"] == "base") & table["map"].str.contains("/")]
    words = []
    for order in ORDERS:
        fall = own[own["metric"] == f"deletion_area_minus_{order}"]
        rise = own[own["metric"] == f"insertion_area_minus_{order}"]
        name = order.replace("_", " ")
        words.append(
            f"{name} in {(fall['high'] < 0).sum()} (deletion) and {(rise['low'] > 0).sum()} "
            f"(insertion) of {len(fall)}"
        )
    return f"Explanations that surely beat a random order: {'; '.join(words)}"


def faithfulness_figure(table: pd.DataFrame, title: str) -> Figure:
    """Areas under deletion and insertion per map and arm; random orders at the bottom."""
    names = list(table["map"].unique())
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.34 * len(names) + 1.9), sharey=True)
    arrows = {"deletion_area": "deletion area ↓", "insertion_area": "insertion area ↑"}
    for axis, (metric, label) in zip(axes, arrows.items(), strict=True):
        for shift, arm in ((-0.14, "base"), (0.14, "bgaugment")):
            part = table[(table["metric"] == metric) & (table["arm"] == arm)].set_index("map")
            part = part.loc[names]
            _dots(axis, part, np.arange(len(names)) + shift, arm)
        axis.axhline(len(names) - len(ORDERS) - 0.5, color="#999999", lw=1)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(names)), [label_of(name) for name in names], fontsize=9)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=9)
    headline(figure, title, _note(table))
    return figure


def _dots(axis: Axes, part: pd.DataFrame, at: np.ndarray, arm: str) -> None:
    error = [part["value"] - part["low"], part["high"] - part["value"]]
    axis.errorbar(
        part["value"], at, xerr=error, ls="", capsize=2, ms=5,
        color=COLOURS[arm], marker=MARKERS[arm], label=LABELS[arm],
    )  # fmt: skip


def stability_finding(table: pd.DataFrame, copies: int) -> str:
    """What the study's number of copies gives, and how few show the gain of BGAugment."""
    part = table[table["factor"] == "copies"]
    mean = part.groupby(["metric", "level"])["value"].mean()
    alike, moved = mean["rank_correlation"], mean["score_change"]
    at = max([level for level in alike.index if level <= copies], default=min(alike.index))
    most = max(alike.index)
    return (
        f"Maps of {at:g} copies have rank correlation {alike[at]:.2f} with maps of {most:g} others "
        f"(maps of {most:g}: {alike[most]:.2f}), an image's score moves by {moved[at]:.3f}; "
        f"{_enough(part[part['arm'] == 'bgaugment-base'])}"
    )


def _enough(gain: pd.DataFrame) -> str:
    """The least number of copies from which on the gain's interval leaves out zero."""
    sure = ((gain["low"] > 0) | (gain["high"] < 0)).set_axis(gain["level"]).sort_index()
    lasting = sure[::-1].cummin()[::-1]
    if not lasting.any():
        return "no number of copies makes the difference of the arms sure"
    return f"the difference of the arms is sure with {lasting.idxmax():g} or more"


def stability_figure(table: pd.DataFrame, title: str) -> Figure:
    """Copies: likeness of the maps, change of the score, gain of BGAugment. Noise: the scores."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    panels = [
        ("copies", "rank_correlation", "rank correlation ↑"),
        ("copies", "score_change", "change of an\nimage's score ↓"),
        ("copies", SCORE, "BGAugment − base"),
        ("noise", SCORE, "attention score"),
    ]
    for axis, (factor, metric, label) in zip(axes.flat, panels, strict=True):
        part = table[(table["factor"] == factor) & (table["metric"] == metric)]
        gain = part["arm"] == "bgaugment-base"
        part = part[gain] if "−" in label else part[~gain]
        for arm, line in part.groupby("arm", sort=False):
            error = [line["value"] - line["low"], line["high"] - line["value"]]
            shown = "bgaugment" if arm == "bgaugment-base" else arm
            style = {"color": COLOURS[shown], "marker": MARKERS[shown], "capsize": 3}
            axis.errorbar(line["level"], line["value"], error, label=LABELS[shown], **style)
        axis.set_ylabel(label)
        _levels(axis, part["level"].unique(), factor)
    axes[0, 0].legend()
    headline(figure, title, _note(table))
    return figure


def _levels(axis: Axes, levels: np.ndarray, factor: str) -> None:
    axis.set_xscale("log")
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.minorticks_off()
    words = {"copies": "noisy copies", "noise": "noise, share of the image's range"}
    axis.set_xlabel(words[factor])


def _note(table: pd.DataFrame) -> str:
    return f"n = {int(table['n'].max())} images; bars: 95 % over classes"


def link_finding(link: pd.DataFrame) -> str:
    """The correlation over models in words, with its interval and how few models there are."""
    part = link[(link["over"] == "models") & (link["outcome"] == "map_at_r_change")]
    words = []
    for row in part.itertuples():
        name = "both arms" if row.arm == "both" else f"{LABELS[row.arm]} alone"
        known = "no interval" if np.isnan(row.low) else f"{row.low:+.2f} to {row.high:+.2f}"
        value = "undefined" if np.isnan(row.value) else f"{row.value:+.2f}"
        words.append(f"{name} {value} ({known}; {row.n} models)")
    return "Score and loss of MAP@R over models, rank correlation: " + ", ".join(words)


def link_figure(means: pd.DataFrame, link: pd.DataFrame, labels: dict, title: str) -> Figure:
    """Left: every trained model, score against loss. Right: correlation over images per model.

    `labels` names the outcomes of the right panel (lib.attention.score_vs_drop.OUTCOMES).
    """
    images = link[link["over"] == "images"]
    models = images[maps.MODEL].drop_duplicates().itertuples(index=False, name=None)
    places, names = lines_of(list(models))
    height = 0.34 * len(names) + 2.2
    figure, axes = plt.subplots(1, 2, figsize=(9, max(4, height)), width_ratios=[1, 1.3])
    part = means[means["outcome"] == "map_at_r_change"]
    for arm, dots in part.groupby("arm", sort=False):
        style = {"color": COLOURS[arm], "marker": MARKERS[arm], "label": LABELS[arm]}
        axes[0].plot(dots["score"], 100 * dots["value"], ls="", **style)
    axes[0].set(xlabel="mean attention score ↑", ylabel="change of MAP@R in points ↑")
    axes[0].legend(fontsize=9)
    _forest(axes[1], images, places, labels)
    axes[1].set_yticks(range(len(names)), names, fontsize=8)
    axes[1].invert_yaxis()
    headline(figure, title)
    return figure


def _forest(axis: Axes, images: pd.DataFrame, places: dict, labels: dict) -> None:
    for shift, (outcome, label) in zip((-0.16, 0.16), labels.items(), strict=True):
        rows = images[images["outcome"] == outcome]
        labelled = rows.index[0]
        for row in rows.itertuples():
            at = places[row.loss, row.arm, row.seed] + shift
            error = [[row.value - row.low], [row.high - row.value]]
            first = row.Index == labelled
            axis.errorbar(
                row.value, at, xerr=error, capsize=2, ms=5, color=COLOURS[row.arm],
                marker="o" if shift < 0 else "D", mfc="white" if shift > 0 else None,
                label=label if first else None,
            )  # fmt: skip
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("rank correlation over images (expected > 0)")
    axis.figure.legend(
        *axis.get_legend_handles_labels(), fontsize=8, loc="outside lower right", frameon=False
    )
