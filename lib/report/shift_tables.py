"""Tables of what the background does to retrieval: models side by side, and the published ones."""

import difflib
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lib.core import paths
from lib.core.errors import StudyError
from lib.evaluation import effects as effects_of
from lib.evaluation import models as trained_models
from lib.evaluation import statistics
from lib.evaluation.effects import LEVEL, select
from lib.images import conditions as test_conditions
from lib.report.style import label, rounded
from lib.retrieval import metrics
from lib.training import arms, losses

MODEL = ["loss", "arm"]  # over seeds
ENDS = ["value", "low", "high"]
SHARE = ["lost", "lost_low", "lost_high"]  # of a row on the front page, percent
PAPER = ["clean", "random_background"]
PUBLISHED = paths.FACTS / "published_retrieval.csv"
# What a changed background can mean: (condition, sides) by its name in tables
SETTINGS = {
    "random background": ("random_background", "both"),
    "random background, query only": ("random_background", "query"),
    "random background, images on the query's photograph left out": (
        "random_background", "unshared",
    ),
    "place of a training image": ("unshared_background", "both"),
    "other-class place": ("other_class_background", "both"),
    "other-class place, query only": ("other_class_background", "query"),
    "background removed (grey)": ("foreground_only", "both"),
    "own background, cut and pasted": ("own_background", "both"),
}  # fmt: skip

# ----------------------------------------------------------------------------- names and means


def label_of(loss: str) -> str:
    """How a loss is called in figures; the untrained trunk has none."""
    if loss == "none":
        return "ImageNet trunk"
    return losses.get(loss).label if loss in losses.LOSSES else loss


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


def arms_of(table: pd.DataFrame) -> list[str]:
    """The arms of a table in their order, the untrained trunk first."""
    return sorted(table["arm"].unique(), key=lambda arm: arm != arms.UNTRAINED)


def reference_of(names: Iterable[str]) -> str:
    """The arm that others are compared with (the first trained one, where none is)."""
    trained = [name for name in names if name != arms.UNTRAINED]
    own = [name for name in trained if name in arms.ARMS and arms.get(name).reference is None]
    return (own or trained)[0]


