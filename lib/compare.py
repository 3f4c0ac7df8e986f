"""Tables and figures of 04_shift: models side by side, and beside the published numbers."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lib import evaluate, losses, paths, retrieval, shifts
from lib.figures import COLOURS, LABELS, MARKERS, headline, plt
from lib.scenes import Scenes

PUBLISHED = paths.FACTS / "published_retrieval.csv"


def label_of(loss: str) -> str:
    """How a loss is called in figures; the untrained trunk has none."""
    return losses.get(loss).label if loss in losses.LOSSES else "ImageNet trunk"


def select(
    effects: pd.DataFrame, contrast: str, condition: str, sides: str, metric: str = "map_at_r"
) -> pd.DataFrame:
    """The rows of one contrast, condition, side and metric."""
    wanted = {"contrast": contrast, "condition": condition, "sides": sides, "metric": metric}
    keep = np.logical_and.reduce([effects[key] == value for key, value in wanted.items()])
    return effects[keep]


def _main(table: pd.DataFrame, sides: str = "both", metric: str = "map_at_r") -> pd.DataFrame:
    """Mean over draws per model and condition, in percent, with the std over draws."""
    part = table[(table["sides"] == sides) & (table["metric"] == metric)]
    grouped = part.groupby([*evaluate.MODEL, "condition"], sort=False)["value"]
    return (grouped.agg(["mean", "std"]) * 100).reset_index()


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 1 for a data set: loss, arm, condition, mean, std (percent)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "condition", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_one(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours beside the paper's: one row a model, columns clean and shifted (MAP@R, percent)."""
    ours = _main(table)
    ours = ours[ours["condition"].isin(["clean", "random_background"])]
    theirs = published(dataset)
    both = ours.merge(theirs, on=["loss", "arm", "condition"], how="left", suffixes=("", "_paper"))
    wide = both.pivot(
        index=evaluate.MODEL, columns="condition", values=["mean", "std", "mean_paper"]
    )
    order = [m for m in ours[evaluate.MODEL].drop_duplicates().itertuples(index=False, name=None)]
    wide = wide.loc[order]
    return pd.DataFrame(
        {
            "clean ↑": wide["mean", "clean"],
            "random background ↑": wide["mean", "random_background"],
            "± draws": wide["std", "random_background"],
            "change": wide["mean", "random_background"] - wide["mean", "clean"],
            "paper: clean ↑": wide["mean_paper", "clean"],
            "paper: random ↑": wide["mean_paper", "random_background"],
            "paper: change": wide["mean_paper", "random_background"] - wide["mean_paper", "clean"],
        }
    )


