"""Published against ours, cell by cell: levels, effects, and whether their signs agree."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.report import attention_figures, shift_tables
from lib.report.answers import ENDS, Tables
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt

COLUMNS = ["measure", "what", "loss", "arm", "ours", "low", "high", "paper", "same_sign", "seeds"]
DROP = "new background"
LINE = ["loss", "arm"]
HELP = {"random_background": "BGAugment gain, new background", "clean": "BGAugment gain, clean"}
LOOK = "BGAugment gain, attention"


def levels(tables: Tables, dataset: str) -> pd.DataFrame:
    """Every cell of the paper's Tables 1 and 2 with ours; MAP@R in percent, scores as they are.

    Ours are means over draws and seeds, also of the ends of the intervals.
    """
    part = tables.retrieval
    part = part[(part["metric"] == "map_at_r") & (part["sides"] == "both")]
    ours = _over_seeds(part, ["condition"])
    ours[ENDS] *= 100
    theirs = shift_tables.published(dataset).rename(columns={"mean": "paper"})
    map_at_r = ours.merge(theirs[[*LINE, "condition", "paper"]], how="inner")
    map_at_r = map_at_r.assign(measure="MAP@R, %", what=map_at_r["condition"])
    theirs = attention_figures.published(dataset).rename(columns={"mean": "paper"})
    score = _over_seeds(_attention(tables.attention)).merge(theirs[[*LINE, "paper"]], how="inner")
    score = score.assign(measure="attention score", what="level")
    both = pd.concat([map_at_r, score], ignore_index=True).rename(columns={"value": "ours"})
    return both.assign(same_sign=None)[COLUMNS]


def effects(tables: Tables, dataset: str) -> pd.DataFrame:
    """Differences that the paper reports (or implies) with ours, their interval, signs compared."""
    wide = shift_tables.published(dataset).pivot(
        index="loss", columns=["arm", "condition"], values="mean"
    )
    score = attention_figures.published(dataset).pivot(index="loss", columns="arm", values="mean")
    found = []
    for arm in ("base", "bgaugment"):
        paper = wide[arm, "random_background"] - wide[arm, "clean"] if len(wide) else {}
        found.append(_cells("MAP@R, points", DROP, tables.change(arm), 100, paper))
    for condition, what in HELP.items():
        paper = wide["bgaugment", condition] - wide["base", condition] if len(wide) else {}
        found.append(_cells("MAP@R, points", what, tables.help(condition), 100, paper))
    paper = score["bgaugment"] - score["base"] if len(score) else {}
    moved = _attention(tables.attention_effects).assign(arm="bgaugment")
    found.append(_cells("attention score", LOOK, moved, 1, paper))
    return pd.concat(found, ignore_index=True)


def _attention(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the paper's own score: SmoothGrad to the black image."""
    keep = (table["metric"] == "attention_score") & (table["method"] == "smoothgrad")
    return table[keep & (table["target"] == "distance_to_black")]


def _over_seeds(rows: pd.DataFrame, more: list[str] | None = None) -> pd.DataFrame:
    """Means of value, low and high a loss and arm (draws first), and the number of seeds."""
    keys = [*LINE, *(more or [])]
    models = rows.groupby([*keys, "seed"], sort=False)[ENDS].mean().reset_index()
    grouped = models.groupby(keys, sort=False)
    return grouped[ENDS].mean().assign(seeds=grouped["seed"].nunique()).reset_index()


def _cells(measure: str, what: str, rows: pd.DataFrame, scale: float, paper) -> pd.DataFrame:
    """The rows of the losses that the paper has, means over seeds, beside its values."""
    part = _over_seeds(rows[rows["loss"].isin(list(paper.keys()))])
    part[ENDS] *= scale
    part = part.rename(columns={"value": "ours"})
    part["paper"] = [paper[loss] for loss in part["loss"]]
    agree = np.sign(part["ours"]) == np.sign(part["paper"].astype(float))
    return part.assign(measure=measure, what=what, same_sign=agree)[COLUMNS]


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
    unsure = cells[agrees & (cells["low"] <= 0) & (cells["high"] >= 0)]
    text += f" Of those that agree, {len(unsure)} have an interval that includes zero."
    if len(other):
        text += f" Of the {len(other)} that disagree, {len(sure)} have an interval beyond zero."
    inside = cells["paper"].between(cells["low"], cells["high"]).sum()
    return text + f" The published value lies inside our interval in {inside} of {len(cells)}."


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
    """Published drop of MAP@R across, ours upwards; on the line both are equal."""
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
        _named(axis, rows.sort_values("ours"))
    axis.set(xlabel="published change of MAP@R in points ↑", ylabel="ours ↑")
    axis.legend(fontsize=9)
    seeds = int(part["seeds"].max())
    mean = f", mean of {seeds} seeds" * (seeds > 1)
    headline(figure, title, f"one point a loss and arm{mean}; bars: 95 % over classes")
    return figure


def _named(axis: Axes, rows: pd.DataFrame) -> None:
    """The names of an arm's losses in a column to the right of its points, a line to each."""
    apart, low = 0.055, rows["ours"].mean()
    span = np.ptp(axis.get_ylim())
    heights = low + apart * span * (np.arange(len(rows)) - (len(rows) - 1) / 2)
    across = rows["paper"].max() + 0.05 * np.ptp(axis.get_xlim())
    for height, row in zip(heights, rows.itertuples(), strict=True):
        axis.annotate(
            shift_tables.label_of(row.loss), (row.paper, row.ours), (across, height), fontsize=8,
            va="center", arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "lw": 0.7},
        )  # fmt: skip
