"""Tables and findings of 04_shift: models side by side, and beside the published numbers."""

import numpy as np
import pandas as pd
import torch

from lib.core import paths
from lib.evaluation import models as trained_models
from lib.evaluation import statistics
from lib.evaluation.effects import select
from lib.images import conditions as test_conditions
from lib.report.style import LABELS, label
from lib.retrieval import metrics
from lib.training import losses

MODEL = ["loss", "arm"]  # over seeds
PUBLISHED = paths.FACTS / "published_retrieval.csv"


def label_of(loss: str) -> str:
    """How a loss is called in figures; the untrained trunk has none."""
    return losses.get(loss).label if loss in losses.LOSSES else "ImageNet trunk"


def model_names(models: list[tuple[str, str, int]]) -> list[str]:
    """How models (loss, arm, seed) are called; the seed is said where there are several."""
    several = len({seed for _, _, seed in models}) > 1
    return [
        label(arm)
        if loss == "none"
        else f"{label_of(loss)}, {label(arm)}" + f", seed {seed}" * several
        for loss, arm, seed in models
    ]


def lines_of(models: list[tuple[str, str, int]]) -> tuple[dict, list[str]]:
    """Where models (loss, arm, seed) stand in a figure, and the names of its lines.

    A loss and arm is a line (0, 1, 2, ...), in the order given; its seeds stand about it, spread
    over half the room between two lines.
    """
    seeds: dict[tuple[str, str], list[int]] = {}
    for loss, arm, seed in models:
        seeds.setdefault((loss, arm), []).append(seed)
    places = {
        (*line, seed): at + 0.5 * (number - (len(found) - 1) / 2) / len(found)
        for at, (line, found) in enumerate(seeds.items())
        for number, seed in enumerate(found)
    }
    return places, model_names([(*line, 0) for line in seeds])


