"""From one row a class to summary tables: means, paired effects, intervals, classes.

All statistics resample whole classes, so a class's mean and its number of queries are all that they
need (`classes.parquet`, a row a model, condition, sides, draw and class). Tables have a row a model
and condition, values as fractions.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.evaluation import statistics
from lib.evaluation.embeddings import METRICS
from lib.evaluation.models import MODEL
from lib.images import conditions
from lib.training import arms

LEVEL = [*MODEL, "condition", "sides"]  # what a mean over draws belongs to
FLIPS = 99_999  # sign patterns: the least p-value, times the tests of a grid, stays below 0.05


def class_sums(
    classes: pd.DataFrame, metric: str, keys: list[str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Sums (label x keys) of a metric over each class's queries, and queries of each class (label).

    With keys that leave something out (draws, losses, seeds) the mean over it is taken first, so
    that intervals are those of the mean over models, not means of intervals.
    """
    wide = classes.pivot_table(index="label", columns=keys, values=metric, sort=False)
    counts = classes.groupby("label", sort=False)["n"].first().reindex(wide.index)
    return wide.mul(counts, axis=0), counts


def _filled(columns: Iterable, names: list[str], **values: object) -> pd.DataFrame:
    """One row a column of a wide table, its keys spelt out."""
    index = pd.MultiIndex.from_tuples([c if isinstance(c, tuple) else (c,) for c in columns])
    return index.set_names(names).to_frame(index=False).assign(**values)


def _with_interval(sums: pd.DataFrame, counts: pd.Series, keys: list[str]) -> pd.DataFrame:
    mean, half = statistics.class_bootstrap(sums, counts)
    ends = {"value": mean, "low": mean - half, "high": mean + half, "n": int(counts.sum())}
    return _filled(sums.columns, keys, **ends)


