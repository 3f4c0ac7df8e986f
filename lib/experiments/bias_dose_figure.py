"""The figure of the bias dose, and its finding."""

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.bias_dose import MEASURES, response, slopes
from lib.report.shift_tables import arms_of, told
from lib.report.style import colour, headline, label, marker, plt


def finding(rows: pd.DataFrame) -> str:
    """The answer in one sentence: how the loss of each trained arm changes, paired by seed."""
    change = slopes(rows).query("metric == 'drop'").set_index("arm")
    names = [arm for arm in arms_of(rows) if arm in change.index and arm != "untrained"]
    words = ", ".join(f"{label(arm)} {told(change.loc[arm], -100)}" for arm in names)
    return (
        f"Points of MAP@R lost more under a random background when the bias of training goes from "
        f"{rows['bias'].min():g} to {rows['bias'].max():g}: {words}"
    )


def figure(rows: pd.DataFrame, title: str) -> Figure:
    """Dose and response: one panel a measure, one line an arm, bars 95 % over seeds."""
    found = response(rows)
    drawn, axes = plt.subplots(1, len(MEASURES), figsize=(11, 3.8))
    for axis, (metric, name) in zip(axes, MEASURES.items(), strict=True):
        scale = 1 if metric == "attention_score" else 100
        for arm, part in found[found["metric"] == metric].groupby("arm", sort=False):
            value = scale * part["value"]
            error = [value - scale * part["low"], scale * part["high"] - value]
            axis.errorbar(
                part["bias"], value, error, color=colour(arm), marker=marker(arm), capsize=3,
                label=label(arm),
            )  # fmt: skip
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("bias of training")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    seeds = found["seeds"].max()
    headline(drawn, title, f"{seeds} seeds a point; bars and brackets: 95 % intervals over seeds")
    return drawn
