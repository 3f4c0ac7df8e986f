"""Published against ours, cell by cell: levels, effects, and whether their signs agree."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import compare, looks
from lib.answers import Tables
from lib.figures import COLOURS, LABELS, MARKERS, headline, plt

COLUMNS = ["measure", "what", "loss", "arm", "seed", "ours", "low", "high", "paper", "same_sign"]
DROP = "new background"
HELP = {"random_background": "BGAugment gain, new background", "clean": "BGAugment gain, clean"}
LOOK = "BGAugment gain, attention"


def levels(tables: Tables, dataset: str) -> pd.DataFrame:
    """Every cell of the paper's Tables 1 and 2 with ours; MAP@R in percent, scores as they are.

    Ours under random_background are means over draws, also of the ends of the intervals.
    """
    part = tables.retrieval
    part = part[(part["metric"] == "map_at_r") & (part["sides"] == "both")]
    keys = ["loss", "arm", "condition", "seed"]
    found = part.groupby(keys, sort=False)[["value", "low", "high"]].mean().mul(100).reset_index()
    theirs = compare.published(dataset).rename(columns={"mean": "paper"})
    map_at_r = found.merge(theirs[["loss", "arm", "condition", "paper"]], how="inner")
    map_at_r = map_at_r.assign(measure="MAP@R, %", what=map_at_r["condition"])
    score = _attention(tables.attention)
    theirs = looks.published(dataset).rename(columns={"mean": "paper"})
    score = score.merge(theirs[["loss", "arm", "paper"]], how="inner")
    score = score.assign(measure="attention score", what="level")
    return _joined([map_at_r, score])


def effects(tables: Tables, dataset: str) -> pd.DataFrame:
    """Differences that the paper reports (or implies) with ours, their interval, signs compared."""
    wide = compare.published(dataset).pivot(
        index="loss", columns=["arm", "condition"], values="mean"
    )
    rows = []
    for arm in ("base", "bgaugment"):
        ours = tables.change(arm)
        for row in ours[ours["loss"].isin(wide.index)].itertuples():
            paper = (
                wide.loc[row.loss, (arm, "random_background")] - wide.loc[row.loss, (arm, "clean")]
            )
            rows.append(_row("MAP@R, points", DROP, row, arm, 100, paper))
    for condition, what in HELP.items():
        ours = tables.help(condition)
        for row in ours[ours["loss"].isin(wide.index)].itertuples():
            paper = wide.loc[row.loss, ("bgaugment", condition)]
            paper -= wide.loc[row.loss, ("base", condition)]
            rows.append(_row("MAP@R, points", what, row, "bgaugment", 100, paper))
    score = looks.published(dataset).pivot(index="loss", columns="arm", values="mean")
    moved = _attention(tables.attention_effects)
    for row in moved[moved["loss"].isin(score.index)].itertuples():
        paper = score.loc[row.loss, "bgaugment"] - score.loc[row.loss, "base"]
        rows.append(_row("attention score", LOOK, row, "bgaugment", 1, paper))
    return pd.DataFrame(rows, columns=COLUMNS)


def _attention(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the paper's own score: SmoothGrad to the black image."""
    keep = (table["metric"] == "attention_score") & (table["method"] == "smoothgrad")
    return table[keep & (table["target"] == "distance_to_black")]


def _row(measure: str, what: str, row, arm: str, scale: float, paper: float) -> list:
    mine = [scale * value for value in (row.value, row.low, row.high)]
    agree = bool(np.sign(row.value) == np.sign(paper))
    return [measure, what, row.loss, arm, row.seed, *mine, paper, agree]


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    both = pd.concat(parts, ignore_index=True).rename(columns={"value": "ours"})
    return both.assign(same_sign=None)[COLUMNS]


def agreement(cells: pd.DataFrame) -> str:
    """How often the sign of an effect agrees, overall and by kind, and where it does not."""
    cells = cells[cells["same_sign"].notna()]
    if cells.empty:
        return "The paper has no numbers for this data set."
    agrees = cells["same_sign"].astype(bool)
    words = [
        f"{what}: {int(part.sum())} of {len(part)}"
        for what, part in agrees.groupby(cells["what"], sort=False)
    ]
    other = cells[~agrees]
    sure = other[(other["low"] > 0) | (other["high"] < 0)]
    text = f"**Answer:** the sign agrees in {int(agrees.sum())} of {len(cells)} effects. "
    text += "; ".join(words) + "."
    if len(other):
        text += f" Of the {len(other)} that disagree, {len(sure)} have an interval beyond zero."
    return text


def scatter_finding(cells: pd.DataFrame) -> str:
    """One sentence: how our drops compare with the published ones."""
    part = cells[cells["what"] == DROP]
    base, moved = (part[part["arm"] == arm] for arm in ("base", "bgaugment"))
    return (
        f"A new background costs base models {-base['ours'].mean():.1f} points here and "
        f"{-base['paper'].mean():.1f} in the paper, BGAugment models {-moved['ours'].mean():.1f} "
        f"and {-moved['paper'].mean():.1f}"
    )


def scatter(cells: pd.DataFrame, title: str) -> Figure:
    """Published drop of MAP@R across, ours upwards, one point a model; the line is equality."""
    part = cells[cells["what"] == DROP]
    figure, axis = plt.subplots(figsize=(6.2, 4.8))
    reach = [min(part["paper"].min(), part["low"].min()) - 0.5, 0.5]
    axis.plot(reach, reach, color="#999999", lw=1, ls="--", label="the same drop")
    for arm, rows in part.groupby("arm", sort=False):
        error = [rows["ours"] - rows["low"], rows["high"] - rows["ours"]]
        axis.errorbar(
            rows["paper"], rows["ours"], error, color=COLOURS[arm], marker=MARKERS[arm], ls="",
            capsize=3, label=LABELS[arm],
        )  # fmt: skip
        for place, row in enumerate(rows.sort_values("ours").itertuples()):
            axis.annotate(  # left and right in turn: neighbours do not cover each other
                compare.label_of(row.loss), (row.paper, row.ours), (-7 if place % 2 else 7, 0),
                fontsize=8, textcoords="offset points", va="center",
                ha="right" if place % 2 else "left",
            )  # fmt: skip
    axis.set(xlabel="published change of MAP@R in points ↑", ylabel="ours ↑")
    axis.legend(fontsize=9)
    headline(figure, title, "one point a model; bars: 95 % over classes")
    return figure
