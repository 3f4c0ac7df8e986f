"""What the bias dial says: means over seeds, the change from end to end, the figure."""

import difflib

import pandas as pd
from matplotlib.figure import Figure

from lib.core.errors import StudyError
from lib.evaluation import statistics
from lib.report.shift_tables import arms_of, label_of, pair_label, told
from lib.report.style import colour, headline, label, marker, plt
from lib.training import arms as arm_table

MEASURES = {
    "clean": "MAP@R in %, clean ↑",
    "drop": "change under a new background, points ↑",
    "attention_score": "attention score ↑",
}
MEAN = "mean of losses"
ENDS = ["value", "low", "high", "seeds"]


def chosen(rows: pd.DataFrame, losses: list[str]) -> pd.DataFrame:
    """The rows of some losses (all, if none is named), the untrained trunk among them.

    Raises:
        StudyError: a loss that was not measured.
    """
    known = [name for name in rows["loss"].unique() if name != "none"]
    for name in losses:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise StudyError(
                f"loss {name!r} was not measured; the closest is {near!r}. There are: "
                f"{', '.join(known)}. To measure another, add it to studies.dial in params.yaml "
                "and run `make dial`."
            )
    return rows[rows["loss"].isin([*(losses or known), "none"])]


def with_mean(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` and their means over losses, seed by seed, as a loss `mean of losses`."""
    trained = rows[rows["loss"] != "none"]
    keys = ["bias", "arm", "seed", "metric"]
    mean = trained.groupby(keys, sort=False)["value"].mean().reset_index().assign(loss=MEAN)
    return pd.concat([rows, mean], ignore_index=True)


def response(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student's t) per bias, loss, arm and metric."""
    keys, out = ["bias", "loss", "arm", "metric"], []
    for names, part in with_mean(rows).groupby(keys, sort=False):
        found = statistics.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, *ENDS])


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Change of each metric from the lowest to the highest bias, paired by seed.

    A row a loss (their mean too), arm and metric; where an arm has a reference, also how much more
    the arm changes than its reference (`bgaugment-base`).
    """
    low, high = rows["bias"].min(), rows["bias"].max()
    keys = ["loss", "metric", "seed"]
    wide = with_mean(rows).pivot_table(index=[*keys, "arm"], columns="bias", values="value")
    change = (wide[high] - wide[low]).unstack("arm")
    for arm in [name for name in change if name != arm_table.UNTRAINED]:
        reference = arm_table.get(arm).reference
        if reference in change:
            change[f"{arm}-{reference}"] = change[arm] - change[reference]
    long, out = change.stack().rename("value").rename_axis([*keys, "arm"]).reset_index(), []
    for names, part in long.groupby(["loss", "arm", "metric"], sort=False):
        found = statistics.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=["loss", "arm", "metric", *ENDS])


def finding(rows: pd.DataFrame) -> str:
    """The answer in one sentence: how the loss of each trained arm changes, paired by seed."""
    change = slopes(rows).query("metric == 'drop' and loss == @MEAN").set_index("arm")
    names = [arm for arm in arms_of(rows) if arm in change.index and arm != arm_table.UNTRAINED]
    words = ", ".join(f"{label(arm)} {told(change.loc[arm], -100)}" for arm in names)
    return (
        f"Points of MAP@R that a new background costs more when the bias of training rises from "
        f"{rows['bias'].min():g} to {rows['bias'].max():g}: {words}"
    )


def figure(rows: pd.DataFrame, title: str) -> Figure:
    """Dose and response: one panel a measure, one line an arm, bars 95 % over seeds.

    Thick lines are means over losses; a thin line is one loss.
    """
    found = response(rows)
    drawn, axes = plt.subplots(1, len(MEASURES), figsize=(11, 3.8))
    for axis, (metric, name) in zip(axes, MEASURES.items(), strict=True):
        scale = 1 if metric == "attention_score" else 100
        of_metric = found[found["metric"] == metric]
        for (loss, arm), part in of_metric.groupby(["loss", "arm"], sort=False):
            value, style = scale * part["value"], {"color": colour(arm)}
            if loss not in (MEAN, "none"):
                axis.plot(part["bias"], value, lw=0.8, alpha=0.6, **style)
                continue
            error = [value - scale * part["low"], scale * part["high"] - value]
            axis.errorbar(
                part["bias"], value, error, marker=marker(arm), capsize=3, label=label(arm), **style
            )
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("bias of training")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    names = [label_of(loss) for loss in rows["loss"].unique() if loss != "none"]
    note = f"{found['seeds'].max()} seeds a point; bars and brackets: 95 % intervals over seeds"
    thin = f"; thin lines: {', '.join(names)}" if len(names) > 1 else ""
    headline(drawn, title, note + thin)
    return drawn


def change_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`slopes` for a page: labels in words, values in points and in units of the score."""
    change = slopes(rows[rows["arm"] != arm_table.UNTRAINED])
    names = {MEAN: MEAN} | {loss: label_of(loss) for loss in rows["loss"].unique()}
    shown = change.assign(
        loss=change["loss"].map(names),
        arm=[pair_label(arm) for arm in change["arm"]],
        metric=change["metric"].map(MEASURES),
    )
    scale = change["metric"].map(lambda metric: 1 if metric == "attention_score" else 100)
    for end in ENDS[:3]:
        shown[end] = change[end] * scale
    first = shown["loss"].ne(MEAN)
    return (
        shown.assign(first=first)
        .sort_values(["metric", "first"], kind="stable")
        .drop(columns="first")
    )
