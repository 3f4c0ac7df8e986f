"""Tables and figures of 05_attention."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import attend, attention, controls, evaluate, paths, stats
from lib.compare import label_of
from lib.figures import COLOURS, LABELS, MARKERS, headline, plt
from lib.scenes import Scenes

PUBLISHED = paths.FACTS / "published_attention.csv"
SCORE = "attention_score"
CONTROLS = ("uniform", "centred_gaussian", "sobel", "true_mask")


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 for a data set: loss, arm, mean, std over images (fractions)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_two(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours beside the paper's: attention score per model."""
    ours = table[(table["metric"] == SCORE) & (table["method"] == "smoothgrad")]
    both = ours.merge(published(dataset), on=["loss", "arm"], how="left").set_index(evaluate.MODEL)
    columns = {"value": "score ↑", "low": "95 % low", "high": "95 % high"}
    columns |= {"std_over_images": "std over images", "mean": "paper ↑", "std": "paper: std"}
    return both[list(columns)].rename(columns=columns)


def score_figure(per_image: pd.DataFrame, table: pd.DataFrame, title: str) -> Figure:
    """Scores of all images as dots, mean with its interval, one column a model."""
    part = per_image[(per_image["metric"] == SCORE) & per_image["defined"]]
    mean = table[table["metric"] == SCORE].set_index(evaluate.MODEL)
    figure, axis = plt.subplots(figsize=(9, 3.8))
    rng = np.random.default_rng(0)
    for at, (model, dots) in enumerate(part.groupby(evaluate.MODEL, sort=False)):
        spread = at + rng.uniform(-0.28, 0.28, len(dots))
        axis.scatter(spread, dots["value"], s=12, color=COLOURS[model[1]], alpha=0.35, lw=0)
        row = mean.loc[model]
        error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axis.errorbar(
            at, row["value"], error, color="black", marker=MARKERS[model[1]], ms=6, capsize=4
        )
    models = list(part.groupby(evaluate.MODEL, sort=False).groups)
    names = [f"{label_of(loss)}\n{LABELS[arm]} {seed}" for loss, arm, seed in models]
    names = [
        LABELS[arm] if arm == "untrained" else name
        for name, (_, arm, _) in zip(names, models, strict=True)
    ]
    axis.set_xticks(range(len(models)), names, rotation=45, ha="right", fontsize=8)
    axis.axhline(0, color="black", lw=1)
    axis.set_ylabel("attention score ↑ (0: uniform)")
    n = part.groupby(evaluate.MODEL).size().max()
    headline(figure, title, f"n = {n} images a model; bars: 95 % over classes")
    return figure


def control_scores(scenes: Scenes, rows: np.ndarray, size: int) -> pd.DataFrame:
    """Mean attention score of maps that know no model, interval over classes."""
    images, masks = attend.pictures(scenes, rows, size)
    labels, out = scenes.store.labels[rows], []
    for name in CONTROLS:
        maps = controls.control_maps(name, images.cpu(), masks)
        found = attention.attention_score(attention.scale_map(maps), masks)
        value = stats.mean_by_class_bootstrap(
            found.score[found.defined].numpy(), labels[found.defined.numpy()]
        )
        out.append([name, value.mean, value.low, value.high, value.n])
    return pd.DataFrame(out, columns=["control", "value", "low", "high", "n"])


def control_finding(models: pd.Series, scores: pd.DataFrame) -> str:
    """How the arms stand against the best control that knows no model."""
    blind = scores[~scores["control"].isin(["true_mask", "uniform"])].sort_values("value").iloc[-1]
    words = ", ".join(f"{LABELS[arm]} {value:.2f}" for arm, value in models.items())
    name = blind["control"].replace("_", " ")
    return f"Attention score: {words}; a {name} map that sees no network gets {blind['value']:.2f}"


