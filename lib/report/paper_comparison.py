"""Published against ours, cell by cell: levels, effects, and whether their signs agree."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.evaluation import effects as effects_of
from lib.report import attention_figures, attention_tables, shift_tables
from lib.report.answers import pooled
from lib.report.shift_figures import BARS, Shown
from lib.report.shift_tables import ENDS, contrasts_of, pair_label
from lib.report.style import colour, headline, label, marker, plt

COLUMNS = [
    "measure", "what", "loss", "arm", "ours", "low", "high", "paper", "same_sign", "seeds",
    "ours_share", "paper_share",
]  # fmt: skip
DROP = "random background"
LINE = ["loss", "arm"]


def levels(classes: pd.DataFrame, scores: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Every cell of the paper's Tables 1 and 2 with ours; MAP@R in percent, scores as they are.

    Args:
        classes: lib.evaluation.measured. scores: lib.report.answers.attention, or empty.
    """
    keys = [*LINE, "condition"]
    ours = effects_of.joint_levels(classes, tuple(LINE))
    ours[ENDS] *= 100
    theirs = shift_tables.published(dataset).rename(columns={"mean": "paper"})
    both = ours.merge(theirs[[*keys, "paper"]], on=keys)
    parts = [both.assign(measure="MAP@R, %", what=both["condition"])]
    if len(scores):
        theirs = attention_figures.published(dataset).rename(columns={"mean": "paper"})
        mine = attention_tables.means(pooled(scores, LINE), LINE)
        both = mine.merge(theirs[[*LINE, "paper"]], on=LINE)
        parts.append(both.assign(measure="attention score", what="level"))
    seeds = classes.groupby(LINE)["seed"].nunique().rename("seeds").reset_index()
    table = pd.concat(parts, ignore_index=True).rename(columns={"value": "ours"})
    return table.merge(seeds, on=LINE).reindex(columns=COLUMNS)