def pair_label(contrast: str) -> str:
    """`bgaugment-base` -> `BGAugment − base`."""
    return " − ".join(label(arm) for arm in contrast.split("-"))


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A copy for the eye: losses, arms, contrasts and conditions are called as in figures."""
    ways = {
        "loss": label_of, "arm": pair_label, "contrast": pair_label,
        "condition": lambda name: test_conditions.get(name).label,
    }  # fmt: skip
    found = {name: table[name].astype(str).map(way) for name, way in ways.items() if name in table}
    return table.assign(**found)


def means(table: pd.DataFrame, by: list[str], values: list[str] | None = None) -> pd.DataFrame:
    """Means for each of `by`: over draws first, then over models (each counts alike)."""
    values = values or ["value"]
    model = [*by, *(key for key in trained_models.MODEL if key not in by)]
    over_draws = table.groupby(model, sort=False)[values].mean()
    return over_draws.groupby(by, sort=False).mean().reset_index()


def told(row, scale: float = 100, digits: int = 1) -> str:
    """`6.2 [4.8, 7.7]` of a row with value, low and high; the value alone without an interval."""
    value, *ends = (scale * row[name] for name in ENDS)
    low, high = (rounded(end, digits) for end in sorted(ends))
    interval = "" if np.isnan(ends).any() else f" [{low}, {high}]"
    return rounded(value, digits) + interval


def per_arm(values: pd.Series, form: str) -> str:
    """`base 56 %, BGAugment 34 %` of a series indexed by arm (or contrast)."""
    words = (f"{pair_label(name)} {shown_as(value, form)}" for name, value in values.items())
    return ", ".join(words).replace(" %", "%").replace("%", " %")


def shown_as(value: float | str, form: str) -> str:
    """A value in a form; a dash where it is not known, and no minus before a zero."""
    if isinstance(value, float) and np.isnan(value):
        return "–"
    return re.sub(r"^-(?=0(\.0*)?(?![\d.]))", "", form.format(value))


def few_classes(classes: int) -> str:
    """Why there are no intervals, where there are none; "" where there are enough classes."""
    if classes >= statistics.MIN_CLASSES:
        return ""
    return (
        f"No intervals: the test has {classes} classes, and an interval over classes needs at "
        f"least {statistics.MIN_CLASSES}."
    )


def share_words(shares: pd.DataFrame) -> str:
    """`base 49 % [45 to 54], BGAugment ...` of effects.share_lost, the untrained trunk first."""
    rows = shares.set_index("arm").loc[arms_of(shares), ENDS]
    words = {arm: _share(*row) for arm, *row in rows.itertuples()}
    return per_arm(pd.Series(words, dtype=str), "{}")


def _share(value: float, low: float, high: float) -> str:
    if np.isnan([low, high]).any():
        return f"{value:.0%}"
    return f"{value:.0%} [{100 * low:.0f} to {100 * high:.0f}]"


def _map_at_r(table: pd.DataFrame, sides: str = "both") -> pd.DataFrame:
    return table[(table["sides"] == sides) & (table["metric"] == "map_at_r")]


# ----------------------------------------------------------------------------- tables


def chosen(conditions: str, measured: list[str]) -> list[str]:
    """The conditions that `conditions` asks for, among those measured.

    Args:
        conditions: "all", "paper" (clean and random_background), or names with commas between.
    """
    if conditions == "all":
        return measured
    names = PAPER if conditions == "paper" else [name.strip() for name in conditions.split(",")]
    for name in names:
        if name not in measured and conditions != "paper":
            near = difflib.get_close_matches(name, [*measured, "all", "paper"], n=1, cutoff=0.0)[0]
            raise StudyError(
                f"condition {name!r} was not measured; the closest is {near!r}. There are: all, "
                f"paper, {', '.join(measured)}. To measure another, add it to `conditions` in the "
                "study's section `shift` of params.yaml and run `make repro`."
            )
    return [name for name in measured if name in names or name == "clean"]


def levels(table: pd.DataFrame) -> pd.DataFrame:
    """MAP@R (both sides, percent) per loss, arm and condition: mean, and std over draws."""
    keys = [*trained_models.MODEL, "condition"]
    models = _map_at_r(table).groupby(keys, sort=False)["value"].agg(["mean", "std"]) * 100
    return means(models.reset_index(), [*MODEL, "condition"], ["mean", "std"])


def published(dataset: str) -> pd.DataFrame:
    """The paper's Table 1 for a data set: loss, arm, condition, mean, std (percent)."""
    table = pd.read_csv(PUBLISHED)
    table.columns = ["dataset", "loss", "arm", "condition", "mean", "std"]
    return table[table["dataset"] == dataset].drop(columns="dataset")