def control_figure(models: pd.Series, scores: pd.DataFrame, title: str) -> Figure:
    """Bars: mean score per arm, and of every control."""
    figure, axis = plt.subplots(figsize=(7.5, 3))
    names = [LABELS[arm] for arm in models.index] + [n.replace("_", " ") for n in scores["control"]]
    values = [*models, *scores["value"]]
    colours = [COLOURS[arm] for arm in models.index] + ["#bbbbbb"] * len(scores)
    axis.barh(names, values, color=colours)
    for at, value in enumerate(values):
        axis.text(max(value, 0) + 0.01, at, f"{value:.2f}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("mean attention score ↑ (0: uniform map, 1: all on the object)")
    headline(figure, title)
    return figure


def first_loss(per_image: pd.DataFrame) -> str:
    """The first trained loss of the table."""
    return next(loss for loss in per_image["loss"].unique() if loss != "none")


def examples(
    study: str, per_image: pd.DataFrame, scenes: Scenes, rows: np.ndarray, seed: int, **settings
) -> list[dict]:
    """Maps of both arms for the images with largest gain, median and largest loss of the score."""
    loss = first_loss(per_image)
    part = per_image[(per_image["metric"] == SCORE) & (per_image["loss"] == loss)]
    part = part[part["defined"] & (part["seed"] == part["seed"].min())]
    wide = part.pivot(index="row", columns="arm", values="value").dropna()
    change = (wide["bgaugment"] - wide["base"]).sort_values(kind="stable")
    picks = {"largest gain": -1, "median": len(change) // 2, "largest loss": 0}
    models = {
        m.arm: m
        for m in evaluate.models_of(study)
        if m.loss == loss and m.seed == part["seed"].min()
    }
    maps = {
        arm: attention.scale_map(
            attend.maps_of(study, model, scenes, rows, "smoothgrad", seed, **settings)
        )
        for arm, model in models.items()
    }
    found = []
    for rule, place in picks.items():
        row = change.index[place]
        at = int(np.flatnonzero(rows == row)[0])
        image, mask = attend.pictures(scenes, np.array([row]), maps["base"].shape[1])
        found.append(
            {
                "rule": rule,
                "image": image[0].permute(1, 2, 0).byte().cpu().numpy(),
                "mask": mask[0].numpy(),
                **{arm: (maps[arm][at].numpy(), wide.loc[row, arm]) for arm in models},
            }
        )
    return found


def example_figure(found: list[dict], title: str) -> Figure:
    """One row an image: picture, mask, map of base, map of BGAugment, scores below."""
    figure, axes = plt.subplots(len(found), 4, figsize=(7.6, 2.1 * len(found) + 0.5), squeeze=False)
    for line, entry in zip(axes, found, strict=True):
        line[0].imshow(entry["image"])
        line[1].imshow(entry["mask"], cmap="gray", vmin=0, vmax=1)
        line[0].set_ylabel(entry["rule"], fontsize=9)
        for axis, arm in zip(line[2:], ("base", "bgaugment"), strict=True):
            heat, score = entry[arm]
            axis.imshow(heat, cmap="magma", vmin=0, vmax=1)
            axis.contour(entry["mask"], [0.5], colors="white", linewidths=0.8)
            axis.set_xlabel(f"{LABELS[arm]}: {score:.2f}", fontsize=9)
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
    headline(figure, title)
    return figure


def link_to_drop(per_image: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation over images between attention score and change of average precision."""
    mean = evaluate.over_draws(queries[queries["sides"] == "both"])
    wide = mean.pivot_table(index=[*evaluate.MODEL, "row"], columns="condition", values="map_at_r")
    change = (wide["random_background"] - wide["clean"]).rename("change").reset_index()
    part = per_image[(per_image["metric"] == SCORE) & per_image["defined"]]
    both, out = part.merge(change, on=[*evaluate.MODEL, "row"]), []
    for model, pair in both.groupby(evaluate.MODEL, sort=False):
        found = stats.correlation(
            pair["value"].to_numpy(), pair["change"].to_numpy(), pair["label"].to_numpy()
        )
        out.append([*model, found.mean, found.low, found.high, len(pair)])
    return pd.DataFrame(out, columns=[*evaluate.MODEL, "value", "low", "high", "n"])
