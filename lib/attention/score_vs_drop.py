"""Does the attention score tell how much retrieval suffers from another background?

Higher scores should go with smaller losses, so every correlation here should be positive.
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from lib.core.cache import kept
from lib.core.files import key_of
from lib.core.hardware import fixed_threads
from lib.evaluation import effects, statistics
from lib.evaluation import models as trained_models
from lib.images.scenes import Scenes
from lib.models import embedding

SCORE = "attention_score"
DRAWS = 2  # of the backgrounds, for how far the embeddings move
OUTCOMES = {
    "map_at_r_change": "change of the query's average precision",
    "similarity_kept": "similarity of the embedding to its clean self",
}
COLUMNS = ["over", "outcome", *trained_models.MODEL, "value", "low", "high", "n"]


def precision_changes(queries: pd.DataFrame) -> pd.DataFrame:
    """Per model and query: random background minus clean, mean over draws (column value)."""
    mean = effects.over_draws(queries[queries["sides"] == "both"])
    wide = mean.pivot_table(
        index=[*trained_models.MODEL, "row"], columns="condition", values="map_at_r"
    )
    return (wide["random_background"] - wide["clean"]).rename("value").reset_index()


def similarity_kept(study: str, scenes: Scenes, rows: np.ndarray, seed: int) -> pd.DataFrame:
    """Per model and image: cosine of clean and shifted embedding, mean over draws (value).

    Unlike the precision of a query, which cannot fall when it is zero already, this has no floor.
    """
    out = []
    for model in trained_models.models_of(study):
        kept = _kept(study, model, scenes, rows, seed).numpy()
        names = {key: getattr(model, key) for key in trained_models.MODEL}
        out.append(pd.DataFrame({"row": rows, "value": kept}).assign(**names))
    return pd.concat(out, ignore_index=True)


@fixed_threads()
def _kept(
    study: str, model: trained_models.Model, scenes: Scenes, rows: np.ndarray, seed: int
) -> Tensor:
    key = key_of(
        version=1, model=model.identity, data=scenes.fingerprint, rows=rows.tolist(), seed=seed,
        draws=DRAWS, size=model.image_size, bits=model.precision, what="similarity kept",
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        network = model.load()
        options = {"seed": seed, "size": model.image_size, "precision": model.precision}
        clean = embedding.embed(network, scenes, rows, "clean", draw=0, **options)
        moved = [
            embedding.embed(network, scenes, rows, "random_background", draw=d, **options)
            for d in range(DRAWS)
        ]
        return {"kept": torch.stack([(clean * one).sum(dim=1) for one in moved]).mean(dim=0)}

    return kept(study, "kept", key, make)["kept"]


def joined(per_image: pd.DataFrame, changes: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Score and outcome side by side: one row an image x model x outcome."""
    part = per_image[(per_image["metric"] == SCORE) & per_image["defined"]]
    part = part[[*trained_models.MODEL, "row", "label", "value"]].rename(columns={"value": "score"})
    tables = [table.assign(outcome=name) for name, table in changes.items()]
    return part.merge(pd.concat(tables), on=[*trained_models.MODEL, "row"])


def over_images(pairs: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation over the images of each model; interval from resampled classes."""
    out = []
    for (outcome, *model), part in pairs.groupby(["outcome", *trained_models.MODEL], sort=False):
        out.append(["images", outcome, *model, *_correlation(part)])
    return pd.DataFrame(out, columns=COLUMNS)


def over_gains(pairs: pd.DataFrame) -> pd.DataFrame:
    """Does an image whose score BGAugment raises lose less under it? Per loss and seed."""
    out, keys = [], ["outcome", "loss", "seed"]
    for (outcome, loss, seed), part in pairs.groupby(keys, sort=False):
        wide = part.pivot(index=["row", "label"], columns="arm", values=["score", "value"])
        if {"base", "bgaugment"} <= set(wide.columns.get_level_values("arm")):
            wide = wide.xs("bgaugment", axis=1, level="arm") - wide.xs("base", axis=1, level="arm")
            found = _correlation(wide.dropna().reset_index())
            out.append(["gain of an image", outcome, loss, "bgaugment-base", seed, *found])
    return pd.DataFrame(out, columns=COLUMNS)


def model_means(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean score and mean outcome per trained model."""
    trained = pairs[pairs["arm"] != "untrained"]
    keys = ["outcome", *trained_models.MODEL]
    return trained.groupby(keys, sort=False)[["score", "value"]].mean().reset_index()


def over_models(pairs: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation over trained models, of both arms and within each arm.

    Over both arms the training decides score and outcome together; within an arm only the losses
    and seeds differ.
    """
    out = []
    for outcome, part in model_means(pairs).groupby("outcome", sort=False):
        arms = {"both": part, **{arm: group for arm, group in part.groupby("arm", sort=False)}}
        for arm, group in arms.items():
            known = len(group) > 2 and group["score"].nunique() > 1
            r = group["score"].corr(group["value"], method="spearman") if known else np.nan
            out.append(["models", outcome, "all", arm, -1, r, *interval_of_few(r, len(group))])
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


def _correlation(part: pd.DataFrame) -> list[float]:
    found = statistics.correlation(
        part["score"].to_numpy(), part["value"].to_numpy(), part["label"].to_numpy()
    )
    return [found.mean, found.low, found.high, found.n]


def verdict(found: pd.DataFrame) -> str:
    """In words: does the score tell which images, and which models, suffer less?"""
    part = found[found["outcome"] == "map_at_r_change"]
    images, models = (part[part["over"] == name] for name in ("images", "models"))
    sure, n = (images["low"] > 0).sum(), len(images)
    words = "tells" if sure > n / 2 else "does not tell"  # one of many may be luck
    within = models[models["arm"] != "both"]
    both = models[models["arm"] == "both"]
    if both["low"].isna().all():
        over = f"{both['n'].max()} models are too few to say whether it tells which models do"
    else:
        sign = "goes" if (both["low"] > 0).any() else "does not surely go"
        over = f"over the models of both arms a higher score {sign} with a smaller loss"
    return (
        f"The score {words} which images keep their precision (surely for {sure} of {n} models); "
        f"{over}; within one arm it surely does for {(within['low'] > 0).sum()} of {len(within)}."
    )


def tally(table: pd.DataFrame) -> str:
    """In words: mean correlation, and how many intervals leave out zero, to which side."""
    up, down = (table["low"] > 0).sum(), (table["high"] < 0).sum()
    return (
        f"{table['value'].mean():+.2f} on average; surely positive for {up} and surely negative "
        f"for {down} of {len(table)}"
    )
