"""Example maps, picked by a rule: largest gain, median and largest loss of the score."""

import numpy as np
import pandas as pd

from lib.attention import maps as attention_maps
from lib.attention import scores
from lib.evaluation import models as trained_models
from lib.images.scenes import Scenes

SCORE = "attention_score"


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
        for m in trained_models.models_of(study)
        if m.loss == loss and m.seed == part["seed"].min()
    }
    maps = {
        arm: scores.scale_map(attention_maps.maps_of(study, model, scenes, rows, seed, **settings))
        for arm, model in models.items()
    }
    found = []
    for rule, place in picks.items():
        row = change.index[place]
        at = int(np.flatnonzero(rows == row)[0])
        image, mask = attention_maps.pictures(scenes, np.array([row]), maps["base"].shape[1])
        found.append(
            {
                "rule": rule,
                "image": image[0].permute(1, 2, 0).byte().cpu().numpy(),
                "mask": mask[0].numpy(),
                **{arm: (maps[arm][at].numpy(), wide.loc[row, arm]) for arm in models},
            }
        )
    return found