def slopes(table: pd.DataFrame, title: str) -> Figure:
    """A line from clean to shifted for every model; one panel a loss, interval over classes."""
    part = table[(table["sides"] == "both") & (table["metric"] == "map_at_r")]
    names = [name for name in part["loss"].unique() if name != "none"]
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.3 * len(names) + 1.4, 4), sharey=True, squeeze=False
    )
    n = int(part["n"].max())
    for axis, name in zip(axes[0], names, strict=True):
        for (arm, _seed), lines in part[part["loss"].isin([name, "none"])].groupby(
            ["arm", "seed"], sort=False
        ):
            values = lines.groupby("condition", sort=False)[["value", "low", "high"]].mean() * 100
            values = values.loc[["clean", "random_background"]]
            error = [values["value"] - values["low"], values["high"] - values["value"]]
            axis.errorbar(
                [0, 1], values["value"], error, color=COLOURS[arm], marker=MARKERS[arm], capsize=3,
                lw=2, ls=":" if arm == "untrained" else "-",
            )  # fmt: skip
        axis.set(
            title=label_of(name),
            xticks=[0, 1],
            xticklabels=["clean", "random\nbackground"],
            xlim=(-0.3, 1.3),
            ylim=(0, None),
        )
        axis.title.set_fontsize(10)
    axes[0, 0].set_ylabel("MAP@R in % ↑")
    handles = [
        plt.Line2D([], [], color=COLOURS[a], marker=MARKERS[a], label=LABELS[a]) for a in COLOURS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    headline(figure, title, f"n = {n:,} queries; bars: 95 % over classes")
    return figure


def background_gap(queries: pd.DataFrame) -> pd.DataFrame:
    """MAP@R on a same-class place minus on another class's place, per model, paired."""
    frames = []
    mean = evaluate.over_draws(queries[queries["sides"] == "both"])
    for names, part in mean.groupby(evaluate.MODEL, sort=False):
        kinds = {name: group for name, group in part.groupby("condition")}
        if {"same_class_background", "other_class_background"} <= set(kinds):
            frames += [
                row
                for row in evaluate.paired(
                    "gap",
                    (*names, "same-other", "both"),
                    kinds["same_class_background"],
                    kinds["other_class_background"],
                )
                if row[6] == "map_at_r"
            ]
    columns = [
        "contrast",
        *evaluate.MODEL,
        "condition",
        "sides",
        "metric",
        "value",
        "low",
        "high",
        "p",
        "n",
    ]
    return pd.DataFrame(frames, columns=columns).drop(
        columns=["contrast", "condition", "sides", "metric"]
    )


def gap_finding(gap: pd.DataFrame) -> str:
    """The sentence that the BG-gap figure is titled with."""
    words = [
        f"{LABELS[arm]} {part['value'].mean() * 100:.1f}"
        for arm, part in gap.groupby("arm", sort=False)
    ]
    return "MAP@R points that a place of the own class is worth over another's: " + ", ".join(words)


def gap_figure(effects: pd.DataFrame, title: str) -> Figure:
    """Change against clean under the artefact control, same-class and other-class places."""
    kinds = [
        "own_background",
        "same_class_background",
        "other_class_background",
        "random_background",
    ]
    part = effects[
        (effects["contrast"] == "shifted-clean")
        & (effects["sides"] == "both")
        & (effects["metric"] == "map_at_r")
    ]
    figure, axis = plt.subplots(figsize=(8.5, 3.8))
    models = list(part.groupby(evaluate.MODEL, sort=False).groups)
    for place, model in enumerate(models):
        lines = part[(part[evaluate.MODEL] == list(model)).all(axis=1)].set_index("condition")
        for at, kind in enumerate(kinds):
            if kind in lines.index:
                row = lines.loc[kind, ["value", "low", "high"]].astype(float) * 100
                x = at + (place - (len(models) - 1) / 2) * 0.8 / len(models)
                error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
                axis.errorbar(
                    x, row["value"], error, color=COLOURS[model[1]], marker=MARKERS[model[1]], ms=5
                )
    axis.axhline(0, color="black", lw=1)
    axis.set(
        xticks=range(4),
        xticklabels=[shifts.get(kind).label for kind in kinds],
        ylabel="change of MAP@R in points ↑",
    )
    handles = [
        plt.Line2D([], [], color=COLOURS[a], marker=MARKERS[a], ls="", label=LABELS[a])
        for a in COLOURS
    ]
    axis.legend(handles=handles, fontsize=9)
    headline(figure, title, "one mark a model; bars: 95 % over classes")
    return figure


def map_finding(table: pd.DataFrame) -> str:
    """The sentence for the heat map: what the background alone still retrieves."""
    values = _main(table)
    if "background_only" not in set(values["condition"]):
        return "MAP@R of every model under every condition"
    alone = values[values["condition"] == "background_only"].set_index("arm")["mean"]
    words = [
        f"{LABELS[arm]} {alone[alone.index == arm].mean():.1f} %" for arm in alone.index.unique()
    ]
    return "With the object painted out, MAP@R is still " + ", ".join(words)


def heat_map(table: pd.DataFrame, conditions: list[str], title: str) -> Figure:
    """MAP@R in percent, models by conditions (both sides)."""
    values = _main(table)
    wide = values.pivot(index=evaluate.MODEL, columns="condition", values="mean")[conditions]
    order = values[evaluate.MODEL].drop_duplicates().itertuples(index=False, name=None)
    wide = wide.loc[list(order)]
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(wide) + 1.9))
    axis.imshow(wide, cmap="cividis", aspect="auto")
    axis.grid(False)
    middle = (wide.to_numpy().max() + wide.to_numpy().min()) / 2
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        axis.text(
            column,
            row,
            f"{value:.1f}",
            ha="center",
            va="center",
            color="black" if value > middle else "white",
            fontsize=9,
        )
    names = [
        f"{label_of(loss)}, {LABELS[arm]}, seed {seed}" if loss != "none" else LABELS[arm]
        for loss, arm, seed in wide.index
    ]
    labels = [shifts.get(name).label.replace(" ", "\n", 1) for name in conditions]
    axis.set(
        yticks=range(len(wide)),
        yticklabels=names,
        xticks=range(len(conditions)),
        xticklabels=labels,
    )
    axis.tick_params(labelsize=9)
    headline(figure, title, "MAP@R in % ↑, queries and gallery both changed")
    return figure


