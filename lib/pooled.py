"""Models taken together: the mean over the seeds of a loss, and over all losses ("all").

Every pooled mean has two intervals, for two questions: other test classes (`low`, `high`), and
other trainings (`seeds_low`, `seeds_high`; missing where there is one seed).
"""

from collections.abc import Iterator

import pandas as pd

from lib import evaluate, stats

ALL = "all"  # as a loss: the mean over the losses
KEYS = ["loss", "arm"]
NUMBERS = ["value", "low", "high", "n", "models", "seeds", "seeds_low", "seeds_high"]


def together(values: pd.DataFrame) -> pd.DataFrame:
    """The mean over models of each loss and arm, then of each arm, with both intervals.

    Args:
        values: one row a model x image: loss, arm, seed, row, label, value. An image whose value
            is missing for one of the models is left out.

    Returns:
        One row a loss and arm, then one an arm (loss "all"): value with its 95 % interval over
        classes, n images, the number of models and of seeds, and the ends of the 95 % t interval
        over seeds.
    """
    groups = [*values.groupby(KEYS, sort=False)]
    groups += [((ALL, arm), part) for arm, part in values.groupby("arm", sort=False)]
    out = [[*names, *_numbers(part)] for names, part in groups]
    return pd.DataFrame(out, columns=[*KEYS, *NUMBERS])


def _numbers(part: pd.DataFrame) -> list[float]:
    wide = part.pivot(index=["label", "row"], columns=["loss", "seed"], values="value").dropna()
    label = wide.index.get_level_values("label").to_numpy()
    found = stats.mean_by_class_bootstrap(wide.mean(axis=1).to_numpy(), label)
    seeds = wide.mean().groupby("seed").mean()
    trained = stats.over_draws(seeds.to_numpy())
    counts = [found.n, wide.shape[1], len(seeds)]
    return [found.mean, found.low, found.high, *counts, trained.low, trained.high]


def retrieval(rows: pd.DataFrame, metric: str = "map_at_r") -> pd.DataFrame:
    """The contrasts of `evaluate.effects` and the levels themselves (contrast `level`), pooled.

    `rows` as `evaluate.per_query` gives them.
    """
    out = []
    for names, values in _contrasts(evaluate.over_draws(rows), metric):
        out.append(together(values).assign(**names, metric=metric))
    first = ["contrast", *KEYS, "condition", "sides", "metric"]
    return pd.concat(out, ignore_index=True)[[*first, *NUMBERS]]


def _contrasts(rows: pd.DataFrame, metric: str) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    keys = [*evaluate.MODEL, "condition", "sides"]
    wide = rows.pivot(index=["label", "row"], columns=keys, values=metric)
    levels = list(wide.columns)
    pairs = [("level", level, None) for level in levels] + evaluate.contrasts(levels)
    groups: dict[tuple[str, str, str], list[pd.DataFrame]] = {}
    for contrast, level, other in pairs:
        moved = wide[level] if other is None else wide[level] - wide[other]
        names = dict(zip(evaluate.MODEL, level, strict=False))
        part = moved.rename("value").reset_index().assign(**names)
        groups.setdefault((contrast, *level[3:]), []).append(part)
    for (contrast, condition, sides), parts in groups.items():
        names = {"contrast": contrast, "condition": condition, "sides": sides}
        yield names, pd.concat(parts, ignore_index=True)


def attention(rows: pd.DataFrame, metric: str = "attention_score") -> pd.DataFrame:
    """Attention scores (contrast `level`) and the gain of BGAugment over base, pooled.

    `rows`: one row an image x model x measure, of one explanation (`attend.score_models`).
    """
    part = rows[rows["defined"] & (rows["metric"] == metric)]
    level = part[[*evaluate.MODEL, "row", "label", "value"]]
    wide = level.pivot(index=["loss", "seed", "row", "label"], columns="arm", values="value")
    gain = (wide["bgaugment"] - wide["base"]).dropna().rename("value").reset_index()
    gain = gain.assign(arm="bgaugment")
    found = {"level": together(level), "bgaugment-base": together(gain)}
    both = pd.concat([t.assign(contrast=name, metric=metric) for name, t in found.items()])
    return both[["contrast", *KEYS, "metric", *NUMBERS]].reset_index(drop=True)