def levels(table: pd.DataFrame, sides: str = "both", metric: str = "map_at_r") -> pd.DataFrame:
    """Mean over draws per loss, arm and condition, in percent, with the std over draws.

    Over seeds both are averaged.
    """
    part = table[(table["sides"] == sides) & (table["metric"] == metric)]
    grouped = part.groupby([*trained_models.MODEL, "condition"], sort=False)["value"]
    models = (grouped.agg(["mean", "std"]) * 100).reset_index()
    over_seeds = models.groupby([*MODEL, "condition"], sort=False)
    return over_seeds[["mean", "std"]].mean().reset_index()


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 1 for a data set: loss, arm, condition, mean, std (percent)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "condition", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_one(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours beside the paper's: a row a loss and arm, columns clean and shifted (MAP@R, percent).

    Under a random background as text, mean ± standard deviation over the draws; means over seeds.
    """
    ours = levels(table)
    ours = ours[ours["condition"].isin(["clean", "random_background"])]
    theirs = published(dataset)
    both = ours.merge(theirs, on=["loss", "arm", "condition"], how="left", suffixes=("", "_paper"))
    wide = both.pivot(
        index=MODEL, columns="condition", values=["mean", "std", "mean_paper", "std_paper"]
    )
    order = [*ours[MODEL].drop_duplicates().itertuples(index=False, name=None)]
    wide = wide.loc[order]
    columns = {}
    for who, mean, std in (("ours", "mean", "std"), ("paper", "mean_paper", "std_paper")):
        shifted = (wide[mean, "random_background"], wide[std, "random_background"])
        columns[who, "clean ↑"] = wide[mean, "clean"]
        columns[who, "random ↑"] = [_spread(*pair) for pair in zip(*shifted, strict=True)]
        columns[who, "change ↑"] = shifted[0] - wide[mean, "clean"]
    return pd.DataFrame(columns).set_axis(model_names([(*m, 0) for m in order]), axis=0)


def _spread(mean: float, std: float) -> str | float:
    """`70.9 ± 0.5`; the number alone where there is one draw."""
    return mean if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def interval_table(intervals: pd.DataFrame, condition: str) -> pd.DataFrame:
    """MAP@R in percent per model (both sides), with the ends of each of its intervals.

    The interval over seeds is of the mean over seeds, and the same for every seed of a loss.
    """
    keep = (intervals["condition"] == condition) & (intervals["sides"] == "both")
    part = intervals[keep & (intervals["metric"] == "map_at_r")]
    kinds = {kind: rows for kind, rows in part.groupby("covers")}
    made = kinds["classes"][[*trained_models.MODEL, "value"]]
    for kind, keys in {
        "classes": trained_models.MODEL,
        "draws": trained_models.MODEL,
        "seeds": MODEL,
    }.items():
        ends = kinds[kind][[*keys, "low", "high"]]
        ends = ends.rename(columns={end: f"{kind}, {end}" for end in ("low", "high")})
        made = made.merge(ends, on=keys, how="left")
    made = 100 * made.rename(columns={"value": "MAP@R ↑"}).set_index(trained_models.MODEL)
    made.index = model_names(list(made.index))
    heads = [name.split(", ") if ", " in name else ["", name] for name in made.columns]
    return made.set_axis(pd.MultiIndex.from_tuples(map(tuple, heads)), axis=1)


def metric_table(labels: np.ndarray) -> pd.DataFrame:
    """Every metric with its direction, range, chance level on this gallery, and reference.

    `labels` (N,): of the test images, each a query against all others.
    """
    chance = metrics.chance_levels(torch.as_tensor(labels))
    arrow = {"higher": "↑", "lower": "↓"}
    rows = [
        [f"{m.label} {arrow[m.direction]}", f"{m.low:g} to {m.high:g}", chance[name], m.reference]
        for name, m in metrics.METRICS.items()
    ]
    return pd.DataFrame(rows, columns=["metric", "range", "chance here", "reference"])


def condition_table(conditions: list[str]) -> pd.DataFrame:
    """The conditions of a study: name, label, whether chance is in it, where it comes from."""
    found = [(name, test_conditions.get(name)) for name in conditions]
    rows = [[name, c.label, "drawn" if c.draws else "fixed", c.source] for name, c in found]
    return pd.DataFrame(rows, columns=["condition", "label", "background", "source"])


def shift_finding(effects: pd.DataFrame) -> str:
    """What a new background costs, per arm."""
    down = select(effects, "shifted-clean", "random_background", "both")
    cost = {arm: -100 * part["value"].mean() for arm, part in down.groupby("arm")}
    return (
        f"A new background costs the base arm {cost['base']:.1f} points of MAP@R, "
        f"BGAugment {cost['bgaugment']:.1f}"
    )


def brought_along(table: pd.DataFrame) -> str:
    """Is the bias learned in training or brought along? Losses of the untrained trunk and base."""
    mean = levels(table).groupby(["arm", "condition"])["mean"].mean().unstack()
    lost = mean["clean"] - mean["random_background"]
    words = [
        f"{LABELS[arm]} {lost[arm]:.1f} of {mean['clean'][arm]:.1f} points "
        f"({lost[arm] / mean['clean'][arm]:.0%})"
        for arm in LABELS
        if arm in mean.index
    ]
    share = lost / mean["clean"]
    how = "larger" if share["base"].round(2) > share["untrained"].round(2) else "no larger"
    return (
        f"Lost under a new background: {', '.join(words)}. Relative to what there is to lose, the "
        f"loss is {how} after training than before it."
    )


def query_finding(effects: pd.DataFrame) -> str:
    """What changing only the query costs, against changing both sides, per arm."""
    cost = {
        sides: -100 * part.groupby("arm")["value"].mean()
        for sides in ("query", "both")
        for part in [select(effects, "shifted-clean", "random_background", sides)]
    }
    words = [
        f"{LABELS[arm]} {cost['query'][arm]:.1f} ({cost['both'][arm]:.1f})"
        for arm in ("base", "bgaugment")
    ]
    return f"Points of MAP@R lost when only the query (both sides) change: {', '.join(words)}"


def class_link(classes: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation over classes of background uniformity and change, per arm.

    `classes` has uniformity beside change (effects.class_losses); the changes of an arm's
    models are averaged first. A negative value: classes whose backgrounds are alike lose more.
    """
    mean = classes.groupby(["arm", "label"], sort=False)[["uniformity", "change"]].mean()
    out = []
    for arm, part in mean.groupby("arm", sort=False):
        found = statistics.correlation(part["uniformity"], part["change"])
        out.append([arm, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=["arm", "value", "low", "high", "n"])


def link_finding(link: pd.DataFrame) -> str:
    """The sentence for the uniformity figure, for the base arm."""
    row = link.set_index("arm").loc["base"]
    if row["low"] <= 0 <= row["high"] or np.isnan(row["low"]):
        what = "No link shows between a class's background uniformity and what it loses"
    else:
        more = "more" if row["value"] < 0 else "less"
        what = f"Classes whose backgrounds are alike lose {more}"
    return (
        f"{what}: base, Spearman {row['value']:+.2f} "
        f"({row['low']:+.2f} to {row['high']:+.2f}, {row['n']:.0f} classes)"
    )


def mask_finding(sensitivity: pd.DataFrame) -> str:
    """Whether the two main conclusions hold through every kind of masks."""
    down = select(sensitivity, "shifted-clean", "random_background", "both")
    base = down[down["arm"] == "base"]
    helped = select(sensitivity, "bgaugment-base", "random_background", "both")
    wide = down.pivot(index="masks", columns="arm", values="value")
    less = int((wide["bgaugment"] > wide["base"]).sum())
    above, lost = int((helped["low"] > 0).sum()), int((base["high"] < 0).sum())
    return (
        f"Through {len(base)} kinds of masks: base surely loses with {lost}, BGAugment loses less "
        f"than base with {less} and is surely better on new backgrounds with {above}"
    )


def background_gap(effects: pd.DataFrame, kind: str = "filled") -> pd.DataFrame:
    """MAP@R on a same-class place minus on another class's place, per model, paired.

    `kind` is a key of lib.images.conditions.GAPS: how the object was taken off the place.
    """
    gap = select(effects, "same-other", test_conditions.GAPS[kind][0], "both")
    return gap[[*trained_models.MODEL, "value", "low", "high", "p", "p_holm", "n"]].reset_index(
        drop=True
    )


def gap_finding(gap: pd.DataFrame) -> str:
    """The sentence that the BG-gap figure is titled with."""
    words = [
        f"{LABELS[arm]} {part['value'].mean() * 100:.1f}"
        for arm, part in gap.groupby("arm", sort=False)
    ]
    return "MAP@R points that a place of the own class is worth over another's: " + ", ".join(words)


def map_finding(table: pd.DataFrame) -> str:
    """The sentence for the heat map: what the background alone still retrieves."""
    values = levels(table)
    if "background_only" not in set(values["condition"]):
        return "MAP@R of every model under every condition"
    alone = values[values["condition"] == "background_only"].set_index("arm")["mean"]
    words = [
        f"{LABELS[arm]} {alone[alone.index == arm].mean():.1f} %" for arm in alone.index.unique()
    ]
    return "With the object painted out, MAP@R is still " + ", ".join(words)