def table_one(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ours (MAP@R, percent, mean ± std over draws) and the paper's: a row a loss and arm."""
    ours, theirs, columns = levels(table), published(dataset), {}
    order = pd.MultiIndex.from_frame(ours[MODEL].drop_duplicates())
    theirs = theirs[pd.MultiIndex.from_frame(theirs[MODEL]).isin(order)]
    for who, found in {"ours": ours, "paper": theirs}.items():
        if not len(found):
            continue
        wide = found.pivot(index=MODEL, columns="condition", values=["mean", "std"]).reindex(order)
        columns[who, "clean ↑"] = wide["mean", "clean"]
        if ("mean", "random_background") in wide:
            shifted = wide["mean", "random_background"], wide["std", "random_background"]
            columns[who, "random ↑"] = [_spread(*pair) for pair in zip(*shifted, strict=True)]
            columns[who, "lost ↓"] = 1 - shifted[0] / wide["mean", "clean"]
    return pd.DataFrame(columns).set_axis(model_names([(*m, 0) for m in order]), axis=0)


def _spread(mean: float, std: float) -> str | float:
    """`70.9 ± 0.5`; the number alone where there is one draw."""
    return mean if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def interval_table(intervals: pd.DataFrame, condition: str) -> pd.DataFrame:
    """MAP@R in percent per model (both sides), with the ends of each of its intervals.

    The interval over seeds is of the mean over seeds, and the same for every seed of a loss. Kinds
    that no model has (one draw, one seed) are left out.
    """
    part = _map_at_r(intervals[intervals["condition"] == condition])
    kinds = dict([*part.groupby("covers", sort=False)])
    made = kinds["classes"][[*trained_models.MODEL, "value"]]
    for kind, rows in kinds.items():
        keys = MODEL if kind == "seeds" else trained_models.MODEL
        ends = rows[[*keys, "low", "high"]].rename(
            columns={end: f"{kind}, {end}" for end in ("low", "high")}
        )
        made = made if ends.iloc[:, -1].isna().all() else made.merge(ends, on=keys, how="left")
    made = 100 * made.rename(columns={"value": "MAP@R ↑"}).set_index(trained_models.MODEL)
    made.index = model_names(list(made.index))
    heads = [name.split(", ") if ", " in name else ["", name] for name in made.columns]
    return made.set_axis(pd.MultiIndex.from_tuples(map(tuple, heads)), axis=1)


def effect_rows(effects: pd.DataFrame, value: str) -> pd.DataFrame:
    """Rows of `effects` (one contrast) as shown: points, interval, p, n; a row a model."""
    shown = effects[[*trained_models.MODEL, *ENDS, "p_holm", "n"]].copy()
    shown[ENDS] *= 100
    return shown.rename(columns={"value": value})


def split_rules(effects: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Effects on MAP@R of which interval and Holm's p judge differently, and how many, in words."""
    known = effects[(effects["metric"] == "map_at_r") & effects["low"].notna()]
    apart, small = (known["low"] > 0) | (known["high"] < 0), known["p_holm"] < 0.05
    part = known[apart != small]
    shown = effect_rows(part, "points").drop(columns="n")
    table = pd.concat([part[["contrast", "condition", "sides"]], shown], axis=1)
    words = (
        f"Interval and Holm's p disagree on {len(part)} of {len(known):,} effects: "
        f"{(apart & ~small).sum()} where only the interval excludes 0, {(small & ~apart).sum()} "
        "where only p is below 0.05."
    )
    return table.sort_values("p_holm", kind="stable"), words


def interval_words(seeds: int) -> str:
    """What a joint interval covers, and what it does not."""
    start = "*Intervals* in square brackets are 95 % intervals from resampling test classes, for "
    if seeds < 2:
        return start + (
            "several models jointly. They are over test classes, not over retraining, backgrounds "
            "or training recipes."
        )
    return start + (
        f"several models jointly, widened by the spread between the trainings of {seeds} seeds. "
        "They are over test classes and retraining, not over backgrounds or training recipes; the "
        "interval of a single model is over test classes alone."
    )


WITHOUT_SHARED = {
    "leaving out images on the query's photograph": ("random_background", "unshared"),
    "places of training images": ("unshared_background", "both"),
}  # what takes shared photographs away: (condition, sides)


def shared_photographs(classes: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Share of the drop that goes away with shared photographs, by arm; the first row in words.

    A dash where the drop itself may be nothing: its share has no finite interval then.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, setting in WITHOUT_SHARED.items():
        for row in effects_of.given_back(classes, *setting).to_dict("records"):
            known = not np.isinf([row["low"], row["high"]]).any()
            rows.setdefault(name, {})[label(row["arm"])] = told(row, 100, 0) if known else "–"
    table = pd.DataFrame.from_dict(rows, orient="index")
    if table.empty:
        return table, "Not measured: a ranking without shared photographs."
    words = per_arm(pd.Series(rows[table.index[0]]), "{}")
    unknown = table.eq("–").any(axis=None)
    none = " (–: not known, since the drop itself may be nothing)" if unknown else ""
    return table, (
        f"Share of the drop, in percent, that {table.index[0]} gives back: {words}{none}. "
        "(Places of training images are not shared either, but of another kind than random "
        "photographs: what they give back is due to that as well.)"
    )


def class_sizes(classes: pd.DataFrame, labels: pd.Series) -> pd.Series:
    """How many test images every class has, by label; one, where no query has anything to find.

    `classes`: of lib.evaluation.measured, whose `labels` count images of known background only.
    """
    clean = classes[(classes["condition"] == "clean") & (classes["sides"] == "both")]
    return clean.groupby("label")["n"].first().reindex(labels, fill_value=1)


def metric_table(sizes: pd.Series) -> pd.DataFrame:
    """Every metric with its direction, range, chance level on this gallery, and reference.

    `sizes`: images of every test class, each a query against all others.
    """
    chance = metrics.chance_levels(torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
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


def background_gap(effects: pd.DataFrame, kind: str = "filled") -> pd.DataFrame:
    """MAP@R on a same-class background minus on another class's, per model, paired.

    `kind` is a key of lib.images.conditions.GAPS: how the object was taken off its background.
    """
    gap = select(effects, "same-other", test_conditions.GAPS[kind][0], "both")
    columns = [*trained_models.MODEL, *ENDS, "p", "p_holm", "n"]
    return gap[columns].reset_index(drop=True)


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
    return pd.DataFrame(out, columns=["arm", *ENDS, "n"])


def sensitivity(robustness: pd.DataFrame) -> pd.DataFrame:
    """Effects through every kind of masks (columns `masks`, `usable` added)."""
    keys = ["masks", "usable"]
    parts = [
        effects_of.effects(part.drop(columns=keys)).assign(**dict(zip(keys, names, strict=True)))
        for names, part in robustness.groupby(keys, sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


# ----------------------------------------------------------------------------- means over models


def settings_table(
    classes: pd.DataFrame, contrasts: list[str], sign: int = 1, clean: bool = False
) -> pd.DataFrame:
    """Points of MAP@R with joint intervals: a row a setting, a column an arm (or contrast).

    Settings that were not measured are left out.

    Args:
        contrasts: `["shifted-clean"]` (columns: arms), or contrasts of arms. sign: -1 for losses.
        clean: also the clean images (gains of an arm).
    """
    settings = ({"clean": ("clean", "both")} if clean else {}) | SETTINGS
    rows: dict[str, dict[str, str]] = {}
    for name, setting in settings.items():
        for contrast in contrasts:
            for row in effects_of.joint(classes, contrast, *setting).to_dict("records"):
                shown = row["arm"] if contrast == "shifted-clean" else contrast
                rows.setdefault(name, {})[pair_label(shown)] = told(row, sign * 100)
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("–")
    return table.set_axis(table.index.astype(str))


def gains_by_loss(classes: pd.DataFrame, effects: pd.DataFrame, contrast: str) -> pd.DataFrame:
    """A contrast of arms in points of MAP@R, a row a loss: mean over seeds [joint interval].

    Beside it, where there are several seeds, in how many of them the interval over classes lies
    above and below zero.
    """
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for condition in PAPER[::-1]:
        name = "clean" if condition == "clean" else "random background"
        found = effects_of.joint(classes, contrast, condition, "both", by=("loss",))
        seeds = select(effects, contrast, condition, "both")
        for row in found.to_dict("records"):
            own = seeds[seeds["loss"] == row["loss"]]
            line = rows.setdefault(label_of(row["loss"]), {})
            line[name, "gain ↑"] = told(row)
            if len(own) > 1:
                line[name, "significantly better"] = f"{(own['low'] > 0).sum()} of {len(own)}"
                line[name, "significantly worse"] = f"{(own['high'] < 0).sum()} of {len(own)}"
    return pd.DataFrame.from_dict(rows, orient="index")


def measured_levels(classes: pd.DataFrame) -> list[str]:
    """The conditions in their order."""
    return list(classes["condition"].unique())


def contrasts_of(classes: pd.DataFrame) -> list[str]:
    """The contrasts of arms that the study has (`bgaugment-base`)."""
    levels_there = list(classes[LEVEL].drop_duplicates().itertuples(index=False, name=None))
    names = dict.fromkeys(name for name, _, _ in effects_of.contrasts(levels_there))
    return [name for name in names if name not in ("shifted-clean", "same-other")]
