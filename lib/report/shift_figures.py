"""Figures of what the background does to retrieval: an arm has the same colour everywhere.

Every function returns a figure and its finding (the title); the figure is None, and the finding
says why, where the study has not measured what it shows.
"""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluation.effects import select
from lib.evaluation.models import MODEL as WHO
from lib.images import conditions as test_conditions
from lib.report import shift_tables
from lib.report.shift_tables import MODEL, arms_of, label_of, means, model_names, per_arm
from lib.report.style import colour, framed, headline, label, legend, marker, plt

Shown = tuple[Figure | None, str]
DRAWN = 3  # arms whose neighbours are drawn
BARS = "bars: 95 % intervals over classes"
BACKGROUNDS = [
    "own_background", "same_class_background", "other_class_background", "same_class_tiled",
    "other_class_tiled", "random_background",
]  # fmt: skip


def _missing(what: str) -> Shown:
    return None, f"Not measured: {what}."


def mark(axis: Axes, at: float, row, across: bool = False) -> None:
    """A value with its interval (fractions, drawn in percent), upright or `across`."""
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    bar = {"xerr" if across else "yerr": [[value - low], [high - value]]}
    place = (value, at) if across else (at, value)
    arm = row["arm"]
    axis.errorbar(*place, **bar, color=colour(arm), marker=marker(arm), ms=5, capsize=2)


