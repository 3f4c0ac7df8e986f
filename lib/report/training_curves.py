"""Figures and tables of 03_train: what the model sees, whether it learned."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.images import conditions as test_conditions
from lib.report.shift_figures import Shown
from lib.report.shift_tables import arms_of, label_of, per_arm
from lib.report.style import COLOURS, colour, contact_sheet, headline, label, legend, marker, plt
from lib.training import arms, losses
from lib.training import sampling as sampling_

PANELS = {"clean": "MAP@R in %, clean ↑", "random_background": "MAP@R in %, random background ↑"}


def seen(tiles: list[np.ndarray], table: pd.DataFrame) -> Shown:
    """The same random training crops as each arm sees them (a sheet of lib.evaluation)."""
    count, names = (table["arm"] == table["arm"].iloc[0]).sum(), list(table["arm"].unique())
    captions = [
        label(row.arm) if at % count == 0 else "" for at, row in enumerate(table.itertuples())
    ]
    finding = f"{count} training images as seen by {', '.join(map(label, names))}"
    return contact_sheet(tiles, captions, min(8, count), finding, 1.1), finding


def sampling(labels: np.ndarray, loss: str, batch: int) -> str:
    """How a batch is put together, in words; `labels` (N,) are those of the training images."""
    plan = sampling_.plan(loss, batch, len(np.unique(labels)))
    own, short = losses.get(loss).per_class, sampling_.short_classes(labels, plan.per_class)
    words = [f"{plan.per_class} image(s) of each of {plan.classes} classes"]
    if plan.per_class > own:
        words.append(f"more than the loss's own {own}: there are too few classes to fill a batch")
    if plan.batch != batch:
        words.append(f"{plan.batch} images instead of {batch}, which cannot be dealt out evenly")
    if short:
        words.append(
            f"{short:,} of the classes have fewer than {plan.per_class}, drawn with replacement"
        )
    return "; ".join(words)


def loss_table(labels: np.ndarray, names: list[str], dataset: str, batch: int) -> pd.DataFrame:
    """A row a loss: kind, published values used, learning rate of its own weights, batches."""
    rows = {}
    for name in names:
        entry, rate = losses.get(name), losses.learning_rate(name, dataset)
        values = ", ".join(f"{k} {v:g}" for k, v in losses.arguments(name, dataset).items())
        rows[entry.label] = {
            "kind": entry.kind, "published values": values,
            "published rate of its own weights": f"{rate:g}" if rate else "no weights",
            "a batch holds": sampling(labels, name, batch),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def curves(history: pd.DataFrame, learning: pd.DataFrame) -> Shown:
    """Loss and validation MAP@R over epochs: a row a loss, all arms and seeds; kept: ringed."""
    words = "; ".join(
        f"{per_arm(100 * rows.groupby('arm', sort=False)['gain'].mean(), '{:+.1f}')} "
        f"({test_conditions.get(name).label})"
        for name, rows in learning.groupby("condition", sort=False)
    )
    title = f"Validation MAP@R gained over the untrained trunk, points: {words}"
    names = list(history["loss"].unique())
    size = (11, 2.4 * len(names) + 1.3)
    figure, axes = plt.subplots(len(names), 3, figsize=size, sharex=True, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        untrained = learning[learning["loss"] == name]
        _row(
            row,
            history[history["loss"] == name],
            untrained.groupby("condition")["untrained"].mean(),
        )
        row[0].set_ylabel(label_of(name), fontweight="bold")
    for axis, panel in zip(axes[0], ["training loss ↓", *PANELS.values()], strict=True):
        axis.set_title(panel, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    handles = legend(arms_of(history))
    handles.append(
        plt.Line2D([], [], color=COLOURS["untrained"], ls="--", label=label("untrained"))
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    n, seeds = learning["n"].min(), history["seed"].nunique()
    several = f"{seeds} seed{'s' * (seeds > 1)}"
    headline(figure, title, f"{n:,} validation queries, {several}; ring: the epoch kept")
    return figure, title


def _row(axes: np.ndarray, history: pd.DataFrame, untrained: pd.Series) -> None:
    panels = dict(zip(PANELS, axes[1:], strict=True))
    for (arm, _), part in history.groupby(["arm", "seed"], sort=False):
        style = {"color": colour(arm), "marker": marker(arm), "ms": 4}
        style["markevery"] = max(1, part["epoch"].nunique() // 6)  # of a long curve, not each epoch
        own = part.drop_duplicates("epoch").set_index("epoch")["loss_value"]
        axes[0].plot(own, **style)
        for condition, axis in panels.items():
            line = part[part["condition"] == condition].set_index("epoch")["map_at_r"]
            axis.plot(100 * line, **style)
            _ring(axis, line, arm, condition, part["best"].iloc[0])
    for condition, level in untrained.items():
        if condition in panels:
            panels[condition].axhline(100 * level, color=COLOURS["untrained"], ls="--")


def _ring(axis: Axes, line: pd.Series, arm: str, condition: str, best: int) -> None:
    """A ring about the kept epoch, where the arm's checkpoint is picked on this condition."""
    if arm in arms.ARMS and condition == arms.get(arm).select_on and best in line:
        axis.plot(best, 100 * line[best], "o", ms=13, mfc="none", mec=colour(arm), mew=2)


def verdicts(learning: pd.DataFrame) -> pd.DataFrame:
    """A row a model: MAP@R in points before and after training, interval of the gain, verdict."""
    shown = learning.assign(loss=learning["loss"].map(label_of), arm=learning["arm"].map(label))
    values = ["untrained", "kept", "gain", "low", "high"]
    shown[values] *= 100
    shown["trained"] = np.where(shown["trained"].astype(bool), "yes", "no")
    columns = ["loss", "arm", "seed", *values, "best", "last", "trained", "verdict"]
    return shown[columns].rename(columns={"best": "epoch kept", "last": "last epoch"})