def summary(classes: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric per model x condition x sides x draw, 95 % interval over classes."""
    keys, parts = [*LEVEL, "draw"], []
    for metric in METRICS:
        found = _with_interval(*class_sums(classes, metric, keys), keys)
        parts.append(found.assign(metric=metric))
    table = pd.concat(parts, ignore_index=True)
    order = [*keys, "metric", "value", "low", "high", "n"]
    return table[order].sort_values(keys, kind="stable", key=_as_met(table), ignore_index=True)


def _as_met(table: pd.DataFrame):
    """A sort key for columns: values in the order in which they first appear."""
    seen = {name: {v: i for i, v in enumerate(table[name].unique())} for name in table}
    return lambda column: column.map(seen[column.name])


def contrasts(levels: list[tuple]) -> list[tuple[str, tuple, tuple]]:
    """All (contrast, a, b) with a - b to be tested, among (loss, arm, seed, condition, sides).

    `shifted-clean` (same model), `<arm>-<reference>` for every arm whose reference is there (same
    loss, seed, condition), and `same-other` (same model; the BG-gap of the pairs in
    conditions.GAPS, named by its first).
    """
    there, other_place = set(levels), dict(conditions.GAPS.values())
    compared = arms.pairs([arm for arm in dict.fromkeys(x[1] for x in levels) if arm in arms.ARMS])
    found: dict[str, list] = {"shifted-clean": []}
    found |= {f"{arm}-{reference}": [] for arm, reference in compared}
    found["same-other"] = []
    for loss, arm, seed, condition, sides in levels:
        level, model = (loss, arm, seed, condition, sides), (loss, arm, seed)
        found["shifted-clean"].append((level, (*model, "clean", "both")))
        found["same-other"].append((level, (*model, other_place.get(condition), sides)))
        for mine, reference in compared:
            if arm == mine:
                pair = (level, (loss, reference, seed, condition, sides))
                found[f"{arm}-{reference}"].append(pair)
    return [(name, a, b) for name, pairs in found.items() for a, b in pairs if b in there - {a}]


def effects(classes: pd.DataFrame) -> pd.DataFrame:
    """Paired differences with 95 % intervals over classes and a sign-flip p (Holm-adjusted).

    The contrasts are those of `contrasts`. Holm's family is the grid of one contrast and metric:
    all models, conditions and sides.
    """
    parts = []
    for metric in METRICS:
        sums, counts = class_sums(classes, metric, LEVEL)
        pairs = contrasts(list(sums.columns))
        if not pairs:
            continue
        moved = np.stack([sums[a].to_numpy() - sums[b].to_numpy() for _, a, b in pairs], axis=1)
        moved = pd.DataFrame(
            moved, columns=pd.MultiIndex.from_tuples([(c, *a) for c, a, _ in pairs])
        )
        found = _with_interval(moved, counts, ["contrast", *LEVEL])
        p = statistics.class_flips(moved, flips=FLIPS)
        parts.append(found.assign(metric=metric, p=p))
    columns = ["contrast", *LEVEL, "metric", "value", "low", "high", "p", "n"]
    if not parts:
        return pd.DataFrame(columns=[*columns, "p_holm"])
    table = pd.concat(parts, ignore_index=True)[columns]
    family = table.groupby(["contrast", "metric"])["p"]
    table["p_holm"] = family.transform(lambda p: statistics.holm(p.to_numpy()))
    return table


def select(
    effects: pd.DataFrame, contrast: str, condition: str, sides: str, metric: str = "map_at_r"
) -> pd.DataFrame:
    """The rows of one contrast, condition, side and metric."""
    wanted = {"contrast": contrast, "condition": condition, "sides": sides, "metric": metric}
    keep = np.logical_and.reduce([effects[key] == value for key, value in wanted.items()])
    return effects[keep]


def joint(
    classes: pd.DataFrame,
    contrast: str,
    condition: str,
    sides: str,
    metric: str = "map_at_r",
    by: tuple[str, ...] = ("arm",),
) -> pd.DataFrame:
    """A contrast's mean over models with its joint interval: one row a group of `by`.

    Classes are resampled once for all models of a group, so the interval is that of the mean: a
    mean of the models' ends would be too wide. Where a group was trained with two seeds or more,
    it covers other trainings, too (statistics.with_trainings).

    Returns:
        `by`, value, low, high, n (queries), models, seeds (how many); empty where nothing was
        measured.
    """
    sums, counts = class_sums(classes, metric, LEVEL)
    pairs = [(a, b) for name, a, b in contrasts(list(sums.columns)) if name == contrast]
    pairs = [(a, b) for a, b in pairs if a[3:] == (condition, sides)]
    if not pairs:
        return pd.DataFrame(columns=[*by, "value", "low", "high", "n", "models", "seeds"])
    moved = pd.DataFrame({a: sums[a] - sums[b] for a, b in pairs})
    moved.columns = pd.MultiIndex.from_tuples(moved.columns, names=LEVEL)
    return over_models(moved, counts, list(by))


def joint_levels(
    classes: pd.DataFrame, by: tuple[str, ...] = ("arm",), metric: str = "map_at_r"
) -> pd.DataFrame:
    """Levels (both sides) with joint intervals, as `joint`: one row a group of `by` x condition."""
    sums, counts = class_sums(classes[classes["sides"] == "both"], metric, LEVEL)
    return over_models(sums, counts, [*by, "condition"])


def share_lost(
    classes: pd.DataFrame, condition: str = "random_background", by: tuple[str, ...] = ("arm",)
) -> pd.DataFrame:
    """Share of clean MAP@R that a condition takes (both sides), mean over models: a row a group.

    A ratio of sums over classes, so that its interval comes from resampling classes as all others.
    From two seeds on it covers other trainings, too.

    Returns:
        `by`, value, low, high, models, seeds; empty where one of both was not measured.
    """
    sums, rows = class_sums(classes[classes["sides"] == "both"], "map_at_r", LEVEL)[0], []
    for group, part in sums.T.groupby(level=list(by), sort=False):
        wide = part.T
        there = set(wide.columns.get_level_values("condition"))
        if not {"clean", condition} <= there:
            continue
        clean, moved = (wide.xs(name, axis=1, level="condition") for name in ("clean", condition))
        moved = moved[clean.columns]
        mean, half = statistics.class_bootstrap((clean - moved).mean(axis=1).to_frame(),
                                                clean.mean(axis=1))  # fmt: skip
        seeds = (1 - moved.sum() / clean.sum()).groupby("seed").mean().to_frame()
        half = statistics.with_trainings(half, seeds)
        ends = (mean[0], mean[0] - half[0], mean[0] + half[0])
        rows.append([*group, *ends, len(clean.columns), len(seeds)])
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high", "models", "seeds"])


def given_back(classes: pd.DataFrame, condition: str, sides: str) -> pd.DataFrame:
    """Share of the drop under a random background (both sides) that another setting gives back.

    (MAP@R in the setting - random) / (clean - random), mean over the models of an arm; a ratio of
    sums over classes, as `share_lost`. From two seeds on its interval covers other trainings, too.

    Returns:
        arm, value, low, high, models, seeds; empty where one of the three was not measured.
    """
    sums, rows = class_sums(classes, "map_at_r", LEVEL)[0], []
    wanted = [("clean", "both"), ("random_background", "both"), (condition, sides)]
    for arm, part in sums.T.groupby(level="arm", sort=False):
        there = set(part.index.droplevel([*MODEL]))
        if not set(wanted) <= there:
            continue
        clean, random, other = (part.T.xs(w, axis=1, level=["condition", "sides"]) for w in wanted)
        back, drop = other[clean.columns] - random[clean.columns], clean - random[clean.columns]
        mean, half = statistics.class_bootstrap(back.mean(axis=1).to_frame(), drop.mean(axis=1))
        seeds = (back.sum() / drop.sum()).groupby("seed").mean().to_frame()
        half = statistics.with_trainings(half, seeds)
        ends = (mean[0], mean[0] - half[0], mean[0] + half[0])
        rows.append([arm, *ends, len(clean.columns), len(seeds)])
    return pd.DataFrame(rows, columns=["arm", "value", "low", "high", "models", "seeds"])


def over_models(sums: pd.DataFrame, counts: pd.Series, by: list[str]) -> pd.DataFrame:
    """Means over the columns of each group of `by`, their intervals over classes and trainings.

    Args:
        sums, counts: of `class_sums`, or differences of its columns; `seed` among their levels.
    """
    groups = sums.T.groupby(level=by, sort=False)
    mean = groups.mean().T
    table = _with_interval(mean, counts, by).assign(models=groups.size().to_numpy())
    level = (sums.sum() / counts.sum()).rename("value").reset_index()
    halves, seeds = [], []
    for row, (_, own) in zip(table.itertuples(), level.groupby(by, sort=False), strict=True):
        means = own.groupby("seed")[["value"]].mean()
        halves.append(statistics.with_trainings([row.high - row.value], means)[0])
        seeds.append(len(means))
    return table.assign(low=table["value"] - halves, high=table["value"] + halves, seeds=seeds)


def intervals(classes: pd.DataFrame) -> pd.DataFrame:
    """The same mean with a 95 % interval for each thing that could have come out otherwise.

    `covers` names it: `classes` (bootstrap by class; other classes with their images), `draws`
    (t; other backgrounds on these images), `seeds` (t; other trainings; `seed` is then "all").
    `n` is how many of them there were; the ends are missing where one is too few.
    """
    parts = []
    for metric in METRICS:
        sums, counts = class_sums(classes, metric, LEVEL)
        found = _with_interval(sums, counts, LEVEL).assign(n=len(counts), covers="classes")
        drawn, counts = class_sums(classes, metric, [*LEVEL, "draw"])
        means = drawn.sum() / counts.sum()
        parts += [found.assign(metric=metric)]
        parts += [_repeated(means, LEVEL).assign(metric=metric, covers="draws")]
        over = means.groupby(LEVEL, sort=False).mean()
        keys = [key for key in LEVEL if key != "seed"]
        parts += [_repeated(over, keys).assign(metric=metric, covers="seeds", seed="all")]
    columns = [*LEVEL, "metric", "covers", "value", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns]


def _repeated(means: pd.Series, keys: list[str]) -> pd.DataFrame:
    """Mean and t interval over what `keys` leave out of the index."""
    out = []
    for names, values in means.groupby(keys, sort=False):
        found = statistics.over_draws(values)
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "n"])


def class_losses(classes: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Mean MAP@R per model and class, clean and under a condition (both sides), worst change first.

    `n` is the number of queries that have anything to find.
    """
    part = classes[(classes["sides"] == "both") & classes["condition"].isin(["clean", condition])]
    grouped = part.groupby([*MODEL, "label", "condition"])
    wide = grouped["map_at_r"].mean().unstack("condition")
    wide["change"] = wide[condition] - wide["clean"]
    wide["n"] = grouped["n"].first().unstack("condition")["clean"]
    return wide.reset_index().sort_values("change", kind="stable", ignore_index=True)


def worst_classes(classes: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Per model its class with the lowest MAP@R, clean and under a condition.

    `classes` as `class_losses` gives them, with `class_name`.
    """
    found = []
    for names, part in classes.groupby(MODEL, sort=False):
        worst = [(part.loc[part[level].idxmin()], level) for level in ("clean", condition)]
        values = [value for row, level in worst for value in (row["class_name"], row[level])]
        found.append([*names, *values])
    columns = ["clean: worst class", "clean ↑", "shifted: worst class", "shifted ↑"]
    return pd.DataFrame(found, columns=[*MODEL, *columns]).sort_values(MODEL, ignore_index=True)
