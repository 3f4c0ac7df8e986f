"""From one row a query to summary tables: means, paired effects, intervals, classes."""

import numpy as np
import pandas as pd

from lib.evaluation import statistics
from lib.evaluation.embeddings import METRICS
from lib.evaluation.models import MODEL
from lib.images import conditions


def select(
    effects: pd.DataFrame, contrast: str, condition: str, sides: str, metric: str = "map_at_r"
) -> pd.DataFrame:
    """The rows of one contrast, condition, side and metric."""
    wanted = {"contrast": contrast, "condition": condition, "sides": sides, "metric": metric}
    keep = np.logical_and.reduce([effects[key] == value for key, value in wanted.items()])
    return effects[keep]


FLIPS = 99_999  # sign patterns: the least p-value, times the tests of a grid, stays below 0.05


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric per model x condition x sides x draw, 95 % interval over classes."""
    out = []
    keys = [*MODEL, "condition", "sides", "draw"]
    for names, part in rows.groupby(keys, sort=False):
        for metric in METRICS:
            found = statistics.mean_by_class_bootstrap(
                part[metric].to_numpy(), part["label"].to_numpy()
            )
            out.append([*names, metric, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, "metric", "value", "low", "high", "n"])


def over_draws(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a query: the mean over draws, wide over condition and sides."""
    keys = [*MODEL, "condition", "sides", "row", "label"]
    return rows.groupby(keys, sort=False)[METRICS].mean().reset_index()


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired differences with 95 % intervals over classes and a sign-flip p (Holm-adjusted).

    `contrast` is shifted-clean (same model), bgaugment-base (same loss, seed, condition) or
    same-other (same model; the BG-gap of the pairs in conditions.GAPS, named by its first).
    Holm's family is the grid of one contrast and metric: all models, conditions and sides.
    """
    keys = [*MODEL, "condition", "sides"]
    wide = over_draws(rows).pivot(index=["label", "row"], columns=keys, values=METRICS)
    classes, out = wide.index.get_level_values("label").to_numpy(), []
    for metric in METRICS:
        level = wide[metric]
        pairs = contrasts(list(level.columns))
        if not pairs:
            continue
        moved = np.stack([level[a].to_numpy() - level[b].to_numpy() for _, a, b in pairs], axis=1)
        p = statistics.sign_flips(moved, classes, flips=FLIPS)
        for (contrast, name, _), values, chance in zip(pairs, moved.T, p, strict=True):
            found = statistics.mean_by_class_bootstrap(values, classes)
            numbers = [found.mean, found.low, found.high, chance, found.n]
            out.append([contrast, *name, metric, *numbers])
    columns = ["contrast", *keys, "metric", "value", "low", "high", "p", "n"]
    table = pd.DataFrame(out, columns=columns)
    family = table.groupby(["contrast", "metric"])["p"]
    table["p_holm"] = family.transform(lambda p: statistics.holm(p.to_numpy()))
    return table


def contrasts(levels: list[tuple]) -> list[tuple[str, tuple, tuple]]:
    """All (contrast, a, b) with a - b to be tested, among (loss, arm, seed, condition, sides)."""
    other_place = dict(conditions.GAPS.values())
    found: dict[str, list] = {"shifted-clean": [], "bgaugment-base": [], "same-other": []}
    for loss, arm, seed, condition, sides in levels:
        level, model = (loss, arm, seed, condition, sides), (loss, arm, seed)
        found["shifted-clean"].append((level, (*model, "clean", "both")))
        found["same-other"].append((level, (*model, other_place.get(condition), sides)))
        if arm == "bgaugment":
            found["bgaugment-base"].append((level, (loss, "base", seed, condition, sides)))
    return [
        (name, a, b) for name, pairs in found.items() for a, b in pairs if b in levels and a != b
    ]


def intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """The same mean with a 95 % interval for each thing that could have come out otherwise.

    `covers` names it: `classes` (bootstrap by class; other classes with their images), `draws`
    (t; other backgrounds on these images), `seeds` (t; other trainings; `seed` is then "all").
    `n` is how many of them there were; the ends are missing where one is too few.
    """
    out, setting = [], ["condition", "sides"]
    for names, part in rows.groupby([*MODEL, *setting], sort=False):
        for metric in METRICS:
            query = part.groupby(["row", "label"])[metric].mean().dropna()
            label = query.index.get_level_values("label")
            found = statistics.mean_by_class_bootstrap(query, label)
            numbers = [found.mean, found.low, found.high, label.nunique()]
            out.append([*names, metric, "classes", *numbers])
            out.append([*names, metric, "draws", *_repeated(part, "draw", metric)])
    for (loss, arm, *names), part in rows.groupby([*MODEL[:2], *setting], sort=False):
        for metric in METRICS:
            numbers = _repeated(part, "seed", metric)
            out.append([loss, arm, "all", *names, metric, "seeds", *numbers])
    columns = [*MODEL, *setting, "metric", "covers", "value", "low", "high", "n"]
    return pd.DataFrame(out, columns=columns)


def _repeated(part: pd.DataFrame, what: str, metric: str) -> list[float]:
    """Mean, low, high and number of repetitions (`what` is draw or seed)."""
    found = statistics.over_draws(part.groupby(what)[metric].mean())
    return [found.mean, found.low, found.high, found.n]


def seeds_say(rows: pd.DataFrame) -> str:
    """A sentence on what the study knows about other trainings."""
    count = rows[rows["arm"] != "untrained"].groupby("loss")["seed"].nunique()
    if count.max() == 1:
        return "One seed was trained: there is no interval over seeds."
    return f"Intervals over seeds are from {count.min()} to {count.max()} trainings a loss."


def class_losses(rows: pd.DataFrame, condition: str = "random_background") -> pd.DataFrame:
    """Mean MAP@R per model and class, clean and under a condition (both sides), worst change first.

    `n` is the number of queries that have anything to find.
    """
    mean = over_draws(
        rows[(rows["sides"] == "both") & rows["condition"].isin(["clean", condition])]
    )
    grouped = mean.groupby([*MODEL, "label", "condition"])["map_at_r"]
    wide = grouped.mean().unstack("condition")
    wide["change"] = wide[condition] - wide["clean"]
    wide["n"] = grouped.count().unstack("condition")["clean"]
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