def effects(classes: pd.DataFrame, scores: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Differences that the paper reports (or implies) with ours, their interval, signs compared.

    Drops under a random background also as shares of the clean MAP@R (`ours_share`).
    """
    paper = shift_tables.published(dataset).set_index([*LINE, "condition"])["mean"]
    look = attention_figures.published(dataset).set_index(LINE)["mean"]
    found = [_drops(classes, paper)]
    for contrast in contrasts_of(classes):
        arm, than = contrast.split("-")
        for condition, where in (("random_background", DROP), ("clean", "clean")):
            part = effects_of.joint(classes, contrast, condition, "both", by=("loss",))
            theirs = {
                loss: paper.get((loss, arm, condition), np.nan)
                - paper.get((loss, than, condition), np.nan)
                for loss in part["loss"]
            }
            what = f"{pair_label(contrast)}, {where}"
            found.append(_cells("MAP@R, points", what, part.assign(arm=arm), 100, theirs))
    if len(scores):
        part = attention_tables.differences(pooled(scores, LINE))
        for contrast, rows in part.groupby("contrast", sort=False):
            arm, than = contrast.split("-")
            theirs = {
                loss: look.get((loss, arm), np.nan) - look.get((loss, than), np.nan)
                for loss in rows["loss"]
            }
            rows = rows.assign(arm=arm, seeds=scores["seed"].nunique())
            what = f"{pair_label(contrast)}, attention"
            found.append(_cells("attention score", what, rows, 1, theirs))
    return pd.concat(found, ignore_index=True)


def _drops(classes: pd.DataFrame, paper: pd.Series) -> pd.DataFrame:
    setting = ("shifted-clean", "random_background", "both")
    part = effects_of.joint(classes, *setting, by=("loss", "arm"))
    clean = effects_of.joint_levels(classes[classes["condition"] == "clean"], tuple(LINE))
    clean = clean.set_index(LINE)["value"]
    cells = []
    for arm, rows in part.groupby("arm", sort=False):
        known = {
            loss: (paper.get((loss, arm, "random_background")), paper.get((loss, arm, "clean")))
            for loss in rows["loss"]
        }
        known = {loss: pair for loss, pair in known.items() if None not in pair}
        theirs = {loss: moved - start for loss, (moved, start) in known.items()}
        made = _cells("MAP@R, points", DROP, rows, 100, theirs)
        made["ours_share"] = [
            -row.ours / (100 * clean[row.loss, row.arm]) for row in made.itertuples()
        ]
        made["paper_share"] = [-theirs[loss] / known[loss][1] for loss in made["loss"]]
        cells.append(made)
    return pd.concat(cells, ignore_index=True) if cells else pd.DataFrame(columns=COLUMNS)


def _cells(measure: str, what: str, rows: pd.DataFrame, scale: float, paper: dict) -> pd.DataFrame:
    """The rows of the losses that the paper has beside its values."""
    part = rows.assign(paper=rows["loss"].map(paper).astype(float)).dropna(subset="paper")
    part[ENDS] *= scale
    part = part.rename(columns={"value": "ours"})
    agree = np.sign(part["ours"]) == np.sign(part["paper"])
    return part.assign(measure=measure, what=what, same_sign=agree).reindex(columns=COLUMNS)


def agreement(cells: pd.DataFrame) -> str:
    """How often the sign of an effect agrees with the paper's, where it differs significantly."""
    if cells.empty:
        return "The paper has no numbers for this data set."
    agrees = cells["same_sign"].astype(bool)
    apart = (cells["low"] > 0) | (cells["high"] < 0)
    names = [
        f"{shift_tables.label_of(row.loss)}, {row.what} ({row.ours:+.2f}; paper {row.paper:+.2f})"
        for row in cells[~agrees & apart].itertuples()
    ]
    differ = f" ({'; '.join(names)})" if names else ""
    return (
        f"The sign agrees with the paper's in {agrees.sum()} of {len(cells)} effects. "
        f"Significant with the opposite sign (95 % CI excludes 0): {len(names)}{differ}."
    )


def scatter(cells: pd.DataFrame) -> Shown:
    """Published share of MAP@R lost across, ours upwards; on the line both are equal."""
    part = cells[cells["what"] == DROP].astype({"ours_share": float, "paper_share": float})
    if part.empty:
        return None, "The paper has no numbers for this data set."
    mean = part.groupby("arm", sort=False)[["ours_share", "paper_share"]].mean()
    words = ", ".join(
        f"{label(arm)} {ours:.0%} (paper {paper:.0%})" for arm, ours, paper in mean.itertuples()
    )
    title = f"MAP@R lost under a random background: {words}".replace("%", " %")
    figure, axis = plt.subplots(figsize=(6.6, 4.8))
    for arm, rows in part.groupby("arm", sort=False):
        scale = rows["ours_share"] / -rows["ours"]  # points to shares
        ends = rows["high"] - rows["ours"], rows["ours"] - rows["low"]
        error = [100 * scale * end for end in ends]
        axis.errorbar(
            100 * rows["paper_share"], 100 * rows["ours_share"], error, color=colour(arm),
            marker=marker(arm), ls="", capsize=3, label=label(arm),
        )  # fmt: skip
    axis.margins(x=0.25)
    axis.autoscale_view()
    for _, rows in part.groupby("arm", sort=False):
        _named(axis, rows.sort_values("ours_share"))
    reach = [0, min(axis.get_xlim()[1], max(axis.get_ylim()[1], mean.to_numpy().max() * 100))]
    axis.plot(reach, reach, color="#999999", lw=1, ls="--", label="the same share")
    axis.set(xlabel="published share of MAP@R lost, % ↓", ylabel="ours, % ↓")
    axis.legend(fontsize=9)
    headline(figure, title, f"one mark a loss and arm, mean over seeds; {BARS}")
    return figure, title


def _named(axis: Axes, rows: pd.DataFrame) -> None:
    """The names of an arm's losses in a column to the right of its points, a line to each."""
    apart, middle = 0.055 * np.ptp(axis.get_ylim()), 100 * rows["ours_share"].mean()
    heights = middle + apart * (np.arange(len(rows)) - (len(rows) - 1) / 2)
    across = 100 * rows["paper_share"].max() + 0.05 * np.ptp(axis.get_xlim())
    for height, row in zip(heights, rows.itertuples(), strict=True):
        axis.annotate(
            shift_tables.label_of(row.loss), (100 * row.paper_share, 100 * row.ours_share),
            (across, height), fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "lw": 0.7},
        )  # fmt: skip