def gallery(
    study: str, queries: pd.DataFrame, scenes: Scenes, rows: np.ndarray, loss: str, seed: int
) -> list[dict]:
    """Neighbours before and after the shift (draw 0) for queries picked by the base arm's drop."""
    models = {m.arm: m for m in evaluate.models_of(study) if (m.loss, m.seed) == (loss, seed)}
    part = queries[
        (queries["loss"] == loss) & (queries["seed"] == seed) & (queries["arm"] == "base")
    ]
    part = part[(part["sides"] == "both") & (part["draw"] == 0)]
    wide = part.pivot(index="row", columns="condition", values="map_at_r")
    change = (wide["random_background"] - wide["clean"]).sort_values(kind="stable")
    picks = {"largest drop": change.index[0], "median": change.index[len(change) // 2]}
    unmoved = change[(change.abs() < 1e-9) & (wide["clean"].loc[change.index] > 0)]
    picks["no drop"] = unmoved.index[0] if len(unmoved) else change.index[-1]
    found = []
    for rule, row in picks.items():
        position = int(np.flatnonzero(rows == row)[0])
        for arm, model in models.items():
            for condition in ("clean", "random_background"):
                vectors = evaluate.cached_embeddings(study, model, scenes, rows, condition, 0, 0)
                near = retrieval.neighbours(
                    vectors[[position]], vectors, k=5, exclude=torch.tensor([position])
                )[0][0].numpy()
                shown = rows[[position, *near]]
                made = shifts.specimen(scenes, shown, [condition], model.image_size, pool_rows=rows)
                hits = scenes.store.labels[shown] == scenes.store.labels[row]
                found.append(
                    {
                        "rule": rule,
                        "arm": arm,
                        "condition": condition,
                        "images": made[condition],
                        "hits": hits,
                    }
                )
    return found


def gallery_finding(found: list[dict], loss: str) -> str:
    """Hits among the neighbours shown, before and after, per arm."""
    words = []
    for arm in ("base", "bgaugment"):
        before, after = (
            sum(int(f["hits"][1:].sum()) for f in found if (f["arm"], f["condition"]) == (arm, c))
            for c in ("clean", "random_background")
        )
        words.append(f"{LABELS[arm]} {before} → {after}")
    shown = sum(len(f["hits"]) - 1 for f in found) // 4
    return f"{label_of(loss)}: right neighbours among {shown}, before → after: " + ", ".join(words)


def gallery_figure(found: list[dict], title: str) -> Figure:
    """Rows: rule x arm x condition; first column the query, then its five nearest images."""
    figure, axes = plt.subplots(len(found), 6, figsize=(7.5, 1.2 * len(found) + 0.6))
    for line, entry in zip(axes, found, strict=True):
        for axis, image, hit in zip(line, entry["images"], entry["hits"], strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            colour = "black" if axis is line[0] else "#009E73" if hit else "#bbbbbb"
            axis.spines[:].set(visible=True, color=colour, linewidth=3)
        what = "clean" if entry["condition"] == "clean" else "shifted"
        line[0].set_ylabel(f"{entry['rule']}\n{LABELS[entry['arm']]}\n{what}", fontsize=7)
    headline(figure, title)
    return figure
