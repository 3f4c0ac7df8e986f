"""Does the attention score tell how much retrieval suffers from another background?

Higher scores should go with smaller losses, so every correlation here should be positive.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from lib.evaluation import statistics
from lib.evaluation.models import MODEL
from lib.report.attention_tables import SCORE, trained
from lib.training import arms

OUTCOMES = {
    "map_at_r_change": "change of the query's average precision",
    "similarity_kept": "similarity of the embedding to its clean self",
}
COLUMNS = ["over", "outcome", *MODEL, "value", "low", "high", "n"]
ALL = "all arms"


def precision_changes(queries: pd.DataFrame) -> pd.DataFrame:
    """Per model and query: random background minus clean, mean over draws (column value).

    Empty where the random background was not measured.
    """
    part = queries[queries["sides"] == "both"]
    mean = part.groupby([*MODEL, "row", "condition"], sort=False)["map_at_r"].mean()
    wide = mean.unstack("condition")
    if not {"clean", "random_background"} <= set(wide):
        return pd.DataFrame(columns=[*MODEL, "row", "value"])
    return (wide["random_background"] - wide["clean"]).rename("value").reset_index()


def joined(scores: pd.DataFrame, changes: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Score and outcome side by side: one row an image x model x outcome."""
    part = scores[(scores["metric"] == SCORE) & scores["defined"]]
    part = part[[*MODEL, "row", "label", "value"]].rename(columns={"value": "score"})
    tables = [table.assign(outcome=name) for name, table in changes.items() if len(table)]
    after = pd.concat(tables)[[*MODEL, "row", "outcome", "value"]]
    return part.merge(after, on=[*MODEL, "row"])


def link(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Spearman's correlation over images, over images' gains, and over models (column over)."""
    tables = [over_images(pairs, level), over_gains(pairs, level), over_models(pairs, level)]
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def over_images(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Spearman's correlation over the images of each model; interval from resampled classes."""
    out = []
    for (outcome, *model), part in pairs.groupby(["outcome", *MODEL], sort=False):
        out.append(["images", outcome, *model, *_correlation(part, level)])
    return pd.DataFrame(out, columns=COLUMNS)


def over_gains(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Does an image whose score an arm raises lose less under it? Per arm, loss and seed."""
    out = []
    for arm, than in arms.pairs(trained(pairs)):
        both = pairs[pairs["arm"].isin([arm, than])]
        for (outcome, loss, seed), part in both.groupby(["outcome", "loss", "seed"], sort=False):
            wide = part.pivot(index=["row", "label"], columns="arm", values=["score", "value"])
            moved = wide.xs(arm, axis=1, level="arm") - wide.xs(than, axis=1, level="arm")
            found = _correlation(moved.dropna().reset_index(), level)
            out.append(["gain of an image", outcome, loss, f"{arm}-{than}", seed, *found])
    return pd.DataFrame(out, columns=COLUMNS)


def model_means(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean score and mean outcome per trained model."""
    own = pairs[pairs["arm"].isin(trained(pairs))]
    return own.groupby(["outcome", *MODEL], sort=False)[["score", "value"]].mean().reset_index()


def over_models(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Spearman's correlation over trained models, of all arms and within each arm.

    Over all arms the training decides score and outcome together; within an arm only the losses
    and seeds differ.
    """
    out = []
    for outcome, part in model_means(pairs).groupby("outcome", sort=False):
        groups = dict([*part.groupby("arm", sort=False)])
        several = {ALL: part} if len(groups) > 1 else {}
        for arm, group in (several | groups).items():
            known = len(group) > 2 and group["score"].nunique() > 1
            r = group["score"].corr(group["value"], method="spearman") if known else np.nan
            found = interval_of_few(r, len(group), level)
            out.append(["models", outcome, "all", arm, -1, r, *found])
    return pd.DataFrame(out, columns=COLUMNS)


def interval_of_few(r: float, n: int, level: float = 0.95) -> tuple[float, float, int]:
    """Interval (low, high) of a rank correlation of few models, and n; NaN below 5.

    Resampling fails here: half the samples of five points are perfectly ordered. On Fisher's z with
    the standard error of Bonett & Wright 2000; half a step between attainable values is allowed
    for, so that a perfect order of five does not count as certain. Models are taken as
    independent, although they share images and backgrounds.
    """
    if n < 5 or np.isnan(r):
        return np.nan, np.nan, n
    half_step = 6 / (n**3 - n)
    near = np.clip(r, -1 + half_step, 1 - half_step)
    reach = norm.ppf((1 + level) / 2) * np.sqrt((1 + near**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(near) - reach)), float(np.tanh(np.arctanh(near) + reach)), n


def _correlation(part: pd.DataFrame, level: float) -> list[float]:
    found = statistics.correlation(part["score"], part["value"], part["label"], level=level)
    return [found.mean, found.low, found.high, found.n]


def tally(link: pd.DataFrame) -> pd.DataFrame:
    """How many correlations of each kind are significant (the interval excludes 0)."""
    signs = link.assign(positive=link["low"] > 0, negative=link["high"] < 0)
    grouped = signs.groupby(["over", "outcome"], sort=False)
    table = grouped.agg(
        mean=("value", "mean"), positive=("positive", "sum"), negative=("negative", "sum"),
        of=("low", "count"),
    ).reset_index()  # fmt: skip
    return table.assign(outcome=table["outcome"].map(OUTCOMES))