def slopes(table: pd.DataFrame, shares: pd.DataFrame) -> Shown:
    """A line from clean to shifted for every model; one panel a loss, interval over classes.

    `shares`: of effects.share_lost, for the title.
    """
    if shares.empty:
        return _missing("random_background")
    title = f"MAP@R lost when only the background changes: {shift_tables.share_words(shares)}"
    part = table[(table["sides"] == "both") & (table["metric"] == "map_at_r")]
    names = [name for name in part["loss"].unique() if name != "none"]
    across = min(3, len(names))
    size = (2.5 * across + 1.6, 2.6 * -(-len(names) // across) + 1.4)
    figure, axes = plt.subplots(
        -(-len(names) // across), across, figsize=size, sharey=True, squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        _lines(axis, part[part["loss"].isin([name, "none"])])
        axis.set_title(label_of(name), fontsize=10)
    for line in axes:
        line[0].set_ylabel("MAP@R in % ↑")
    arms = arms_of(part)
    figure.legend(handles=legend(arms), loc="outside lower center", ncols=min(4, len(arms)))
    headline(figure, title, f"one line a model, n = {part['n'].max():,} queries; {BARS}")
    return figure, title


def _lines(axis: Axes, part: pd.DataFrame) -> None:
    for (arm, _), lines in part.groupby(["arm", "seed"], sort=False):
        values = lines.groupby("condition")[["value", "low", "high"]].mean() * 100
        values = values.loc[shift_tables.PAPER]
        error = [values["value"] - values["low"], values["high"] - values["value"]]
        axis.errorbar(
            [0, 1], values["value"], error, color=colour(arm), marker=marker(arm), capsize=3, lw=2,
            ls=":" if arm == "untrained" else "-",
        )  # fmt: skip
    names = ["clean", "random\nbackground"]
    axis.set(xticks=[0, 1], xticklabels=names, xlim=(-0.3, 1.3), ylim=(0, None))


def changes(effects: pd.DataFrame, shares: pd.DataFrame) -> Shown:
    """Change of MAP@R under a random background, a line a loss and arm, a mark a model."""
    found = select(effects, "shifted-clean", "random_background", "both")
    if found.empty:
        return _missing("random_background")
    points = -100 * means(found, ["arm"]).set_index("arm")["value"]
    title = (
        f"MAP@R lost when only the background changes: {shift_tables.share_words(shares)}; "
        f"in points: {per_arm(points, '{:.1f}')}"
    )
    rows = [row for arm in arms_of(found) for row in found[found["arm"] == arm].to_dict("records")]
    places, names = shift_tables.lines_of([tuple(row[key] for key in WHO) for row in rows])
    figure, axis = plt.subplots(figsize=(7.5, 0.36 * len(names) + 1.5))
    for row in rows:
        mark(axis, places[tuple(row[key] for key in WHO)], row, across=True)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("change of MAP@R in points under a random background ↑")
    headline(figure, title, f"one mark a model, n = {found['n'].max():,} queries; {BARS}")
    return figure, title


def background_gap(effects: pd.DataFrame) -> Shown:
    """Change against clean under the artefact control, same-class and other-class backgrounds."""
    gap = shift_tables.background_gap(effects)
    kinds = [kind for kind in BACKGROUNDS if kind in set(effects["condition"])]
    if gap.empty:
        return _missing("places of the object's own class beside those of another class")
    points = 100 * means(gap, ["arm"]).set_index("arm")["value"]
    title = (
        "Extra points of MAP@R lost when the background comes from another class rather than "
        "the object's own: "
        f"{per_arm(points, '{:+.1f}')}"
    )
    arms = arms_of(effects)
    figure, axis = plt.subplots(figsize=(1.5 * len(kinds) + 1, 4))
    for at, kind in enumerate(kinds):
        part = select(effects, "shifted-clean", kind, "both")
        rows = sorted(part.to_dict("records"), key=lambda row: arms.index(row["arm"]))
        for number, row in enumerate(rows):
            mark(axis, at + (number - (len(rows) - 1) / 2) * 0.8 / len(rows), row)
    axis.axhline(0, color="black", lw=1)
    axis.set_xticks(range(len(kinds)), [fill(test_conditions.get(k).label, 11) for k in kinds])
    axis.set_ylabel("change of MAP@R in points ↑")
    figure.legend(handles=legend(arms), loc="outside lower center", ncols=len(arms), fontsize=9)
    headline(figure, title, f"one mark a model, n = {effects['n'].max():,} queries; {BARS}")
    return figure, title


def query_only(effects: pd.DataFrame) -> Shown:
    """What a model loses when only the query changes, against when both sides change."""
    pair = [select(effects, "shifted-clean", "random_background", s) for s in ("both", "query")]
    both = pair[0].merge(pair[1], on=WHO, suffixes=("_both", "_query"))
    if both.empty:
        return _missing("random_background with only the query changed")
    cost = means(both, ["arm"], ["value_query", "value_both"]).set_index("arm")
    share = cost["value_query"] / cost["value_both"]
    title = (
        "Loss when only the query's background changes, as a share of the loss when both sides "
        f"change: {per_arm(share, '{:.0%}')}"
    )
    figure, axis = plt.subplots(figsize=(6.4, 4.6))
    for row in both.to_dict("records"):
        lost, most, least = (
            -100 * np.array([row[f"{end}_both"], row[f"{end}_query"]])
            for end in ("value", "low", "high")
        )
        xerr, yerr = np.stack([lost - least, most - lost], axis=1)[..., None]
        style = {"color": colour(row["arm"]), "marker": marker(row["arm"]), "ms": 6, "lw": 0.8}
        axis.errorbar(*lost, yerr, xerr, **style)
    ends = (min(0, axis.get_xlim()[0]), axis.get_xlim()[1])
    axis.plot(ends, ends, color="#999999", lw=1)
    axis.set(xlabel="points of MAP@R lost, both sides ↓", ylabel="points lost, query only ↓")
    axis.legend(handles=legend(arms_of(both)))
    note = f"one mark a model, n = {both['n_both'].max():,} queries; {BARS}; line: the same loss"
    headline(figure, title, note)
    return figure, title


def uniformity(classes: pd.DataFrame, link: pd.DataFrame) -> Shown:
    """Change of MAP@R of every class against how alike its backgrounds are, one panel an arm.

    `link` is shift_tables.class_link; the finding is that of the reference arm.
    """
    arms = arms_of(classes)
    row = link.set_index("arm").loc[shift_tables.reference_of(arms)]
    apart = row["low"] > 0 or row["high"] < 0
    what = "Classes with similar backgrounds lose " + ("more" if row["value"] < 0 else "less")
    what = what if apart else "No significant link between background uniformity and loss"
    if np.isnan(row["low"]):
        what = "Too few classes to tell whether those with similar backgrounds lose more"
    title = f"{what} ({label(row.name)}: Spearman correlation {shift_tables.told(row, -1, 2)})"
    mean = classes.groupby(["arm", "label"])[["uniformity", "change"]].mean().reset_index()
    size = (3 * len(arms) + 0.8, 3.8)
    figure, axes = plt.subplots(1, len(arms), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, arm in zip(axes[0], arms, strict=True):
        part = mean[mean["arm"] == arm]
        axis.plot(part["uniformity"], 100 * part["change"], marker(arm), color=colour(arm), ms=4)
        axis.axhline(0, color="black", lw=1)
        axis.set_title(label(arm), fontsize=10)
    axes[0, 0].set_ylabel("change of MAP@R in points ↑")
    figure.supxlabel("background uniformity of the class (0 to 1)", fontsize=11)
    headline(figure, title, f"one mark a class (n = {mean['label'].nunique()}), mean over models")
    return figure, title


def mask_sensitivity(sensitivity: pd.DataFrame) -> Shown:
    """Change of MAP@R through every kind of masks: random background, and the artefact control."""
    kinds, masks = ["random_background", "own_background"], list(sensitivity["masks"].unique())
    down, arms = select(sensitivity, "shifted-clean", kinds[0], "both"), arms_of(sensitivity)
    if down.empty:
        return _missing("random_background through other masks")
    lower = (down["high"] < 0).groupby(down["arm"], sort=False).sum()
    title = (
        f"MAP@R falls significantly under a random background with this many of {len(masks)} kinds "
        f"of masks: {per_arm(lower, '{:.0f}')}"
    )
    if (lower == len(masks)).all():
        known = {1: "the study's own masks", 2: "both kinds of masks"}
        which = known.get(len(masks), f"all {len(masks)} kinds of masks")
        names = ", ".join(map(label, lower.index))
        title = f"MAP@R falls significantly under a random background with {which}: {names}"
    if down["high"].isna().all():
        mean = 100 * down.groupby("arm", sort=False)["value"].mean()
        title = (
            f"Change of MAP@R under a random background, mean over {len(masks)} kinds of masks "
            f"(too few classes for intervals): {per_arm(mean, '{:+.1f}')}"
        )
    size = (9, (0.25 + 0.1 * len(arms)) * len(masks) + 2.4)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, sharex=True)
    for axis, kind in zip(axes, kinds, strict=True):
        for row in select(sensitivity, "shifted-clean", kind, "both").to_dict("records"):
            shift = 0.24 * (arms.index(row["arm"]) - (len(arms) - 1) / 2)
            mark(axis, masks.index(row["masks"]) + shift, row, across=True)
        axis.axvline(0, color="black", lw=1)
        axis.set_title(test_conditions.get(kind).label, fontsize=10)
        axis.set_xlabel("change of MAP@R in points ↑")
    axes[0].set_yticks(range(len(masks)), masks)
    axes[0].set_ylim(len(masks) - 0.5, -0.5)
    figure.legend(handles=legend(arms), loc="outside lower center", ncols=len(arms), fontsize=9)
    note = f"{label_of(down['loss'].iloc[0])}; n = {down['n'].max():,} queries; {BARS}"
    headline(figure, title, note)
    return figure, title


def heat_map(table: pd.DataFrame, conditions: list[str]) -> Shown:
    """MAP@R in percent, losses and arms by conditions (both sides; means over seeds)."""
    values = shift_tables.levels(table)
    alone = values[values["condition"] == "background_only"]
    kept = alone.groupby("arm", sort=False)["mean"].mean()
    title = "MAP@R of every model under every condition"
    if len(kept):
        title = f"MAP@R that is left with the object painted out: {per_arm(kept, '{:.1f} %')}"
    wide = values.pivot(index=MODEL, columns="condition", values="mean")[conditions]
    wide = wide.loc[list(values[MODEL].drop_duplicates().itertuples(index=False, name=None))]
    size = (max(6.5, 2.4 + 0.76 * len(conditions)), 0.42 * len(wide) + 1.9)
    figure, axis = plt.subplots(figsize=size)
    axis.imshow(wide, cmap="cividis", aspect="auto")
    axis.grid(False)
    middle = (wide.to_numpy().max() + wide.to_numpy().min()) / 2
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        ink = "black" if value > middle else "white"
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=9)
    labels = [fill(test_conditions.get(name).label, 11) for name in conditions]
    axis.set_yticks(range(len(wide)), model_names([(*line, 0) for line in wide.index]))
    axis.set_xticks(range(len(conditions)), labels)
    axis.tick_params(labelsize=9)
    axis.tick_params(axis="x", labelsize=8)
    headline(figure, title, "MAP@R in % ↑, queries and gallery both changed")
    return figure, title


def nearest(tiles: list[np.ndarray], table: pd.DataFrame) -> Shown:
    """A sheet of nearest images (lib.evaluation.query_examples), a line a query, arm and condition.

    The query in black, correct neighbours in green; the finding counts them. Of many arms the first
    DRAWN are drawn, and all are counted.
    """
    line = ["rule", "arm", "condition"]
    hits = table[table["place"] > 0].groupby(line[1:], sort=False)["right"].agg(["sum", "size"])
    counts = hits["sum"].astype(str).groupby("arm", sort=False).agg(" → ".join)
    kinds = " → ".join(table["condition"].unique()).replace("_", " ")
    title = f"Correct neighbours among {hits['size'].max()} shown, {kinds}: {per_arm(counts, '{}')}"
    names = list(table["arm"].unique())
    drawn = table[table["arm"].isin(names[:DRAWN])]
    groups = list(drawn.groupby(line, sort=False))
    across = table["place"].max() + 1
    size = (1.2 * across + 1.2, 1.2 * len(groups) + 0.8)
    figure, axes = plt.subplots(len(groups), across, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, ((rule, arm, condition), part) in zip(axes, groups, strict=True):
        for axis, at, entry in zip(row, part.index, part.itertuples(), strict=False):
            axis.set_axis_on()
            framed(axis, tiles[at], None if entry.place == 0 else bool(entry.right))
        name = f"{rule}\n{label(arm)}\n{condition.replace('_', ' ')}"
        row[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    shown = ", ".join(label(name) for name in names[:DRAWN])
    headline(figure, title, f"drawn: {shown}" if len(names) > DRAWN else "")
    return figure, title
