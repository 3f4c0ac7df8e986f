"""The figure of the bias dose, and its finding."""

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.bias_dose import MEASURES, response, slopes
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt


def finding(rows: pd.DataFrame) -> str:
    """The answer in one sentence: paired changes with their 95 % interval over seeds."""
    change = slopes(rows).set_index(["metric", "arm"])

    def told(metric: str, scale: float, digits: int) -> str:
        words = []
        for arm in ("base", "bgaugment"):
            row = change.loc[(metric, arm)]
            low, high = sorted((scale * row["low"], scale * row["high"]))
            moved = f"{scale * row['value']:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            words.append(f"{moved} ({LABELS[arm]})")
        return " and ".join(words)

    return (
        f"As the bias of training goes from {rows['bias'].min():g} to {rows['bias'].max():g}, the "
        f"cost of a new background moves by {told('drop', -100, 1)} points of MAP@R, the attention "
        f"score by {told('attention_score', 1, 3)}"
    )


def figure(rows: pd.DataFrame, title: str) -> Figure:
    """Dose and response: one panel a measure, one line an arm, bars 95 % over seeds."""
    found = response(rows)
    drawn, axes = plt.subplots(1, len(MEASURES), figsize=(11, 3.8))
    for axis, (metric, label) in zip(axes, MEASURES.items(), strict=True):
        scale = 1 if metric == "attention_score" else 100
        for arm, part in found[found["metric"] == metric].groupby("arm", sort=False):
            value = scale * part["value"]
            error = [value - scale * part["low"], scale * part["high"] - value]
            axis.errorbar(
                part["bias"], value, error, color=COLOURS[arm], marker=MARKERS[arm], capsize=3,
                label=LABELS[arm],
            )  # fmt: skip
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("bias of training")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    seeds = found["seeds"].max()
    headline(drawn, title, f"{seeds} seeds a point; bars, brackets: 95 % over seeds")
    return drawn
